"""What others hear of an e-mail: once for every event, after the commit; and what the log says."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction

from postroom import delivery, outbox
from postroom.models import EventType, OutboundEmail
from postroom.signals import LEVELS, email_event
from tests.attempts import NEVER, NO_ANSWER, answer, put, put_and_take

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def heard() -> Iterator[list[str]]:
    events: list[str] = []

    def receiver(*, sender: Any, email: OutboundEmail, event: Any, **_: Any) -> None:
        assert sender is OutboundEmail
        events.append(f"{event.type}:{event.state}:{email.state}")

    email_event.connect(receiver)
    yield events
    email_event.disconnect(receiver)


def test_every_event_is_heard_once_with_the_row_as_it_left_it(heard: list[str]) -> None:
    email = put_and_take("default")
    outbox.accept([answer(email)])
    outbox.note(email, "delivered")

    assert heard == ["claimed:sending:sending", "accepted:accepted:accepted", "delivered:accepted:accepted"]


def test_nothing_is_heard_before_the_commit_or_after_a_rollback(heard: list[str]) -> None:
    """A page was told "sent", looked, and found the old row."""
    email = put_and_take("default")
    heard.clear()

    with transaction.atomic():
        outbox.fail([answer(email, NEVER)])
        inside = list(heard)
        transaction.set_rollback(True)

    assert inside == heard == []


def test_receiver_that_raises_disturbs_nobody(heard: list[str]) -> None:
    def broken(**_: Any) -> None:
        raise RuntimeError("a receiver of the site")

    email_event.connect(broken)
    try:
        email = put_and_take("default")
        lost = outbox.accept([answer(email)])
    finally:
        email_event.disconnect(broken)

    assert lost == []
    assert heard[-1] == "accepted:accepted:accepted"


def test_report_that_came_before_its_acceptance_is_heard_once_it_has_an_e_mail(heard: list[str]) -> None:
    """A receiver that takes bounced addresses from a list never heard of those that were so quick."""
    email = put_and_take("default")
    outbox.note(None, "bounced", message_id="<1@p>")
    heard.clear()

    outbox.accept([answer(email, message_id="<1@p>")])
    outbox.adopt_left_behind("default")

    assert heard == ["accepted:accepted:accepted", "bounced::accepted"]


def test_late_result_is_no_event(heard: list[str]) -> None:
    email = put_and_take("default")
    outbox.accept([answer(email)])
    heard.clear()

    outbox.fail([answer(email, NEVER)])

    assert heard == []


def test_report_that_is_known_is_not_heard_again(heard: list[str]) -> None:
    email = put_and_take("default")
    outbox.note(email, "delivered", dedupe_key="d")
    heard.clear()

    outbox.note(email, "delivered", dedupe_key="d")

    assert heard == []


def test_log_has_one_line_for_every_event(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="postroom")

    email = put_and_take("default")
    outbox.accept([answer(email, message_id="<1@p>", duration_ms=42)])

    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[1] == (
        f"accepted email={email.uuid} kind=tests.letter state=accepted attempt=1 worker=host/1 "
        "mailer=provider class=- ms=42"
    )


def test_log_never_names_an_address_or_a_key(caplog: pytest.LogCaptureFixture) -> None:
    """Logs are kept longer than accounts, and read by more people."""
    caplog.set_level(logging.DEBUG, logger="postroom")
    email = outbox.enqueue("postroom.test", {"address": "ada@example.com", "asked_at": "secret"})
    delivery.drain()
    outbox.note(email, "bounced", recipient="ada@example.com", message_id="<1@p>")
    outbox.resend(email, actor="operator")

    everything = "\n".join(str(vars(record)) + record.getMessage() for record in caplog.records)
    assert "accepted" in everything
    for secret in ("ada@", "secret", email.idempotency_key):
        assert secret not in everything


@pytest.mark.parametrize(
    ("verb", "level"),
    [
        (lambda email: outbox.accept([answer(email)]), logging.INFO),
        (lambda email: outbox.doubt([answer(email, NO_ANSWER)]), logging.WARNING),
        (lambda email: outbox.fail([answer(email, NEVER)]), logging.ERROR),
        (lambda email: outbox.note(email, "complained"), logging.WARNING),
    ],
)
def test_level_says_whether_somebody_should_look(
    caplog: pytest.LogCaptureFixture, verb: Any, level: int
) -> None:
    caplog.set_level(logging.INFO, logger="postroom")
    email = put_and_take("default")
    caplog.clear()

    verb(email)

    assert [record.levelno for record in caplog.records] == [level]


def test_person_behind_a_change_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="postroom")

    outbox.cancel(put("default"), actor="ada")

    assert caplog.records[-1].getMessage().endswith("by='ada'")


def test_levels_are_of_events_that_exist() -> None:
    assert set(LEVELS) <= set(EventType)
