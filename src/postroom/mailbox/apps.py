"""Label of the development mailbox. It has no models: its file is ``store.py``."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class MailboxConfig(AppConfig):
    """The development mailbox."""

    name = "postroom.mailbox"
    label = "postroom_mailbox"
    verbose_name = _("Mailbox (development)")
