"""
Wrong settings, found at start: each check has an id and a hint that says what to type.

None of them asks the database. Those that matter only in production run with
``manage.py check --deploy``.
"""

from __future__ import annotations

import logging
import resource
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as Caution
from django.core.exceptions import ImproperlyConfigured
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connections, router
from django.urls import NoReverseMatch, reverse
from django.utils.log import AdminEmailHandler
from django.utils.module_loading import import_string

from postroom import mailers, senders
from postroom.carrier import SPARE_DESCRIPTORS
from postroom.conf import DOORBELLS, config
from postroom.exceptions import SettingsError
from postroom.mailers import OUTBOX
from postroom.models import OutboundEmail

MAILBOX: Final = "postroom.mailbox.EmailBackend"

DEVELOPMENT_ONLY: Final = tuple(
    f"django.core.mail.backends.{name}.EmailBackend" for name in ("console", "locmem", "dummy", "filebased")
)
"""Backends that send nothing to anybody."""


@register()
def check_settings(**_: Any) -> list[CheckMessage]:
    """E001: POSTROOM cannot be meant. All other checks keep silent until it can."""
    try:
        config()
    except SettingsError as error:
        return [Error(str(error), hint="Correct POSTROOM in the settings.", id="postroom.E001")]
    return []


@register()
def check_mailers(**_: Any) -> list[CheckMessage]:
    """E002 loop, E003 unknown alias, E004 not a mail backend; W009 while nothing is configured yet."""
    if not hasattr(settings, "POSTROOM") and not mailers.has_mailers():
        text = "postroom does not know yet with which mailer to send."
        return [Caution(text, hint=_name_a_mailer(), id="postroom.W009")]
    return [message for alias in _send_with() for message in _check_mailer(alias)]


def _check_mailer(alias: str) -> Iterator[CheckMessage]:
    try:
        recipe = mailers.configured(alias)
    except SettingsError as error:
        yield Error(str(error), hint=_name_a_mailer(), id="postroom.E003")
        return
    for path in _backends(recipe):
        if path == OUTBOX:
            yield Error(
                f"The outbox would deliver to itself: SEND_WITH names {alias!r}, and that is {OUTBOX}.",
                hint=_name_a_mailer(),
                id="postroom.E002",
            )
        elif trouble := _backend_trouble(path):
            yield Error(
                f"The mailer {alias!r} cannot be used: {trouble}",
                hint=f"Correct its BACKEND ({path}), or install the package it is in.",
                id="postroom.E004",
            )


def _name_a_mailer() -> str:
    """Return what to type, in the words of this site's Django."""
    if mailers.has_mailers():
        where = 'MAILERS["provider"] = {"BACKEND": "<the backend that really sends>"}'
    else:
        where = 'POSTROOM["MAILERS"] = {"provider": {"BACKEND": "<the backend that really sends>"}}'
    return f'{where} and POSTROOM["SEND_WITH"] = ["provider"].'


def _backends(recipe: Mapping[str, Any]) -> Iterator[str]:
    """Yield the dotted path of the backend, and of what stands behind it in the development mailbox."""
    yield recipe.get("BACKEND", "django.core.mail.backends.smtp.EmailBackend")
    behind = recipe.get("OPTIONS", {}).get("behind")
    if isinstance(behind, Mapping):
        yield from _backends(behind)


def _backend_trouble(path: str) -> str:
    try:
        found = import_string(path)
    except (ImportError, ImproperlyConfigured) as error:
        return str(error)
    return (
        ""
        if isinstance(found, type) and issubclass(found, BaseEmailBackend)
        else f"{path} is no mail backend."
    )


@register()
def check_doorbell(**_: Any) -> list[CheckMessage]:
    """E005: the doorbell does not exist."""
    bell = config().DOORBELL if _settings_are_well() else ""
    hint = 'Remove POSTROOM["DOORBELL"] (the right one is taken), or say "none", "notify" or a dotted path.'
    if bell == "celery" and find_spec("celery") is None:
        text = "The doorbell 'celery' needs Celery, and that is not installed."
        return [Error(text, hint='pip install "django-postroom[celery]"', id="postroom.E005")]
    if not bell or bell in DOORBELLS:
        return []
    if "." not in bell:
        return [Error(f"There is no doorbell {bell!r}.", hint=hint, id="postroom.E005")]
    with suppress(ImportError):
        if callable(import_string(bell)):
            return []
    return [
        Error(f"The doorbell {bell!r} is not a function that can be imported.", hint=hint, id="postroom.E005")
    ]


@register()
def check_celery(**_: Any) -> list[CheckMessage]:
    """E008: the broker's URL cannot be used. W010: a result backend is set, and nothing reads results."""
    if not _settings_are_well() or config().DOORBELL != "celery" or find_spec("celery") is None:
        return []
    from postroom import tasks

    found: list[CheckMessage] = []
    if trouble := tasks.broker_trouble():
        found.append(
            Error(
                f"Celery's broker cannot be used: {trouble}",
                hint='CELERY_BROKER_URL = "redis://host:6379/0" or "amqp://user:password@host:5672//" (in a user or '
                "password / : @ ? and # are written %2F %3A %40 %3F and %23), in the app that "
                "<project>/__init__.py imports.",
                id="postroom.E008",
            )
        )
    if tasks.has_result_backend():
        found.append(
            Caution(
                "A result backend is set for Celery. postroom writes no results and reads none; your own tasks "
                "wait for it whenever it is away (19 s each with Celery's defaults).",
                hint="Remove CELERY_RESULT_BACKEND, or set CELERY_TASK_IGNORE_RESULT = True.",
                id="postroom.W010",
            )
        )
    return found


@register()
def check_concurrency(**_: Any) -> list[CheckMessage]:
    """W011: more sends at once than open files. W012: a mailer that may wait for ever. W013: or than threads."""
    if not _settings_are_well():
        return []
    found: list[CheckMessage] = []
    wanted, (_soft, hard) = config().CONCURRENCY, resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and wanted + SPARE_DESCRIPTORS > hard:
        found.append(
            Caution(
                f"CONCURRENCY is {wanted}, each send is an open file, and this process may open {hard}.",
                hint=f'POSTROOM["CONCURRENCY"] = {max(hard - SPARE_DESCRIPTORS, 1)}, or LimitNOFILE={wanted * 2} in the unit.',
                id="postroom.W011",
            )
        )
    found += [
        Caution(
            f"The mailer {alias!r} has no time-out: a provider that never answers keeps its thread for ever.",
            hint=f'OPTIONS of {alias!r}: "timeout": {config().SEND_TIMEOUT_SECONDS:g}, or no "timeout" at all.',
            id="postroom.W012",
        )
        for alias in _send_with()
        if _waits_for_ever(alias)
    ]
    for backend_class in filter(None, map(_backend_class, _send_with())):
        if trouble := senders.too_many(backend_class, wanted):
            hint = f'POSTROOM["CONCURRENCY"]: {senders.fewer(backend_class)}'
            found.append(Caution(trouble, hint=hint, id="postroom.W013"))
    return found


def _backend_class(alias: str) -> type | None:
    """Return the class that talks to the provider; None where there is none, which is E004's to say."""
    with suppress(ImportError, ImproperlyConfigured, IndexError):
        found = import_string(_paths(alias)[-1])
        return found if isinstance(found, type) else None
    return None


def _waits_for_ever(alias: str) -> bool:
    """Whether the options say None, which a socket understands as no time-out; without any, ours is taken."""
    try:
        options = mailers.configured(alias).get("OPTIONS", {})
    except SettingsError:
        return False
    while isinstance(behind := options.get("behind"), Mapping):
        options = behind.get("OPTIONS", {})
    return "timeout" in options and options["timeout"] is None


@register()
def check_times(**_: Any) -> list[CheckMessage]:
    """E006: an attempt would be given up while its send may still wait for an answer."""
    if not _settings_are_well() or config().ATTEMPT_SECONDS >= config().SEND_TIMEOUT_SECONDS:
        return []
    chosen = config()
    return [
        Error(
            f"ATTEMPT_SECONDS ({chosen.ATTEMPT_SECONDS:g}) is below SEND_TIMEOUT_SECONDS "
            f"({chosen.SEND_TIMEOUT_SECONDS:g}): each slow answer would leave an e-mail in doubt.",
            hint=f'POSTROOM["ATTEMPT_SECONDS"] = {chosen.SEND_TIMEOUT_SECONDS * 1.5:g}',
            id="postroom.E006",
        )
    ]


@register()
def check_mailbox(**_: Any) -> list[CheckMessage]:
    """E007: the development mailbox shows every e-mail to everybody, so it has no place in production."""
    if settings.DEBUG:
        return []
    uses = [alias for alias in _send_with() if MAILBOX in _paths(alias)]
    if "postroom.mailbox" not in settings.INSTALLED_APPS and not uses:
        return []
    return [
        Error(
            "The development mailbox is switched on with DEBUG off: it keeps every e-mail, links included.",
            hint='Remove "postroom.mailbox" from INSTALLED_APPS, and let SEND_WITH name the mailer behind it.',
            id="postroom.E007",
        )
    ]


@register()
def check_sqlite(**_: Any) -> list[CheckMessage]:
    """W001, W002: as Django leaves it, SQLite lets writers fail at once, and readers stand in their way."""
    alias = router.db_for_write(OutboundEmail)
    connection = connections[alias]
    name = str(connection.settings_dict["NAME"])
    if connection.vendor != "sqlite" or ":memory:" in name or "mode=memory" in name:
        return []
    options = connection.settings_dict.get("OPTIONS", {})
    found: list[CheckMessage] = []
    if str(options.get("transaction_mode", "")).upper() not in ("IMMEDIATE", "EXCLUSIVE"):
        found.append(
            Caution(
                f"SQLite ({alias}) begins transactions late: two writers then fail with 'database is locked'.",
                hint=f'DATABASES["{alias}"]["OPTIONS"] = {{"transaction_mode": "IMMEDIATE", "timeout": 20, …}}',
                id="postroom.W001",
            )
        )
    if "wal" not in str(options.get("init_command", "")).lower() and not _is_wal(Path(name)):
        found.append(
            Caution(
                f"SQLite ({alias}) keeps no write-ahead log: whoever reads keeps the worker from writing.",
                hint=f'DATABASES["{alias}"]["OPTIONS"]["init_command"] = "PRAGMA journal_mode=WAL"',
                id="postroom.W002",
            )
        )
    return found


def _is_wal(path: Path) -> bool:
    """
    Whether the file itself says so.

    Asked by SQLite: whoever opens and closes the file past the library takes away the locks that other
    threads of this process have on it (sqlite.org/howtocorrupt, 2.2, 2026-11).
    """
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=0.5)) as own:
            return bool(own.execute("PRAGMA journal_mode").fetchone()[0] == "wal")
    except sqlite3.Error:
        return False


@register(deploy=True)
def check_backends_send(**_: Any) -> list[CheckMessage]:
    """W003: a mailer that sends nothing to anybody, with DEBUG off."""
    if settings.DEBUG:
        return []
    return [
        Caution(
            f"The mailer {alias!r} sends nothing to anybody: {path}.",
            hint=f'Give {alias!r} the backend of your provider, for example "django.core.mail.backends.smtp.EmailBackend".',
            id="postroom.W003",
        )
        for alias in _send_with()
        for path in _paths(alias)
        if path in DEVELOPMENT_ONLY
    ]


@register()
def check_webhook(**_: Any) -> list[CheckMessage]:
    """W004: reports are asked for, but nobody could tell true ones from false ones."""
    secret = getattr(settings, "ANYMAIL_WEBHOOK_SECRET", None) or getattr(settings, "ANYMAIL", {}).get(
        "WEBHOOK_SECRET"
    )
    if secret or not _is_mounted("postroom_webhooks:brevo"):
        return []
    if not any("brevo" in path.lower() for alias in _send_with() for path in _paths(alias)):
        return []
    return [
        Caution(
            "The webhook of Brevo has no secret.",
            hint='ANYMAIL = {"WEBHOOK_SECRET": "user:password", …}, both long and random, '
            "and the same in the URL at Brevo: https://user:password@your.site/…",
            id="postroom.W004",
        )
    ]


@register(deploy=True)
def check_site_url(**_: Any) -> list[CheckMessage]:
    """W005, W006: links in e-mails lead nowhere, or through an open line."""
    if settings.DEBUG or not _settings_are_well() or config().SITE_URL.startswith("https://"):
        return []
    url = config().SITE_URL
    hint = 'POSTROOM["SITE_URL"] = "https://your.site"'
    if not url:
        return [Caution("Links in e-mails have no base: SITE_URL is not set.", hint=hint, id="postroom.W006")]
    return [Caution(f"Links in e-mails do not begin with https: {url}", hint=hint, id="postroom.W005")]


@register()
def check_router(**_: Any) -> list[CheckMessage]:
    """W007: an account and its e-mail could no longer be committed together."""
    outbox, users = router.db_for_write(OutboundEmail), router.db_for_write(get_user_model())
    if outbox == users:
        return []
    return [
        Caution(
            f"The outbox is in database {outbox!r}, users are in {users!r}: one transaction cannot hold both, "
            "so an account may exist without its e-mail.",
            hint=f"Let DATABASE_ROUTERS send the app 'postroom' to {users!r}.",
            id="postroom.W007",
        )
    ]


@register()
def check_error_mails(**_: Any) -> list[CheckMessage]:
    """W008: error mails about a dead database need that database."""
    if not settings.ADMINS or not any(_goes_through_outbox(handler) for handler in _admin_handlers()):
        return []
    key = "using" if mailers.has_mailers() else "email_backend"
    value = "provider" if mailers.has_mailers() else "django.core.mail.backends.smtp.EmailBackend"
    return [
        Caution(
            "Error mails to ADMINS go through the outbox: one about a dead database would never leave.",
            hint=f'LOGGING["handlers"]["mail_admins"]["{key}"] = "{value}"',
            id="postroom.W008",
        )
    ]


def _admin_handlers() -> Iterator[AdminEmailHandler]:
    known = [logging.getLogger(), *map(logging.getLogger, list(logging.Logger.manager.loggerDict))]
    for logger in known:
        yield from (handler for handler in logger.handlers if isinstance(handler, AdminEmailHandler))


def _goes_through_outbox(handler: AdminEmailHandler) -> bool:
    if not mailers.has_mailers():
        return (getattr(handler, "email_backend", None) or settings.EMAIL_BACKEND) == OUTBOX
    alias = getattr(handler, "using", None) or "default"
    return bool(settings.MAILERS.get(alias, {}).get("BACKEND") == OUTBOX)


def _settings_are_well() -> bool:
    return not check_settings()


def _send_with() -> tuple[str, ...]:
    return mailers.names() if _settings_are_well() else ()


def _paths(alias: str) -> list[str]:
    """Return the backends of *alias*; none where it is unknown, which is E003's to say."""
    try:
        return list(_backends(mailers.configured(alias)))
    except SettingsError:
        return []


def _is_mounted(name: str) -> bool:
    try:
        reverse(name)
    except (NoReverseMatch, ImportError, ImproperlyConfigured):
        return False
    return True
