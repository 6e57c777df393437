"""
Which mailer sends, opened once and reused.

A *mailer* is a Django mail backend under an alias: Django 6.1's ``MAILERS``, or
``POSTROOM["MAILERS"]`` in the same shape. Hides the two Django lines, the one TLS context of a
process, the time-outs, and which provider knows an idempotency key.
"""

from __future__ import annotations

import os
import smtplib
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import django
from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.utils.functional import cached_property
from django.utils.module_loading import import_string

from postroom.conf import config, under_test_runner
from postroom.exceptions import SettingsError
from postroom.redaction import redact, storable

IDLE_SECONDS = 10
"""A connection that was idle for longer is opened anew: providers close theirs without a word."""

IDEMPOTENCY_HEADERS = {"Brevo": "idempotencyKey"}
"""Providers that recognise a repeat, and the message header that carries the key through Anymail (2026-11)."""

REPORTING = frozenset(
    {"Brevo", "Postmark", "Resend", "Amazon SES", "Mailgun", "SendGrid", "MailerSend", "SparkPost"}
)
"""Providers that tell later what became of an e-mail."""

LOCMEM = "django.core.mail.backends.locmem.EmailBackend"
OUTBOX = "postroom.backends.OutboxEmailBackend"


class SessionCarrier(Protocol):
    """Somebody who can do what a ``requests.Session`` does, in another way."""

    def stand_in_for(self, session: Any) -> Any:
        """Return what takes the place of *session*."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What the mailer answered: it took the message. ``message_id`` may be empty although it did."""

    message_id: str = ""
    nothing: bool = False
    """It sent nothing and raised nothing: a receiver of Anymail's ``pre_send`` cancelled it, say."""


def names() -> tuple[str, ...]:
    """Return the aliases of ``SEND_WITH``, in order of failover."""
    return config().SEND_WITH


def get(alias: str) -> Mailer:
    """
    Return the mailer of this thread for *alias*, opened at its first message and kept open.

    Raises SettingsError where there is none of that name.
    """
    opened: dict[str, Mailer] = _thread.__dict__.setdefault("mailers", {})
    fresh = opened.get(alias)
    if fresh is None or fresh.recipe != recipe(alias):
        fresh = opened[alias] = Mailer(alias, recipe(alias))
    return fresh


def trouble(alias: str) -> str:
    """Return why *alias* cannot send with these settings, without asking its provider; empty where it can."""
    try:
        get(alias).backend  # noqa: B018 - made here, and refuses options that it cannot mean
    except Exception as error:  # noqa: BLE001 - a backend is anybody's code and may refuse in any way
        return redact(str(error) or type(error).__name__, limit=240)
    return ""


def close_all() -> None:
    """Close the connections of this thread's mailers."""
    for mailer in _thread.__dict__.pop("mailers", {}).values():
        mailer.close()


def carry_with(carrier: SessionCarrier | None) -> None:
    """Let *carrier* carry the HTTP requests of this thread's mailers from now on; None: requests itself."""
    close_all()
    _thread.__dict__["carrier"] = carrier


def recipe(alias: str) -> Mapping[str, Any]:
    """
    Return ``{"BACKEND": …, "OPTIONS": …}`` for *alias*, as the settings say it.

    Under Django's test runner every mailer is the in-memory one, on both Django lines.
    """
    return {"BACKEND": LOCMEM} if under_test_runner() else configured(alias)


def configured(alias: str) -> Mapping[str, Any]:
    """
    Return what the settings say of *alias*: ``POSTROOM["MAILERS"]``, then Django's ``MAILERS``.

    Raises SettingsError where neither has it.
    """
    ours = config().MAILERS
    if alias in ours:
        return ours[alias]
    theirs: Mapping[str, Mapping[str, Any]] = getattr(settings, "MAILERS", {}) if has_mailers() else {}
    if alias in theirs:
        return theirs[alias]
    known = ", ".join(sorted({*ours, *theirs})) or "none"
    raise SettingsError(f"There is no mailer {alias!r} (SEND_WITH names it; known: {known}).")


def has_mailers() -> bool:
    """Whether this site has moved to Django's ``MAILERS`` (possible since 6.1)."""
    return django.VERSION >= (6, 1) and settings.is_overridden("MAILERS")  # type: ignore[misc] # of LazySettings


class Mailer:
    """One mail backend, for one thread."""

    def __init__(self, alias: str, recipe: Mapping[str, Any]) -> None:
        self.alias = alias
        self.recipe = recipe
        self._used_at = 0.0

    # Django's, which holds no lock: functools' of Python 3.11 holds one for all instances, and a child
    # that Celery forks in that moment would wait for it for ever.
    @cached_property
    def backend(self) -> BaseEmailBackend:
        """The Django mail backend, with our time-out where it takes one."""
        return build(self.alias, self.recipe)

    @property
    def provider(self) -> str:
        """Anymail's name of the provider, or the empty string."""
        return str(getattr(self.backend, "esp_name", ""))

    @property
    def carriable(self) -> bool:
        """Whether it speaks HTTP through a ``requests.Session`` of Anymail's, which somebody else can carry."""
        return self._speaks_http

    @property
    def backend_class(self) -> type:
        """The class that talks to the provider, behind whatever records what passes."""
        return type(_innermost(self.backend))

    @cached_property
    def _speaks_http(self) -> bool:
        return speaks_http(self.backend_class)

    @property
    def needs_mime(self) -> bool:
        """Whether it sends what ``EmailMessage.message()`` gives; Anymail's HTTP backends read the fields."""
        return not self._speaks_http

    @property
    def keyed(self) -> bool:
        """Whether the provider recognises a repeat by an idempotency key."""
        return self.provider in IDEMPOTENCY_HEADERS

    @property
    def reports(self) -> bool:
        """Whether the provider tells later what became of an e-mail."""
        return self.provider in REPORTING

    def send(self, message: EmailMessage, key: str) -> Sent:
        """
        Hand one message over and return what was answered; raises whatever the backend raises.

        Uses no database. After an exception the connection is given up, so that the next
        message does not meet the rest of an old answer.
        """
        if self.keyed:
            message.extra_headers[IDEMPOTENCY_HEADERS[self.provider]] = key
        try:
            self._open()
            count = self.backend.send_messages([message])
        except BaseException:
            self.close()
            raise
        self._used_at = time.monotonic()
        # 0 is an answer; None comes from backends that forget to count.
        return Sent(message_id=message_id_of(message), nothing=count == 0)

    def close(self) -> None:
        """Close the connection; one that is broken already may say so in vain, and one never made says nothing."""
        if "backend" not in self.__dict__:
            return
        try:
            self.backend.close()
        except (OSError, smtplib.SMTPException):
            pass

    def _open(self) -> None:
        if self._used_at and time.monotonic() - self._used_at > IDLE_SECONDS:
            self.close()
        if self.backend.open():
            _prepare_session(self.backend)


def message_id_of(message: EmailMessage) -> str:
    """Return the id that the provider gave *message*, as far as Anymail knows one."""
    status = getattr(message, "anymail_status", None)
    found = getattr(status, "message_id", None)
    if isinstance(found, (set, list, tuple)):
        found = next(iter(sorted(found)), None)
    return storable(str(found or ""))


def build(alias: str, recipe: Mapping[str, Any]) -> BaseEmailBackend:
    """Build the backend of *recipe*, on either Django line; time-outs are ours unless it names its own."""
    backend_class = import_string(recipe.get("BACKEND", "django.core.mail.backends.smtp.EmailBackend"))
    if _is_a(backend_class, OUTBOX):
        # Celery and web servers start whatever the checks say, and each e-mail would become the next one.
        raise SettingsError(
            f"The outbox would deliver to itself: SEND_WITH names {alias!r}, and that is {OUTBOX}."
        )
    options = dict(recipe.get("OPTIONS", {}))
    if _takes_timeout(backend_class):
        options.setdefault("timeout", config().SEND_TIMEOUT_SECONDS)
    if has_mailers():
        options["alias"] = alias
    backend: BaseEmailBackend = backend_class(**options)
    return backend


def _takes_timeout(backend_class: type) -> bool:
    """SMTP waits for ever by default; Anymail's HTTP backends take ``timeout`` too."""
    return _is_a(
        backend_class,
        "django.core.mail.backends.smtp.EmailBackend",
        "anymail.backends.base_requests.AnymailRequestsBackend",
    )


def speaks_http(backend_class: type) -> bool:
    """Whether backends of this class post their messages over HTTP, through a ``requests.Session``."""
    return _is_a(backend_class, "anymail.backends.base_requests.AnymailRequestsBackend")


def _is_a(backend_class: type, *names: str) -> bool:
    return any(f"{base.__module__}.{base.__qualname__}" in names for base in backend_class.__mro__)


def _innermost(backend: BaseEmailBackend) -> BaseEmailBackend:
    """The backend that talks to the provider, behind whatever records what passes."""
    while isinstance(inner := getattr(backend, "inner", None), BaseEmailBackend):
        backend = inner
    return backend


def _prepare_session(backend: BaseEmailBackend) -> None:
    """
    Let every HTTP session of the process use one TLS context, and follow no redirect.

    A redirect followed would send message and API key to another host, and what that one answers
    says nothing about the first, which may have taken the message. Each context loads the whole
    bundle of authorities: 1,000 sessions take 849 MiB with their own and 154 MiB with a shared one
    (measured, 2026-11).
    """
    talking: Any = _innermost(backend)
    session = getattr(talking, "session", None)
    if session is None or type(session).__module__ != "requests.sessions":
        return
    if carrier := _thread.__dict__.get("carrier"):
        talking.session = carrier.stand_in_for(session)
        return
    session.max_redirects = 0
    # One that has an authority or a certificate of its own keeps a context of its own: urllib3
    # writes both into the context that it is given.
    if session.verify is True and not session.cert:
        session.mount("https://", _one_tls_context_adapter())


def authorities() -> str:
    """Return the file, or the directory, of the authorities that requests would trust."""
    import certifi

    # The variables that requests itself honours, so that a site's own authority still counts.
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or certifi.where()


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    trusted = authorities()
    if Path(trusted).is_dir():
        return ssl.create_default_context(capath=trusted)
    return ssl.create_default_context(cafile=trusted)


def shared_tls_context() -> ssl.SSLContext:
    """Return the one TLS context of this process, with the authorities that requests would trust."""
    # All senders begin at once: without the lock each of them makes the context that it shares.
    with _first.comes_one:
        return _tls_context()


def _one_tls_context_adapter() -> Any:
    from requests.adapters import HTTPAdapter

    class OneContext(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, ssl_context=shared_tls_context(), **kwargs)

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
            return super().proxy_manager_for(proxy, ssl_context=shared_tls_context(), **kwargs)

        def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
            # The context has its authorities already; requests would load the bundle again per connection.
            if not verify or cert:
                super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]

    return OneContext()


class _First:
    """A lock that is free in each process that is forked, whoever held it in the parent."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        self.comes_one = threading.Lock()


_first = _First()
os.register_at_fork(after_in_child=_first.begin_anew)
_thread = threading.local()
