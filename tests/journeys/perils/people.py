"""Settings of the site whose workers die, where people register besides."""

from tests.journeys.perils.site import *  # noqa: F403
from tests.journeys.perils.site import INSTALLED_APPS as _INSTALLED_APPS

INSTALLED_APPS = [*_INSTALLED_APPS, "django.contrib.sessions", "postroom.accounts"]
ROOT_URLCONF = "tests.journeys.perils.urls"
