"""
Who did what by hand, in the place where Django's admin looks for it.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db.models import Model


def write_down(user: Any, about: Model, what: str) -> None:
    """Add a line to the admin's log, where the site has an admin; *what* is a sentence without addresses."""
    if not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.models import CHANGE, LogEntry
    from django.contrib.contenttypes.models import ContentType

    LogEntry.objects.create(
        user_id=user.pk,
        content_type_id=ContentType.objects.get_for_model(about).pk,
        object_id=str(about.pk),
        object_repr=str(about._meta.verbose_name)[:200],
        action_flag=CHANGE,
        change_message=what,
    )
