"""
``settings.POSTROOM`` as one frozen value.

Owns every setting with its unit and its default, and refuses a key that it does not know.
Hides where the values come from: callers ask ``config()`` and never read ``django.conf``.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed

from postroom.exceptions import SettingsError

DOORBELLS = ("none", "notify", "celery")
WHOLE = ("CONCURRENCY", "MAX_STRIKES")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings in force. Durations are in the unit that ends their name."""

    SEND_WITH: tuple[str, ...] = ("default",)
    """Aliases of the mailers that send. The first one does; failover to the others comes later."""

    MAILERS: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Stand-in for Django's ``MAILERS`` where that does not exist (Django 5.2) or is not used."""

    DOORBELL: str = ""
    """``"none"``, ``"notify"``, ``"celery"`` or a dotted path; empty: notify on PostgreSQL, else none."""

    CONCURRENCY: int = 32
    """Sends in flight at once in one delivery process."""

    MAX_STRIKES: int = 24
    """Failed attempts that use up the budget; with the back-off below 2-4 hours."""

    BACKOFF_BASE_SECONDS: float = 5
    """The wait after the first strike; doubled by every further one."""

    BACKOFF_CAP_SECONDS: float = 900
    """The longest wait between two attempts."""

    LEASE_SECONDS: float = 30
    """How long a claim lives without renewal; renewed every third of it while its send lasts."""

    SEND_TIMEOUT_SECONDS: float = 60
    """The longest wait for one read from a provider (one has been seen to take 30 s)."""

    ATTEMPT_SECONDS: float = 90
    """The longest life of one attempt; then it is in doubt and its slot is replaced."""

    STOP_SECONDS: float = 25
    """After SIGTERM: how long what is in flight may take to finish."""

    EXPIRES_AFTER_SECONDS: float = 7 * 24 * 3600
    """An e-mail that has not gone out by then is not sent any more."""

    POLL_INTERVAL_SECONDS: float = 1
    """How often an idle worker looks at the table when nothing wakes it."""

    STALE_AFTER_SECONDS: float = 6 * 3600
    """
    Where nobody has delivered for so long, what is overdue by more than this waits for
    ``postroom_worker --release-stale``: it looks like a restored backup.
    """

    RETENTION_DAYS: float = 90
    """How long a settled e-mail and its history are kept before ``postroom_prune`` deletes them."""

    CELERY_QUEUE: str = ""
    """The Celery queue of ``drain``, and of the workers that also look at the table; empty: the default one."""

    ONLY_TO: str = ""
    """Regular expression; an e-mail to an address that does not match is withdrawn. For staging."""

    SITE_URL: str = ""
    """Base of every link in an e-mail, for example ``https://shop.example``; no trailing slash."""

    SITE_NAME: str = ""
    """What pages and e-mails call this site; empty: the host of ``SITE_URL``."""


def config() -> Config:
    """Return the settings in force; raises SettingsError for what cannot be meant."""
    return _read()


def under_test_runner() -> bool:
    """
    Whether ``setup_test_environment()`` is in force. Not ``mail.outbox``: whoever makes a locmem backend
    in production gives the process one.
    """
    utils = sys.modules.get("django.test.utils")
    return hasattr(getattr(utils, "_TestState", None), "saved_data")


@lru_cache(maxsize=1)
def _read() -> Config:
    given = dict(getattr(settings, "POSTROOM", {}))
    known = {f.name: f for f in fields(Config)}
    for key, value in given.items():
        if key not in known:
            raise SettingsError(f"POSTROOM has no setting {key!r}.{_suggestion(key, known)}")
        _check_type(key, value)
    if isinstance(given.get("SEND_WITH"), list):
        given["SEND_WITH"] = tuple(given["SEND_WITH"])
    return Config(**given)


def _suggestion(key: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(key.upper(), known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else f" It knows: {', '.join(sorted(known))}."


def _check_type(key: str, value: object) -> None:
    """Refuse what would only fail at night: a number in quotes, a single alias, a negative time."""
    if key == "SEND_WITH":
        if isinstance(value, str) or not isinstance(value, (list, tuple)) or not value:
            raise SettingsError(f"POSTROOM['SEND_WITH'] is a list of mailer aliases, not {value!r}.")
    elif key == "MAILERS":
        if not isinstance(value, Mapping):
            raise SettingsError("POSTROOM['MAILERS'] is a dictionary like Django's MAILERS.")
    elif key in ("DOORBELL", "ONLY_TO", "SITE_URL", "SITE_NAME", "CELERY_QUEUE"):
        if not isinstance(value, str):
            raise SettingsError(f"POSTROOM[{key!r}] is a string, not {value!r}.")
        _check_pattern(key, value)
    elif isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise SettingsError(f"POSTROOM[{key!r}] is a positive number, not {value!r}.")
    elif key in WHOLE and not isinstance(value, int):
        raise SettingsError(f"POSTROOM[{key!r}] is a whole number, not {value!r}.")


def _check_pattern(key: str, value: str) -> None:
    if key == "ONLY_TO":
        try:
            re.compile(value)
        except re.error as error:
            raise SettingsError(f"POSTROOM['ONLY_TO'] is no regular expression: {error}.") from error


def _forget(*, setting: str, **_: object) -> None:
    if setting == "POSTROOM":
        _read.cache_clear()


setting_changed.connect(_forget)
