"""Django's user, but for its key."""

import uuid

from django.contrib.auth.models import AbstractUser
from django.db import models


class User(AbstractUser):
    """Has a UUID for its key."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
