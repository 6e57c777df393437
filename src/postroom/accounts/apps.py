"""Label and system checks of the accounts."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AccountsConfig(AppConfig):
    """Register, check your e-mail, confirm, log in."""

    name = "postroom.accounts"
    label = "postroom_accounts"
    verbose_name = _("Accounts")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        import_module("postroom.accounts.checks")
