"""No ``is_active``, no permissions, and the address in a column of another name."""

from typing import ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models


class UserManager(BaseUserManager["User"]):
    """Nothing but what Django brings."""


class User(AbstractBaseUser):
    """Logs in by a handle."""

    handle = models.CharField(max_length=40, unique=True)
    contact = models.CharField(max_length=254, blank=True)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "handle"
    EMAIL_FIELD = "contact"
