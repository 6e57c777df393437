"""System checks of the accounts."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as CheckWarning

from postroom.accounts.conf import AccountsSettingsError, config
from postroom.accounts.signin import BACKEND


@register()
def check_settings(**_: Any) -> list[CheckMessage]:
    """Refuse ``POSTROOM_ACCOUNTS`` that cannot be meant, at the start and not at the first registration."""
    try:
        config()
    except AccountsSettingsError as error:
        return [Error(str(error), id="postroom_accounts.E001")]
    return []


@register()
def check_backend(**_: Any) -> list[CheckMessage]:
    """Miss the backend that logs in by address."""
    if BACKEND in settings.AUTHENTICATION_BACKENDS:
        return []
    return [
        CheckWarning(
            f"{BACKEND} is not in AUTHENTICATION_BACKENDS.",
            hint="Put it first. Without it nobody logs in by address, and who has not confirmed yet "
            "reads that the password is wrong.",
            id="postroom_accounts.W001",
        )
    ]
