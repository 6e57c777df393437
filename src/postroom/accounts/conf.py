"""
``settings.POSTROOM_ACCOUNTS`` as one frozen value.

Owns every setting with its unit and its default, and refuses a key that it does not know.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import lru_cache

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from postroom import PostroomError

MAIL_ENDS_BEFORE_LINK = timedelta(minutes=10)
"""A message is not sent any more when its link is about to end: nobody could use it."""


class AccountsSettingsError(PostroomError, ImproperlyConfigured):
    """A key of ``POSTROOM_ACCOUNTS`` is unknown, has the wrong type, or cannot be meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings in force. Durations are in the unit that ends their name."""

    VERIFICATION_MAX_AGE_SECONDS: int = 24 * 3600
    """How long a registration, its link and its receipt live."""

    LOGIN_AFTER_VERIFICATION: bool = False
    """Whether the registering browser is logged in by its one click, instead of meeting the login page."""

    REGISTRATION_FORM: str = "postroom.accounts.forms.RegistrationForm"
    """Dotted path of the form; a subclass may ask for more (consent, a captcha)."""

    CREATE_USER: str = "postroom.accounts.usermodel.create_user"
    """
    Dotted path of ``create_user(address) -> user``: saves an inactive account without a usable
    password, for user models with required fields of their own.
    """


def config() -> Config:
    """Return the settings in force; raises AccountsSettingsError for what cannot be meant."""
    return _read()


@lru_cache(maxsize=1)
def _read() -> Config:
    given = getattr(settings, "POSTROOM_ACCOUNTS", {})
    if not isinstance(given, Mapping):
        raise AccountsSettingsError("POSTROOM_ACCOUNTS is a dictionary.")
    known = {f.name: f.default for f in fields(Config)}
    for key, value in given.items():
        if key not in known:
            raise AccountsSettingsError(f"POSTROOM_ACCOUNTS has no setting {key!r}.{_suggestion(key, known)}")
        if type(value) is not type(known[key]):
            kind = type(known[key]).__name__
            raise AccountsSettingsError(f"POSTROOM_ACCOUNTS[{key!r}] is of type {kind}, not {value!r}.")
    read = Config(**given)
    if timedelta(seconds=read.VERIFICATION_MAX_AGE_SECONDS) <= MAIL_ENDS_BEFORE_LINK:
        raise AccountsSettingsError(
            "POSTROOM_ACCOUNTS['VERIFICATION_MAX_AGE_SECONDS'] must be more than 600: "
            "an e-mail is not sent in the last ten minutes of its link."
        )
    return read


def _suggestion(key: object, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(str(key).upper(), known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else f" It knows: {', '.join(sorted(known))}."


def _forget(*, setting: str, **_: object) -> None:
    if setting == "POSTROOM_ACCOUNTS":
        _read.cache_clear()


setting_changed.connect(_forget)
