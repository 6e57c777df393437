"""One attempt, from the composer to the settled row, in the thread of a test."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connection
from django.test import TestCase
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from postroom import composing, delivery, mailers, outbox
from postroom.composing import composer
from postroom.delivery import Prepared
from postroom.exceptions import NotAllowed
from postroom.models import OutboundEmail, State
from tests.attempts import (
    NO_ANSWER,
    answer,
    history,
    let_time_pass,
    lose_worker,
    put,
    table,
    take_again,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A composer that writes, or breaks, as its arguments say."""
    monkeypatch.setattr(composing, "_composers", dict(composing._composers))

    @composer("tests.letter")
    def letter(n: int = 0, to: str = "ada@example.com", poison: bool = False) -> EmailMessage:
        if poison:
            raise RuntimeError("poison")
        return EmailMessage(f"Letter {n}", "Text", to=[to])


def letter(**args: Any) -> OutboundEmail:
    return outbox.enqueue("tests.letter", args)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A mailer whose answers are played: an exception is raised, a string is Anymail's id of the message."""
    answers: list[Any] = []

    class Played(BaseEmailBackend):
        esp_name = "Brevo"

        def open(self) -> bool:
            return False

        def close(self) -> None: ...

        def send_messages(self, email_messages: Any) -> int:
            (message,) = email_messages
            says = answers.pop(0) if answers else ""
            if isinstance(says, tuple):
                message.anymail_status = Status(says[0])
                raise says[1]
            if isinstance(says, BaseException):
                raise says
            message.anymail_status = Status(says)
            return 1

    class Status:
        def __init__(self, message_id: str) -> None:
            self.message_id = message_id

    monkeypatch.setattr(mailers, "build", lambda alias, recipe: Played())
    mailers.close_all()
    yield answers
    mailers.close_all()


class DrainTests(TestCase):
    """Inside a transaction that is rolled back at the end, as the tests of most sites run."""

    def test_drain_delivers_what_is_due_inside_a_test_case(self) -> None:
        emails = [letter(n=n) for n in range(3)]
        letter_later = outbox.enqueue("tests.letter", {}, due_at=timezone.now() + timedelta(hours=1))

        assert delivery.drain() == 3

        assert [message.subject for message in mail.outbox] == ["Letter 0", "Letter 1", "Letter 2"]
        assert {table(email).state for email in emails} == {State.ACCEPTED}
        assert table(letter_later).state == State.PENDING

    def test_deliver_one_ignores_the_due_date(self) -> None:
        email = outbox.enqueue("tests.letter", {}, due_at=timezone.now() + timedelta(hours=1))

        after = delivery.deliver_one(email)

        assert after is email
        assert (email.state, email.recipient) == (State.ACCEPTED, "ada@example.com")


def test_deliver_one_says_that_sending_is_paused() -> None:
    """ "Is pending; only a pending one can be delivered": true, and of no use to anybody."""
    email = letter()
    outbox.pause(actor="anna")

    with pytest.raises(NotAllowed, match="Sending is paused"):
        delivery.deliver_one(email)


def test_deliver_one_refuses_what_is_not_pending() -> None:
    email = delivery.deliver_one(letter())

    with pytest.raises(NotAllowed, match="accepted"):
        delivery.deliver_one(email)

    assert len(mail.outbox) == 1


def test_deliver_one_says_why_a_pending_one_is_not_to_be_had() -> None:
    """ "Is pending; only a pending one can be delivered", it said of one in doubt with a mailer that is gone."""
    email = take_again(letter(), mailer="gone")
    outbox.doubt([answer(email, NO_ANSWER)])

    with pytest.raises(NotAllowed, match=r"not to be had.*'gone'"):
        delivery.deliver_one(table(email))


def test_poison_does_not_delay_the_twenty_behind_it() -> None:
    """One e-mail that could not be written stopped the queue until somebody deleted it by hand."""
    poison = letter(poison=True)
    behind = [letter(n=n) for n in range(20)]

    delivery.drain()

    assert {table(email).state for email in behind} == {State.ACCEPTED}
    assert (table(poison).state, table(poison).strikes) == (State.PENDING, 0)


def test_drain_takes_those_that_lost_two_workers_one_by_one() -> None:
    """They are claimed alone, but they are claimed."""
    email = letter()
    for _ in range(2):
        OutboundEmail.objects.update(due_at=timezone.now())
        lose_worker(take_again(email, keyed=True))

    assert delivery.drain() == 1
    assert table(email).state == State.ACCEPTED


def test_drain_holds_no_more_than_the_one_it_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty in hand, three seconds each: the last one's lease had run out long before its turn."""
    for n in range(3):
        letter(n=n)
    held: list[int] = []
    send = delivery.send

    def watched(ready: Prepared) -> outbox.Result:
        held.append(OutboundEmail.objects.filter(state=State.SENDING).count())
        return send(ready)

    monkeypatch.setattr(delivery, "send", watched)

    assert delivery.drain() == 3
    assert held == [1, 1, 1]


def test_acceptance_is_written_with_the_id_of_the_provider(provider: list[Any]) -> None:
    provider.append("<id@provider>")

    email = delivery.deliver_one(letter())

    assert (email.state, email.message_id) == (State.ACCEPTED, "<id@provider>")
    assert email.mailer == "provider"
    assert email.events.get(type="accepted").duration_ms is not None


def test_exception_after_the_provider_gave_an_id_is_an_acceptance(provider: list[Any]) -> None:
    """A receiver of Anymail's post_send raised: the e-mail was out, and went out again."""
    provider.append(("<id@provider>", RuntimeError("a receiver of post_send")))

    email = delivery.deliver_one(letter())

    assert (email.state, email.message_id) == (State.ACCEPTED, "<id@provider>")


def test_exception_without_an_id_is_judged(provider: list[Any]) -> None:
    provider.append(ConnectionRefusedError("nobody listens"))

    email = delivery.deliver_one(letter())

    assert (email.state, email.strikes, email.reason) == (State.PENDING, 1, "transient")


def test_unknown_exception_is_doubt_and_repeated_with_the_same_key(provider: list[Any]) -> None:
    provider += [RuntimeError("who knows"), "<id@provider>"]
    email = letter()
    delivery.deliver_one(email)
    key = email.idempotency_key
    assert email.uncertain_since is not None

    delivery.deliver_one(email)

    assert email.state == State.ACCEPTED
    assert email.idempotency_key == key


def test_recipients_are_remembered_by_the_first_and_the_count() -> None:
    email = letter(to="ada@example.com")

    delivery.deliver_one(email)

    assert (email.recipient, email.recipient_count) == ("ada@example.com", 1)


def test_message_names_its_row_to_the_provider() -> None:
    """The reports bring it back: they are matched without the id of the message."""
    email = letter()

    ready = delivery.prepare(take_again(email))

    assert isinstance(ready, Prepared)
    assert ready.message.metadata == {"postroom": str(email.uuid)}  # type: ignore[attr-defined]
    assert ready.key == email.idempotency_key


def test_sending_uses_no_database(provider: list[Any]) -> None:
    """Thousands of e-mails in flight would hold thousands of connections."""
    ready = delivery.prepare(take_again(letter()))
    assert isinstance(ready, Prepared)

    with CaptureQueriesContext(connection) as queries:
        delivery.send(ready)

    assert len(queries) == 0


def test_address_that_staging_must_not_write_to_is_withdrawn(settings: Settings) -> None:
    """A copy of the production database on a test server wrote to every customer."""
    settings.POSTROOM = {**settings.POSTROOM, "ONLY_TO": r"@example\.com$"}
    inside, outside = letter(to="ada@example.com"), letter(to="ada@example.org")

    delivery.drain()

    assert table(inside).state == State.ACCEPTED
    assert (table(outside).state, table(outside).reason) == (State.CANCELLED, "only_to")
    assert [message.to for message in mail.outbox] == [["ada@example.com"]]


def test_expired_email_is_not_composed_any_more() -> None:
    email = letter(poison=True)
    let_time_pass("default", timedelta(days=8))

    delivery.drain()

    assert (table(email).state, table(email).reason) == (State.CANCELLED, "expired")
    assert history(email) == ["claimed:sending", "withdrawn:cancelled"]


def test_late_refusal_is_dropped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    late = take_again(put("default"), keyed=True)
    lose_worker(late)

    lost = delivery.settle([answer(late, NO_ANSWER)])

    assert len(lost) == 1
    assert f"claim_lost email={late.uuid} attempt=1" in caplog.text


def test_mailer_that_is_not_configured_says_which_one(settings: Settings) -> None:
    from postroom.exceptions import SettingsError

    settings.POSTROOM = {"SEND_WITH": ["gone"]}

    with pytest.raises(SettingsError, match=r"'gone'.*SEND_WITH"):
        mailers.configured("gone")


def test_worker_name_is_host_and_process() -> None:
    host, _, pid = delivery.worker_name().rpartition("/")

    assert host
    assert int(pid) > 0


def test_id_that_no_database_takes_is_written_without_what_it_does_not_take(provider: list[Any]) -> None:
    """A provider's id with a NUL in it: accepted, never written, sent again after every lease."""
    email = letter(n=1)
    provider.append("<1\0\ud83d@p>")

    delivery.drain()

    assert (table(email).state, table(email).message_id) == (State.ACCEPTED, "<1?@p>")
