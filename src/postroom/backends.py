"""
The way in for mail that other code sends: ``send_mail()``, password reset, allauth.

A message becomes a row of kind ``postroom.message`` whose arguments are its parts. Fields, not
pickles: what comes out is equal to what went in, byte for byte of every text and attachment.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import Message, MIMEPart
from email.mime.base import MIMEBase
from typing import Any

import django
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.mail.backends.base import BaseEmailBackend

from postroom import outbox
from postroom.composing import composer
from postroom.exceptions import TextNotStorable

KIND = "postroom.message"

BULK_FROM = 20
"""``send_messages`` with more messages than this puts them into the bulk lane."""

ANYMAIL_ATTRIBUTES = (
    "tags",
    "metadata",
    "track_opens",
    "track_clicks",
    "template_id",
    "merge_data",
    "merge_global_data",
    "merge_metadata",
    "esp_extra",
    "envelope_sender",
    "send_at",
    "merge_headers",
)
"""What Anymail reads from a message beside Django's own fields; kept where JSON can carry it."""


class OutboxEmailBackend(BaseEmailBackend):
    """
    Writes messages into the outbox instead of sending them.

    A message may carry ``message.postroom = {"kind": …, "lane": …, "expires_in": …}``; afterwards
    it carries ``message.postroom_email``, its row. A malformed message raises here, as it would
    when it is sent; one with a NUL in a text raises TextNotStorable. Either way nothing was written,
    and the caller's transaction is as it was.
    """

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Enqueue each message that has a recipient, in the caller's transaction; return how many."""
        messages = [message for message in email_messages or () if message.recipients()]
        lane = "bulk" if len(messages) > BULK_FROM else "normal"
        for message in messages:
            message.message()
            self._enqueue(message, lane)
        return len(messages)

    def _enqueue(self, message: EmailMessage, lane: str) -> None:
        wishes: Mapping[str, Any] = getattr(message, "postroom", None) or {}
        expires_in: timedelta | None = wishes.get("expires_in")
        args = {"message": fields_of(message)}
        _refuse_unstorable(args["message"])
        if "kind" in wishes:
            args["message"]["label"] = str(wishes["kind"])
        message.postroom_email = outbox.enqueue(  # type: ignore[attr-defined]
            KIND, args, lane=wishes.get("lane", lane), expires_in=expires_in
        )


@composer(KIND)
def foreign_message(message: dict[str, Any]) -> EmailMessage:
    """Build the message again from the fields that were stored."""
    built = EmailMultiAlternatives(
        subject=message["subject"],
        body=message["body"],
        from_email=message["from_email"],
        to=message["to"],
        cc=message["cc"],
        bcc=message["bcc"],
        reply_to=message["reply_to"],
        headers=message["headers"],
    )
    built.content_subtype = message["content_subtype"]
    built.encoding = message["encoding"]
    for content, mimetype in message["alternatives"]:
        built.attach_alternative(content, mimetype)
    for part in message["attachments"]:
        _attach(built, part)
    for name, value in message["anymail"].items():
        setattr(built, name, value)
    return built


def fields_of(message: EmailMessage) -> dict[str, Any]:
    """Return *message* as JSON: texts as they are, attachments in base64."""
    return {
        "subject": str(message.subject),
        "body": str(message.body),
        "from_email": str(message.from_email),
        "to": [str(address) for address in message.to],
        "cc": [str(address) for address in message.cc],
        "bcc": [str(address) for address in message.bcc],
        "reply_to": [str(address) for address in message.reply_to],
        "headers": {str(name): str(value) for name, value in message.extra_headers.items()},
        "content_subtype": message.content_subtype,
        "encoding": message.encoding if isinstance(message.encoding, str) else None,
        "alternatives": [[_text(a[0]), a[1]] for a in getattr(message, "alternatives", ())],
        "attachments": [_stored(attachment) for attachment in message.attachments],
        "anymail": dict(_anymail(message)),
    }


def _refuse_unstorable(fields: Mapping[str, Any]) -> None:
    """
    Raise TextNotStorable before PostgreSQL refuses the row, and with it the caller's whole transaction.

    On every database, or a message would be accepted in development and not in production.
    """
    for name, value in {**fields, **fields["anymail"], "anymail": ()}.items():
        for text in _texts(value):
            if "\0" in text:
                what = "a NUL character (\\x00)"
            elif not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
                what = "half of a surrogate pair, which is no character"
            else:
                continue
            raise TextNotStorable(
                f"The {name!r} of this e-mail holds {what}, so it can be neither stored nor sent. Remove it from "
                "the text; data that is not text goes as an attachment of bytes."
            )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)


def _text(content: Any) -> str:
    return content.decode() if isinstance(content, bytes) else str(content)


def _stored(attachment: Any) -> dict[str, Any]:
    if isinstance(attachment, Message):
        return {"part": base64.b64encode(attachment.as_bytes()).decode("ascii")}
    filename, content, mimetype = attachment
    if isinstance(content, EmailMessage):
        content = content.message()
    if isinstance(content, Message):
        content = content.as_bytes()
    stored: dict[str, Any] = {"filename": filename, "mimetype": mimetype}
    if isinstance(content, bytes):
        return stored | {"base64": base64.b64encode(content).decode("ascii")}
    return stored | {"text": str(content)}


def _attach(message: EmailMessage, stored: Mapping[str, Any]) -> None:
    if "part" in stored:
        message.attach(_part(base64.b64decode(stored["part"])))
    elif "base64" in stored:
        message.attach(stored["filename"], base64.b64decode(stored["base64"]), stored["mimetype"])
    else:
        message.attach(stored["filename"], stored["text"], stored["mimetype"])


def _part(data: bytes) -> Any:
    """Parse a stored MIME part into the class that this Django attaches: MIMEPart since 6.0, MIMEBase before."""
    if django.VERSION >= (6, 0):
        return message_from_bytes(data, _class=MIMEPart, policy=policy.default)  # type: ignore[arg-type]
    parsed = message_from_bytes(data)
    part = MIMEBase(parsed.get_content_maintype(), parsed.get_content_subtype())
    for name in list(part):
        del part[name]
    for name, value in parsed.items():
        part[name] = value
    part.set_payload(parsed.get_payload())
    return part


def _anymail(message: EmailMessage) -> Iterable[tuple[str, Any]]:
    for name in ANYMAIL_ATTRIBUTES:
        value = getattr(message, name, None)
        if value is not None and not isinstance(value, type):  # Anymail's UNSET is a class
            json.dumps(value)  # raises here, at the caller, for what could not be restored
            yield name, value
