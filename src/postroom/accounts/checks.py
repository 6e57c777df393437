"""System checks of the accounts."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as CheckWarning
from django.utils.module_loading import import_string

from postroom.accounts.conf import AccountsSettingsError, config
from postroom.accounts.signin import BACKEND


@register()
def check_settings(**_: Any) -> list[CheckMessage]:
    """Refuse ``POSTROOM_ACCOUNTS`` that cannot be meant, at the start and not at the first registration."""
    try:
        given = config()
    except AccountsSettingsError as error:
        return [Error(str(error), id="postroom_accounts.E001")]
    paths = {"REGISTRATION_FORM": given.REGISTRATION_FORM, "CREATE_USER": given.CREATE_USER}
    return [found for name, path in paths.items() if (found := _cannot_be_imported(name, path))]


def _cannot_be_imported(name: str, path: str) -> CheckMessage | None:
    try:
        import_string(path)
    except ImportError as error:
        return Error(
            f"POSTROOM_ACCOUNTS[{name!r}] cannot be imported: {error}",
            hint="Write the dotted path of what stands in a module, for example 'shop.accounts.Form'.",
            id="postroom_accounts.E002",
        )
    return None


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
