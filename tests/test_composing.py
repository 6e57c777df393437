"""Composers: what they may return, in which surroundings they run, and what becomes of their faults."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.template import TemplateDoesNotExist
from django.template.autoreload import reset_loaders
from django.utils import timezone, translation
from django.utils.translation import gettext, gettext_lazy
from pytest_django.fixtures import Settings

from postroom import composing, delivery, outbox
from postroom.composing import Withdraw, compose, composer, render, site_url
from postroom.exceptions import ArgumentsNotJSON, PostroomError, UnknownKind
from postroom.models import Lane, OutboundEmail, State
from tests.attempts import NO_ANSWER, answer, let_time_pass, table, take_again

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of this test's own, so that its kinds end with it."""
    monkeypatch.setattr(composing, "_composers", dict(composing._composers))


@pytest.fixture
def templates(tmp_path: Path, settings: Settings) -> Iterator[Path]:
    """A folder in which templates are found; write into it what the test needs."""
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [tmp_path]}]
    return tmp_path


def letter(**fields: Any) -> EmailMessage:
    return EmailMessage(**{"subject": "Hello", "body": "Text", "to": ["ada@example.com"], **fields})


def composed(write: Any, *, mime: bool = True, **args: Any) -> EmailMessage:
    """Promise an e-mail of a composer and write it."""
    return compose(composer("tests.letter")(write).enqueue(**args), mime=mime)


def test_composer_gets_its_arguments_by_name() -> None:
    message = composed(lambda order_id, note: letter(subject=f"{order_id} {note}"), order_id=7, note="ä")

    assert message.subject == "7 ä"


def test_composer_can_still_be_called() -> None:
    """For previews and tests."""
    made = composer("tests.letter")(lambda name: letter(subject=name))

    assert made(name="Ada").subject == "Ada"
    assert not OutboundEmail.objects.exists()


def test_composer_says_lane_life_and_what_to_do_in_doubt() -> None:
    made = composer("tests.letter", lane="urgent", expires_in=dt.timedelta(hours=2), on_uncertain="repeat")(
        letter
    )

    email = table(made.enqueue())

    assert (email.lane, email.on_uncertain) == (Lane.URGENT, "repeat")
    assert email.expires_at - email.created_at == dt.timedelta(hours=2)


def test_one_call_may_choose_otherwise() -> None:
    made = composer("tests.letter", lane="urgent")(letter)
    then = timezone.now() + dt.timedelta(hours=1)

    email = table(made.using(lane="bulk", due_at=then).using(expires_at=then).enqueue())

    assert (email.lane, email.due_at, email.expires_at) == (Lane.BULK, then, then)
    assert table(made.enqueue()).lane == Lane.URGENT


@pytest.mark.parametrize("wrong", [{"lane": "express"}, {"on_uncertain": "perhaps"}])
def test_misspelt_option_is_refused_where_it_is_written(wrong: dict[str, Any]) -> None:
    """At import, not at night."""
    with pytest.raises((KeyError, ValueError)):
        composer("tests.letter", **wrong)


def test_two_composers_of_one_kind_are_refused() -> None:
    """Which of them writes would hang on the order of imports."""

    def one() -> EmailMessage:
        return letter()

    def other() -> EmailMessage:
        return letter()

    composer("tests.letter")(one)
    composer("tests.letter")(one)  # a module imported twice

    with pytest.raises(PostroomError, match=r"tests\.letter"):
        composer("tests.letter")(other)


def test_arguments_by_position_are_refused() -> None:
    made = composer("tests.letter")(lambda order_id: letter())

    with pytest.raises(TypeError, match="by name"):
        made.enqueue(7)  # type: ignore[call-arg]


class Order:
    pk = 7


@pytest.mark.parametrize("value", [Order(), {1, 2}, b"bytes", {1: 2}, gettext_lazy("Hello"), [Order()]])
def test_argument_that_is_not_json_is_refused_with_its_name(value: object) -> None:
    """A model instance would have been pickled, or stored as its repr."""
    made = composer("tests.letter")(lambda order: letter())

    with pytest.raises(ArgumentsNotJSON, match=r"tests\.letter.*'order'.*Pass an id"):
        made.enqueue(order=value)

    assert not OutboundEmail.objects.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nul \x00", "half \ud83d"])
def test_argument_that_only_python_takes_for_json_is_refused(value: object) -> None:
    """PostgreSQL refuses them in mid-transaction, with words that name neither kind nor argument."""
    made = composer("tests.letter")(lambda order: letter())

    with pytest.raises(ArgumentsNotJSON, match="'order'"):
        made.enqueue(order=value)


def test_ids_and_instants_are_stored_as_strings() -> None:
    made = composer("tests.letter")(lambda **_: letter())
    key = uuid.uuid4()
    now = timezone.now()

    email = table(made.enqueue(key=key, at=now, day=now.date(), nested={"a": [1.5, None, True, (key,)]}))

    assert email.args == {
        "key": str(key),
        "at": str(now),
        "day": str(now.date()),
        "nested": {"a": [1.5, None, True, [str(key)]]},
    }


def test_message_is_written_in_the_language_and_zone_of_the_one_who_asked() -> None:
    """The worker runs in English and UTC; the visitor did not."""
    seen: list[str] = []

    def write() -> EmailMessage:
        seen.append(f"{translation.get_language()} {timezone.get_current_timezone_name()}")
        return letter(subject=gettext("Log in"))

    made = composer("tests.letter")(write)
    with translation.override("de"), timezone.override("Asia/Dhaka"):
        email = made.enqueue()

    with translation.override("fr"), timezone.override("America/Lima"):
        message = compose(table(email))
        after = f"{translation.get_language()} {timezone.get_current_timezone_name()}"

    assert seen == ["de Asia/Dhaka"]
    assert message.subject == "Anmelden"
    assert after == "fr America/Lima"


def test_surroundings_are_restored_after_a_fault_too() -> None:
    """The e-mails behind it would be written in the language of the one that broke."""
    made = composer("tests.letter")(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    with translation.override("de"):
        email = made.enqueue()

    with pytest.raises(ZeroDivisionError):
        compose(email)

    assert translation.get_language() == "en"
    assert timezone.get_current_timezone_name() == "UTC"


def test_zone_that_no_longer_exists_is_no_fault() -> None:
    made = composer("tests.letter")(letter)
    email = made.enqueue()
    email.time_zone = "Mars/Olympus_Mons"

    assert compose(email).subject == "Hello"


def test_nothing_lazy_leaves_the_composer() -> None:
    """A lazy text is translated when it is looked at: in a sending thread, in the site's language."""

    def write() -> EmailMessage:
        message = EmailMultiAlternatives(
            subject=gettext_lazy("Log in"),
            body=gettext_lazy("Password"),
            to=["ada@example.com"],
            headers={"X-Word": gettext_lazy("Password")},
        )
        message.attach_alternative(gettext_lazy("Password"), "text/html")
        return message

    made = composer("tests.letter")(write)
    with translation.override("de"):
        email = made.enqueue()

    message = compose(email)
    sent = message.message()

    assert type(message.subject) is str
    assert sent["Subject"] == "Anmelden"
    assert sent["X-Word"] == "Passwort"
    parts = [str(part.get_payload()).strip() for part in sent.walk() if not part.is_multipart()]
    assert parts == ["Passwort", "Passwort"]


@pytest.mark.parametrize("mime", [True, False], ids=["MIME", "fields"])
@pytest.mark.parametrize(
    "fields",
    [
        {"subject": "Hello\nBcc: eve@example.com"},
        {"to": ["ada@example.com\nBcc: eve@example.com"]},
        {"cc": ["ada@example.com\nBcc: eve@example.com"]},
        {"reply_to": ["ada@example.com\nBcc: eve@example.com"]},
        {"from_email": "shop@example.com\r\nBcc: eve@example.com"},
        {"headers": {"X-Order": "7\nBcc: eve@example.com"}},
        {"headers": {"X-Order: 7\nBcc": "eve@example.com"}},
    ],
)
def test_header_that_holds_another_one_is_refused(fields: dict[str, Any], mime: bool) -> None:
    """A name from a form became a header of its own."""
    with pytest.raises(ValueError, match=r"(?i)newline|linefeed|header"):
        composed(lambda: letter(**fields), mime=mime)


@pytest.mark.parametrize("mime", [True, False], ids=["MIME", "fields"])
@pytest.mark.parametrize("field", ["subject", "body"])
def test_half_a_character_is_the_composers_fault(field: str, mime: bool) -> None:
    """No charset has it: known while composing, not at the provider."""
    with pytest.raises(UnicodeEncodeError):
        composed(lambda: letter(**{field: "half \ud83d"}), mime=mime)


def test_every_message_says_that_a_machine_wrote_it() -> None:
    """Otherwise out-of-office answers come back, and answer each other."""
    message = composed(letter)

    sent = message.message()
    assert sent["Auto-Submitted"] == "auto-generated"
    assert sent["X-Auto-Response-Suppress"] == "All"
    assert sent["Date"]
    assert sent["From"] == "shop@example.com"


def test_headers_of_the_composer_win_in_any_spelling() -> None:
    message = composed(lambda: letter(headers={"message-id": "<own@x>", "AUTO-SUBMITTED": "no"}))

    sent = message.message()
    assert sent.get_all("Message-ID") == ["<own@x>"]
    assert sent.get_all("Auto-Submitted") == ["no"]


def test_repeat_is_the_same_message_by_its_id() -> None:
    """Two copies under one Message-ID are one e-mail in most inboxes."""
    made = composer("tests.letter")(letter)
    email = take_again(made.enqueue())
    first = compose(email).message()["Message-ID"]
    outbox.doubt([answer(email, NO_ANSWER)])

    again = compose(take_again(email)).message()["Message-ID"]

    assert again == first
    assert first.endswith("@example.com>")
    assert compose(made.enqueue()).message()["Message-ID"] != first


def test_sender_under_a_name_or_a_domain_beyond_ascii_is_no_fault() -> None:
    message = composed(lambda: letter(from_email="Grüße <laden@bücher.example>"))

    sent = message.message()
    assert sent["Message-ID"].isascii()
    assert "=?" not in sent["Message-ID"]


@pytest.mark.parametrize("returned", [None, "text", ["list"]])
def test_composer_that_returns_no_message_is_told_so(returned: object) -> None:
    with pytest.raises(TypeError, match=r"tests\.letter.*not an EmailMessage"):
        composed(lambda: returned)


def test_message_to_nobody_is_a_fault_of_the_composer() -> None:
    with pytest.raises(ValueError, match="no recipient"):
        composed(lambda: letter(to=[]))


def test_kind_that_this_code_does_not_know_waits_for_code_that_does() -> None:
    """Web and worker are deployed one after the other; the mails in between must not be given up."""
    email = outbox.enqueue("shop.from_tomorrow", {})
    with pytest.raises(UnknownKind, match="waits for code"):
        compose(email)

    delivery.drain()

    stored = table(email)
    assert (stored.state, stored.strikes, stored.reason) == (State.PENDING, 0, "compose")


def test_missing_template_waits_and_is_sent_when_it_is_there(templates: Path) -> None:
    """A deploy without its templates loses nothing."""
    made = composer("tests.letter")(lambda: render("late", {}, to=["ada@example.com"]))
    email = made.enqueue()
    delivery.drain()
    waiting = table(email)
    (templates / "late.subject.txt").write_text("Hello")
    (templates / "late.txt").write_text("Text")
    reset_loaders()  # the deploy that brings them starts the workers anew
    let_time_pass("default", dt.timedelta(minutes=1))

    delivery.drain()

    assert (waiting.state, waiting.strikes) == (State.PENDING, 0)
    assert "TemplateDoesNotExist" in email.events.get(type="rescheduled").detail
    assert table(email).state == State.ACCEPTED


def test_composer_that_keeps_failing_is_asked_ever_more_rarely(caplog: pytest.LogCaptureFixture) -> None:
    """30 s, 2 min, 10 min, then hourly until it expires; ERROR once, not four times."""
    made = composer("tests.letter")(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    email = made.enqueue()
    waits = []
    for _ in range(5):
        delivery.deliver_one(table(email))
        tried = email.events.filter(type="rescheduled").latest("pk").at
        waits.append(round((table(email).due_at - tried).total_seconds()))

    assert waits == [30, 120, 600, 3600, 3600]
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert "ZeroDivisionError" in errors[0].getMessage()


def test_withdrawal_ends_without_a_message() -> None:
    """The account was confirmed meanwhile, or erased."""

    def write() -> EmailMessage:
        raise Withdraw("verified")

    email = composer("tests.letter")(write).enqueue()

    delivery.drain()

    stored = table(email)
    assert (stored.state, stored.reason) == (State.CANCELLED, "verified")
    assert mail.outbox == []
    assert Withdraw().reason == "withdrawn"


def test_render_takes_three_templates(templates: Path) -> None:
    (templates / "hi.subject.txt").write_text("Hello\n {{ name }}\n")
    (templates / "hi.txt").write_text("\nDear {{ name }}\n\n")
    (templates / "hi.html").write_text("<p>{{ name }}</p>")

    message = render("hi", {"name": "Ada"}, to=["ada@example.com"], headers={"X-A": "1"}, reply_to=["r@x.y"])

    assert (message.subject, message.body) == ("Hello Ada", "Dear Ada\n")
    assert [tuple(alternative) for alternative in message.alternatives] == [("<p>Ada</p>", "text/html")]
    assert (message.to, message.reply_to, message.extra_headers) == (
        ["ada@example.com"],
        ["r@x.y"],
        {"X-A": "1"},
    )


def test_render_without_html_is_text_only(templates: Path) -> None:
    (templates / "hi.txt").write_text("Text")

    message = render("hi", {}, to=["ada@example.com"], subject="Given")

    assert message.subject == "Given"
    assert message.alternatives == []


def test_html_that_includes_what_is_missing_is_a_fault_and_not_text_only(templates: Path) -> None:
    """Otherwise a typing error silently turns every e-mail into plain text."""
    (templates / "hi.txt").write_text("Text")
    (templates / "hi.html").write_text('{% include "gone.html" %}')

    with pytest.raises(TemplateDoesNotExist, match=r"gone\.html"):
        render("hi", {}, to=["ada@example.com"], subject="Hello")


def test_name_with_a_line_end_cannot_begin_a_header(templates: Path) -> None:
    (templates / "hi.subject.txt").write_text("Hello {{ name }}")
    (templates / "hi.txt").write_text("Text")

    message = composed(lambda: render("hi", {"name": "Ada\r\nBcc: eve@example.com"}, to=["ada@example.com"]))

    assert message.message()["Subject"] == "Hello Ada Bcc: eve@example.com"
    assert message.message()["Bcc"] is None


def test_text_of_an_email_is_not_escaped_and_its_html_is(templates: Path) -> None:
    """ "O&#x27;Hara" in the subject line."""
    (templates / "hi.subject.txt").write_text("{{ name }}")
    (templates / "hi.txt").write_text("{{ name }}")
    (templates / "hi.html").write_text("{{ name }}")

    message = render("hi", {"name": "O'Hara <b>"}, to=["ada@example.com"])

    assert message.subject == "O'Hara <b>"
    assert message.body == "O'Hara <b>\n"
    assert "&lt;b&gt;" in str(message.alternatives[0][0])


def test_links_need_the_address_of_the_site(settings: Settings) -> None:
    settings.POSTROOM = {"SITE_URL": "https://shop.example/"}
    assert site_url() == "https://shop.example"

    settings.POSTROOM = {}
    with pytest.raises(PostroomError, match="SITE_URL"):
        site_url()
