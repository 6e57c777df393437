"""Mail that other code sends: what goes in comes out, byte for byte."""

from __future__ import annotations

import re
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import MIMEPart
from email.mime.base import MIMEBase
from email.mime.image import MIMEImage
from typing import Any

import django
import pytest
from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives, get_connection, mail_admins, send_mail
from django.db import transaction
from django.test.utils import override_settings

from postroom import delivery
from postroom.backends import KIND, OutboxEmailBackend
from postroom.composing import compose
from postroom.exceptions import TextNotStorable
from postroom.models import Lane, OutboundEmail, State

pytestmark = pytest.mark.django_db

PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452")


@pytest.fixture(autouse=True)
def backend_of_the_site() -> Any:
    """Django's test runner replaces the site's backend by locmem; these tests want the site's."""
    if django.VERSION >= (6, 1):
        mailers = {"default": {"BACKEND": "postroom.backends.OutboxEmailBackend"}}
        with override_settings(MAILERS=mailers):
            yield
    else:
        with override_settings(EMAIL_BACKEND="postroom.backends.OutboxEmailBackend"):
            yield


def rich() -> EmailMultiAlternatives:
    """A message with one of everything."""
    message = EmailMultiAlternatives(
        subject="Grüße aus Köln – 7 € 🎉",
        body="Liebe Ada,\n\nzeile mit Leerzeichen  \n.\nFrom hier\n",
        from_email="Läden <shop@example.com>",
        to=["Ada Lovelace <ada@example.com>", "bob@example.com"],
        cc=["cc@example.com"],
        bcc=["hidden@example.com"],
        reply_to=["Hilfe <help@example.com>"],
        headers={
            "X-Order": "7",
            "Message-ID": "<fixed@example.com>",
            "Date": "Mon, 02 Nov 2026 12:00:00 -0000",
        },
    )
    message.attach_alternative("<p>Grüße &amp; Küsse</p>", "text/html")
    message.attach("rechnung.pdf", b"%PDF-1.4 \x00\xff\xfe binary", "application/pdf")
    message.attach("größe.csv", "a;b\n1;ü\n", "text/csv")
    message.attach("notes.txt", "plain text")
    message.attach(inline_image())
    return message


def inline_image() -> Any:
    if django.VERSION >= (6, 0):
        part = MIMEPart(policy=policy.default)
        part.set_content(PNG, maintype="image", subtype="png", disposition="inline", cid="<logo>")
        return part
    image = MIMEImage(PNG, "png")
    image.add_header("Content-ID", "<logo>")
    image.add_header("Content-Disposition", "inline", filename="logo.png")
    return image


ADDED = ("auto-submitted", "x-auto-response-suppress")


def parts_of(message: EmailMessage) -> list[Any]:
    """What a recipient's program sees: headers but those of the outbox, and every part's bytes."""
    parsed = message_from_bytes(message.message().as_bytes(), policy=policy.default)
    seen: list[Any] = []
    for part in parsed.walk():
        headers = [
            (name.lower(), re.sub(r'boundary="[^"]+"', "boundary", str(value)))
            for name, value in part.items()
            if name.lower() not in ADDED
        ]
        seen.append((headers, None if part.is_multipart() else part.get_payload(decode=True)))
    return seen


def through_the_outbox(message: EmailMessage) -> EmailMessage:
    """Send *message* as a site does, and return what the mailer gets."""
    assert OutboxEmailBackend().send_messages([message]) == 1
    return compose(OutboundEmail.objects.latest("pk"))


def test_message_with_one_of_everything_comes_out_equal() -> None:
    """Attachments, inline images, copies and reply-to are what other queues have lost."""
    message = rich()

    again = through_the_outbox(rich())

    assert parts_of(again) == parts_of(message)
    assert again.recipients() == message.recipients()
    assert again.bcc == ["hidden@example.com"]


def plain(**fields: Any) -> EmailMessage:
    headers = {"Message-ID": "<fixed@example.com>", "Date": "Mon, 02 Nov 2026 12:00:00 -0000"}
    given = {"subject": "Hello", "body": "Text", "to": ["ada@example.com"], "headers": headers}
    return EmailMessage(**{**given, **fields})


def html_only() -> EmailMessage:
    message = plain(body="<p>Grüße</p>")
    message.content_subtype = "html"
    return message


def in_latin() -> EmailMessage:
    message = plain(body="Grüße")
    message.encoding = "iso-8859-1"
    return message


def with_message_inside() -> EmailMessage:
    message = plain()
    message.attach("inner.eml", plain(subject="Inner", body="Grüße von innen"), "message/rfc822")
    return message


def with_bytes_alternative() -> EmailMessage:
    message = EmailMultiAlternatives("Hello", "Text", to=["ada@example.com"])
    message.extra_headers.update(plain().extra_headers)
    message.attach_alternative("BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n", "text/calendar")
    return message


def with_nameless_attachment() -> EmailMessage:
    message = plain()
    message.attach(None, b"\x00\x01", "application/octet-stream")
    return message


@pytest.mark.parametrize(
    "write",
    [plain, html_only, in_latin, with_message_inside, with_bytes_alternative, with_nameless_attachment],
)
def test_message_comes_out_equal(write: Any) -> None:
    assert parts_of(through_the_outbox(write())) == parts_of(write())


@pytest.mark.parametrize(
    "text", ["{{ 7|add:7 }}{% now 'Y' %}", "%(name)s {0} \\x41 $HOME", "a\r\nb\rc", "  \t \n"]
)
def test_text_of_a_user_is_never_a_template(text: str) -> None:
    """What somebody wrote into a form was rendered by the queue, with the site's context."""
    again = through_the_outbox(plain(body=text))

    assert again.body == text
    assert OutboundEmail.objects.get().args["message"]["body"] == text


def test_send_mail_writes_a_row_and_sends_nothing() -> None:
    sent = send_mail("Hello", "Text", None, ["ada@example.com"], html_message="<p>Text</p>")

    email = OutboundEmail.objects.get()
    assert sent == 1
    assert mail.outbox == []
    assert (email.kind, email.state, email.lane) == (KIND, State.PENDING, Lane.NORMAL)

    delivery.drain()

    (message,) = mail.outbox
    assert (message.subject, message.to, message.from_email) == (
        "Hello",
        ["ada@example.com"],
        "shop@example.com",
    )
    assert OutboundEmail.objects.get().state == State.ACCEPTED


def test_mail_of_a_rolled_back_transaction_is_never_sent() -> None:
    with transaction.atomic():
        send_mail("Hello", "Text", None, ["ada@example.com"])
        transaction.set_rollback(True)

    assert delivery.drain() == 0
    assert mail.outbox == []


def test_message_carries_its_row_afterwards() -> None:
    message = plain()
    message.postroom = {"kind": "shop.invoice", "lane": "urgent", "expires_in": timedelta(hours=1)}  # type: ignore[attr-defined]

    message.send()

    email = OutboundEmail.objects.get()
    assert message.postroom_email == email  # type: ignore[attr-defined]
    assert email.lane == Lane.URGENT
    assert email.expires_at - email.created_at == timedelta(hours=1)
    assert email.args["message"]["label"] == "shop.invoice"


def test_many_at_once_go_into_the_bulk_lane() -> None:
    """A newsletter must not stand before the code that somebody waits for."""
    OutboxEmailBackend().send_messages([plain() for _ in range(21)])
    OutboxEmailBackend().send_messages([plain()])

    lanes = list(OutboundEmail.objects.order_by("pk").values_list("lane", flat=True))
    assert lanes == [Lane.BULK] * 21 + [Lane.NORMAL]


def test_message_to_nobody_is_not_counted() -> None:
    assert OutboxEmailBackend().send_messages([plain(to=[]), plain()]) == 1
    assert OutboxEmailBackend().send_messages([]) == 0


@pytest.mark.parametrize(
    "fields", [{"subject": "a\nBcc: eve@example.com"}, {"to": ["a@b.example\nBcc: x@y.z"]}]
)
def test_malformed_message_raises_at_the_one_who_sends_it(fields: dict[str, Any]) -> None:
    """Django's own backend raises there, and callers catch it there; a worker could tell nobody."""
    with pytest.raises(ValueError, match=r"(?i)newline|linefeed|header"):
        plain(**fields).send()

    assert not OutboundEmail.objects.exists()


def test_attributes_of_anymail_are_kept() -> None:
    message = plain()
    message.tags = ["order"]  # type: ignore[attr-defined]
    message.metadata = {"order": "7"}  # type: ignore[attr-defined]
    message.template_id = 12  # type: ignore[attr-defined]

    again: Any = through_the_outbox(message)

    assert (again.tags, again.metadata, again.template_id) == (["order"], {"order": "7"}, 12)


def test_attribute_that_cannot_be_kept_raises_at_the_caller() -> None:
    message = plain()
    message.merge_data = {"a": object()}  # type: ignore[attr-defined]

    with pytest.raises(TypeError):
        message.send()

    assert not OutboundEmail.objects.exists()


def test_connection_of_the_site_is_the_outbox() -> None:
    """``get_connection()`` is what third-party apps call; 6.1 has ``mailers`` beside it."""
    if django.VERSION >= (6, 1):
        assert isinstance(mail.mailers["default"], OutboxEmailBackend)
    else:
        assert isinstance(get_connection(), OutboxEmailBackend)


@override_settings(
    ADMINS=["root@example.com"] if django.VERSION >= (6, 0) else [("Root", "root@example.com")]
)
def test_mail_to_the_admins_goes_the_same_way() -> None:
    mail_admins("Broken", "Text")

    delivery.drain()

    assert [message.to for message in mail.outbox] == [["root@example.com"]]


def test_inline_part_keeps_its_class() -> None:
    """Django 6 refuses what it refuses: a part of the old kind would raise in the worker."""
    again = through_the_outbox(rich())

    (part,) = [a for a in again.attachments if not isinstance(a, tuple)]
    assert isinstance(part, MIMEPart if django.VERSION >= (6, 0) else MIMEBase)


# --- what cannot be stored ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("body", "before\0after"),
        ("body", "half \ud83d of it"),
        ("alternatives", [("<p>\0</p>", "text/html")]),
        ("attachments", [("notes.txt", "a\0b", "text/plain")]),
        ("metadata", {"order": "7\0"}),
    ],
)
@pytest.mark.django_db(databases=["default", "postgres", "mariadb"])
def test_a_text_that_no_database_gives_back_is_refused_before_anything_is_written(
    database: str, field: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    PostgreSQL refuses a NUL in JSON, and with the row the transaction of whoever sends: an account
    that had just been made was gone, with a DataError about JSON.
    """
    monkeypatch.setattr("django.db.router.db_for_write", lambda *args, **hints: database)
    message = EmailMultiAlternatives("Hello", "Hello", "shop@example.com", ["ann@example.com"])
    setattr(message, field, value)
    monkeypatch.setattr(message, "message", lambda **kwargs: None)  # what MIME thinks of it is its own affair

    with transaction.atomic(using=database):
        with pytest.raises(TextNotStorable, match=field):
            OutboxEmailBackend().send_messages([message])
        assert OutboundEmail.objects.using(database).count() == 0  # the transaction goes on


@pytest.mark.django_db(databases=["default", "postgres", "mariadb"])
def test_bytes_and_every_other_character_are_stored(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django.db.router.db_for_write", lambda *args, **hints: database)
    message = EmailMultiAlternatives(
        "\\u0000 😀", "\\0 \\u0000 \x01 ß 😀", "shop@example.com", ["ann@example.com"]
    )
    message.attach("data.bin", b"\0\xff", "application/octet-stream")

    assert OutboxEmailBackend().send_messages([message]) == 1

    stored = OutboundEmail.objects.using(database).get().args["message"]
    assert stored["body"] == "\\0 \\u0000 \x01 ß 😀"
