"""Rows and events: one event an arrow, in the same transaction; the impossible refused by the tables."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction
from django.utils import timezone

from postroom import outbox, signals
from postroom.models import DeliveryEvent, EventType, OutboundEmail, State
from postroom.statements import clock, insert
from tests.attempts import (
    NEVER,
    NO_ANSWER,
    NOT_NOW,
    answer,
    let_time_pass,
    put,
    put_and_take,
    table,
    take,
    take_again,
)

pytestmark = pytest.mark.django_db(databases=["default", "postgres", "mariadb"])

Arrow = Callable[[OutboundEmail, str], object]


def _rescue(email: OutboundEmail, database: str) -> object:
    let_time_pass(database, timedelta(minutes=1))
    return outbox.rescue(worker="host/2", using=database)


def _retry(email: OutboundEmail, database: str) -> object:
    outbox.fail([answer(email, NEVER)], using=database)
    DeliveryEvent.objects.using(database).last().delete()  # type: ignore[union-attr]
    return outbox.retry(email)


ARROWS: dict[str, Arrow] = {
    "accepted": lambda email, database: outbox.accept([answer(email)], using=database),
    "rescheduled": lambda email, database: outbox.reschedule([answer(email, NOT_NOW)], using=database),
    "failed": lambda email, database: outbox.fail([answer(email, NEVER)], using=database),
    "withdrawn": lambda email, database: outbox.withdraw([answer(email, reason="r")], using=database),
    "doubted": lambda email, database: outbox.doubt([answer(email, NO_ANSWER)], using=database),
    "rescued": _rescue,
    "retried": _retry,
    "delivered": lambda email, database: outbox.note(email, "delivered", using=database),
}


@pytest.mark.parametrize("name", sorted(ARROWS))
def test_every_arrow_writes_exactly_one_event(database: str, name: str) -> None:
    email = put_and_take(database)

    ARROWS[name](email, database)

    events = list(DeliveryEvent.objects.using(database).order_by("pk"))
    assert [event.type for event in events] == ["claimed", name]
    assert events[-1].state == table(email).state
    assert events[-1].attempt == 1


@pytest.mark.parametrize("name", sorted(ARROWS))
def test_arrow_whose_event_cannot_be_written_changes_nothing(
    database: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state without its event is a story with a missing page: both are written, or neither."""
    email = put_and_take(database)
    before = OutboundEmail.objects.using(database).filter(pk=email.pk).values().get()

    def broken(*_: Any, **__: Any) -> None:
        raise IntegrityError("disk full")

    if name == "retried":
        outbox.fail([answer(email, NEVER)], using=database)
        before = OutboundEmail.objects.using(database).filter(pk=email.pk).values().get()
        DeliveryEvent.objects.using(database).all().delete()
    if name == "rescued":
        let_time_pass(database, timedelta(minutes=1))
        before = OutboundEmail.objects.using(database).filter(pk=email.pk).values().get()
    monkeypatch.setattr(signals, "announce", broken)
    with pytest.raises(IntegrityError):
        _direct(name, email, database)

    assert OutboundEmail.objects.using(database).filter(pk=email.pk).values().get() == before
    assert not DeliveryEvent.objects.using(database).filter(type=name).exists()


def _direct(name: str, email: OutboundEmail, database: str) -> None:
    if name == "retried":
        outbox.retry(email)
    elif name == "rescued":
        outbox.rescue(worker="host/2", using=database)
    else:
        ARROWS[name](email, database)


def test_count_of_events_equals_the_count_of_arrows(database: str) -> None:
    """Operators count failures by the events: one too many or too few and the doctor lies."""
    for _ in range(6):
        put(database)
    emails = take(database, 6)
    outbox.accept([answer(emails[0]), answer(emails[1])], using=database)
    outbox.reschedule([answer(emails[2], NOT_NOW)], using=database)
    outbox.doubt([answer(emails[3], NO_ANSWER)], using=database)
    outbox.fail([answer(emails[4], NEVER), answer(emails[1], NEVER)], using=database)
    let_time_pass(database, timedelta(minutes=1))
    outbox.rescue(worker="host/2", using=database)

    arrows = 6 + 2 + 1 + 1 + 1 + 1  # the late failure of emails[1] is no arrow
    assert DeliveryEvent.objects.using(database).count() == arrows


def test_events_carry_class_and_fingerprint_of_the_failure(database: str) -> None:
    email = put_and_take(database)

    outbox.reschedule([answer(email, NOT_NOW)], using=database)

    event = email.events.using(database).get(type="rescheduled")
    assert (event.error_class, event.fingerprint, event.detail) == (
        "transient",
        "f00df00df00d",
        "told by a test",
    )


NOW = timezone.now()
IMPOSSIBLE = {
    "sending without a claim": {"state": "sending"},
    "pending under a claim": {"claim_id": uuid.uuid4(), "lease_expires_at": NOW},
    "a claim without a lease": {"state": "sending", "claim_id": uuid.uuid4()},
    "failed without an instant": {"state": "failed"},
    "pending and settled": {"settled_at": NOW},
    "accepted without an instant": {"state": "accepted", "settled_at": NOW},
    "accepted and pending": {"accepted_at": NOW},
    "accepted in doubt": {
        "state": "accepted",
        "settled_at": NOW,
        "accepted_at": NOW,
        "uncertain_since": NOW,
    },
    "failed in doubt": {"state": "failed", "settled_at": NOW, "uncertain_since": NOW},
    "cancelled in doubt": {"state": "cancelled", "settled_at": NOW, "uncertain_since": NOW},
    "uncertain since never": {"state": "uncertain", "settled_at": NOW},
    "a state that does not exist": {"state": "posted", "settled_at": NOW},
}


@pytest.mark.parametrize("what", sorted(IMPOSSIBLE))
def test_table_refuses_the_impossible(database: str, what: str) -> None:
    """Whoever writes past the outbox, by hand or by a bug, cannot leave what nobody can explain."""
    email = put(database)

    with pytest.raises(IntegrityError), transaction.atomic(using=database):
        OutboundEmail.objects.using(database).filter(pk=email.pk).update(**IMPOSSIBLE[what])

    assert table(email).state == State.PENDING


def test_deleting_an_email_deletes_its_history(database: str) -> None:
    email = put_and_take(database)

    table(email).delete()

    assert not DeliveryEvent.objects.using(database).exists()


def test_clock_of_claims_moves_within_a_transaction(database: str) -> None:
    """
    ``now()`` of PostgreSQL stands still for a whole transaction: inside a long one, what was due
    meanwhile would not be, and a lease would be born old.
    """
    with transaction.atomic(using=database):
        emails = [put(database), put(database)]
        leases = [take_again(email).lease_expires_at for email in emails]

    assert leases[0] is not None
    assert leases[1] is not None
    assert leases[0] < leases[1]


def test_claim_reads_its_index_and_not_the_whole_table(database: str) -> None:
    """With a million finished rows a claim took 615 ms: it read them all."""
    if connections[database].vendor == "postgresql":
        explained = _explained_on_postgresql(database)
    else:
        due = OutboundEmail.objects.using(database).due(clock(database)).order_by("lane", "due_at")
        explained = due[:10].explain()

    assert "postroom_claim" in explained


def _explained_on_postgresql(database: str) -> str:
    finished = put_and_take(database)
    outbox.accept([answer(finished)], using=database)
    with connections[database].cursor() as cursor:
        fields = [f.column for f in OutboundEmail._meta.concrete_fields if f.column not in ("id", "uuid")]
        names = ", ".join(fields)
        cursor.execute(
            f"INSERT INTO postroom_outboundemail (uuid, {names}) SELECT gen_random_uuid(), {names} "
            "FROM postroom_outboundemail, generate_series(1, 5000)"
        )
        cursor.execute("ANALYZE postroom_outboundemail")
    due = OutboundEmail.objects.using(database).due(clock(database)).order_by("lane", "due_at")
    return due.select_for_update(skip_locked=True)[:10].explain()


def test_two_events_that_say_the_same_are_two_events(database: str) -> None:
    """What all rows have in common is written once, for all of them; that must not make them one row."""
    event = {"email_id": put(database).pk, "type": EventType.DEFERRED, "at": timezone.now()}

    keys = insert(DeliveryEvent, [event, event], database)

    assert len(set(keys)) == DeliveryEvent.objects.using(database).filter(pk__in=keys).count() == 2
