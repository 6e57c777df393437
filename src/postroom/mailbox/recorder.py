"""
A mail backend that writes down what passes through it.

Owns the promise that recording changes nothing: the backend behind it gets the same message
objects in the same call, its result and its exceptions come out untouched, and where the
mailbox's file cannot be written the e-mail still goes out.
"""

from __future__ import annotations

import logging
from email.utils import getaddresses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django.conf import settings
from django.core.mail.backends.base import BaseEmailBackend

from postroom import mailers
from postroom.conf import config
from postroom.exceptions import SettingsError
from postroom.mailbox.store import MailboxUnusableError, Outcome, Store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.core.mail import EmailMessage

BACKENDS: Final = ("postroom.mailbox.EmailBackend", "postroom.mailbox.recorder.EmailBackend")
"""The dotted paths by which settings name the recorder."""

ANSWER_LENGTH: Final = 4000
"""Characters kept of what a mailer says."""

_log = logging.getLogger("postroom")
_warned: set[Path] = set()


class EmailBackend(BaseEmailBackend):
    """
    Record each message, then hand it to the backend *behind* (``{"BACKEND": …, "OPTIONS": {…}}``).

    With ``behind=None`` it is recorded and goes nowhere. Options that it does not know are those
    of the backend behind. Everything else that is asked of it (``esp_name``, ``connection`` …) is
    answered by that backend, which is also there as ``inner``.
    """

    inner: BaseEmailBackend | None = None

    def __init__(
        self,
        path: str | Path | None = None,
        behind: Mapping[str, Any] | None = None,
        *,
        alias: str | None = None,
        **options: Any,
    ) -> None:
        self.store = Store(path or default_path())
        if behind is not None:
            self.inner = _build(behind, alias, options)
        elif alias is None:
            super().__init__(**options)
        else:
            super().__init__(alias=alias, **options)
        self.alias = alias

    def __getattr__(self, name: str) -> Any:
        if self.inner is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.inner, name)

    def open(self) -> bool | None:
        """Open the backend behind; returns what it returns."""
        return self.inner.open() if self.inner else None

    def close(self) -> None:
        """Close the backend behind."""
        if self.inner:
            self.inner.close()

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Record, send, record the answer. Returns, or raises, exactly what the backend behind does."""
        messages = list(email_messages)
        letter_ids = [self._record(message) for message in messages]
        if self.inner is None:
            self._answer_all(letter_ids, messages, Outcome.KEPT)
            return len(messages)
        try:
            sent = self.inner.send_messages(messages)
        except Exception as error:
            self._answer_all(letter_ids, messages, Outcome.ERROR, f"{type(error).__name__}: {error}")
            raise
        if sent in range(len(messages)):  # a backend that does not count returns None
            said = f"{sent} of {len(messages)} sent"
            self._answer_all(letter_ids, messages, Outcome.UNSENT, said)
        else:
            self._answer_all(letter_ids, messages, Outcome.ACCEPTED)
        return sent

    def _record(self, message: EmailMessage) -> int | None:
        """Write the message down and return its id; None where that is not possible."""
        try:
            return self.store.add(
                mailer=self.alias or "",
                email_uuid=email_uuid(message),
                sender=str(message.from_email),
                recipients=[address for _, address in getaddresses(map(str, message.recipients()))],
                subject=str(message.subject),
                source=_source(message),
            )
        except MailboxUnusableError as error:
            _warn_once(self.store.path, error)
        except Exception as error:  # noqa: BLE001 - whether an odd message can be sent is not ours to say
            _log.warning("mailbox_not_recorded error=%s", type(error).__name__)
        return None

    def _answer_all(
        self,
        letter_ids: Sequence[int | None],
        messages: Sequence[EmailMessage],
        outcome: Outcome,
        said: str = "",
    ) -> None:
        """
        Write down the answer to a call. Where the call held several messages and did not succeed
        as a whole, those that carry a provider's id were accepted nevertheless.
        """
        for letter_id, message in zip(letter_ids, messages, strict=True):
            if letter_id is None:
                continue
            provider_id, status = _anymail_answer(message)
            saved = len(messages) > 1 and provider_id
            try:
                self.store.answer(
                    letter_id,
                    Outcome.ACCEPTED if saved else outcome,
                    answer=(status if saved else said or status)[:ANSWER_LENGTH],
                    message_id=provider_id or _header_id(message),
                )
            except MailboxUnusableError as error:
                _warn_once(self.store.path, error)


def default_path() -> Path:
    """Return the file that is used where the settings name none: beside the project, or here."""
    return Path(getattr(settings, "BASE_DIR", ".")) / "mailbox.sqlite3"


def configured_store() -> Store | None:
    """Return the file that the site's mailers record into (one for all of them), or None if none records."""
    described = [*getattr(settings, "MAILERS", {}).values(), *config().MAILERS.values()]
    if not hasattr(settings, "MAILERS"):
        described.append({"BACKEND": settings.EMAIL_BACKEND})
    for mailer in described:
        if mailer.get("BACKEND") in BACKENDS:
            return Store(mailer.get("OPTIONS", {}).get("path") or default_path())
    return None


def email_uuid(message: EmailMessage) -> str:
    """Return the UUID of the outbox's row that this message was composed for, or an empty string."""
    named = getattr(message, "postroom_uuid", "") or (getattr(message, "metadata", None) or {}).get(
        "postroom", ""
    )
    try:
        return str(UUID(str(named)))
    except ValueError:
        return ""


def _build(behind: Mapping[str, Any], alias: str | None, options: Mapping[str, Any]) -> BaseEmailBackend:
    """
    Build the backend behind as ``mailers`` builds every other one. Django before 6.1 passes
    ``username=None`` and the like to say "nothing given": that must not replace what is configured.
    """
    if "BACKEND" not in behind:
        raise SettingsError("The mailbox's option 'behind' is None or {'BACKEND': …, 'OPTIONS': {…}}.")
    configured = dict(behind.get("OPTIONS", {}))
    given = {name: value for name, value in options.items() if value is not None or name not in configured}
    return mailers.build(alias or "", {**behind, "OPTIONS": configured | given})


def _source(message: EmailMessage) -> bytes:
    """Return the message as MIME; empty where it cannot be written as that (a line break in a header)."""
    try:
        return bytes(message.message().as_bytes())
    except Exception as error:  # noqa: BLE001 - the backend behind meets it too, and its word counts
        _log.warning("mailbox_no_source error=%s", type(error).__name__)
        return b""


def _header_id(message: EmailMessage) -> str:
    """Return the header that the message was given; one that ``message()`` makes up is new each time."""
    headers = {name.lower(): str(value) for name, value in message.extra_headers.items()}
    return headers.get("message-id", "")


def _anymail_answer(message: EmailMessage) -> tuple[str, str]:
    """Return the provider's id and its word about the recipients, as Anymail leaves them on the message."""
    status = getattr(message, "anymail_status", None)
    named = getattr(status, "message_id", None)
    words = getattr(status, "status", None)
    ids = named if isinstance(named, (set, frozenset, list, tuple)) else [named]
    return next((str(one) for one in ids if one), ""), ", ".join(sorted(words)) if words else ""


def _warn_once(path: Path, error: MailboxUnusableError) -> None:
    """Say once a process and file that the mailbox misses letters; the e-mails themselves go out."""
    if path not in _warned:
        _warned.add(path)
        _log.warning("mailbox_unavailable detail=%s", error)
