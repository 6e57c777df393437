"""The settings of the test suite with this user model."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS as _APPS

INSTALLED_APPS = [*_APPS, "tests.users.by_email"]
AUTH_USER_MODEL = "by_email.User"
