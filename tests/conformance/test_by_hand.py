"""What a person may do to an e-mail, and when the outbox refuses."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from postroom import byhand, outbox
from postroom.exceptions import NotAllowed
from postroom.models import DeliveryEvent, EventType, OutboundEmail, OutboundEmailQuerySet, State
from tests.attempts import (
    NEVER,
    NO_ANSWER,
    answer,
    history,
    let_time_pass,
    put,
    put_and_take,
    table,
    take,
    take_again,
)

pytestmark = pytest.mark.django_db(databases=["default", "postgres", "mariadb"])


def in_state(database: str, state: str) -> OutboundEmail:
    """An e-mail that came into *state* by its arrows."""
    if state == State.PENDING:
        return put(database)
    if state == State.CANCELLED:
        return outbox.cancel(put(database))
    email = put_and_take(database, keyed=False)
    if state == State.ACCEPTED:
        outbox.accept([answer(email)], using=database)
    elif state == State.FAILED:
        outbox.fail([answer(email, NEVER)], using=database)
    elif state == State.UNCERTAIN:
        outbox.doubt([answer(email, NO_ANSWER)], using=database)
    return table(email)


def test_pending_email_can_be_cancelled(database: str) -> None:
    email = put(database)

    outbox.cancel(email, reason="order withdrawn", actor="ada")

    stored = table(email)
    assert (stored.state, stored.reason) == (State.CANCELLED, "order withdrawn")
    assert email.events.using(database).get().actor == "ada"
    assert history(email) == ["cancelled:cancelled"]
    assert take(database) == []


@pytest.mark.parametrize("state", sorted(set(State.values) - {"pending"}))
def test_nothing_else_can_be_cancelled(database: str, state: str) -> None:
    """It is under way, or has an end already: "cancelled" would be a lie."""
    email = in_state(database, state)
    before = history(email)

    with pytest.raises(NotAllowed, match=state):
        outbox.cancel(email)

    assert table(email).state == state
    assert history(email) == before


def test_pending_in_doubt_cannot_be_cancelled(database: str) -> None:
    """Its attempt may have arrived: it cannot be taken back any more."""
    email = put_and_take(database)
    outbox.doubt([answer(email, NO_ANSWER)], using=database)

    with pytest.raises(NotAllowed):
        outbox.cancel(table(email))


def test_cancel_looks_at_the_table_and_not_at_the_row_in_memory(database: str) -> None:
    """A page was open for an hour; in the meantime a worker took the e-mail."""
    stale = put(database)
    take_again(stale)

    with pytest.raises(NotAllowed):
        outbox.cancel(stale)

    assert stale.state == State.SENDING


@pytest.mark.parametrize("state", ["failed", "cancelled", "uncertain"])
def test_retry_gives_a_new_key_and_a_new_budget(database: str, state: str) -> None:
    email = in_state(database, state)
    epoch = email.epoch

    outbox.retry(email, actor="ada")

    stored = table(email)
    assert (stored.state, stored.strikes, stored.losses) == (State.PENDING, 0, 0)
    assert (stored.epoch, stored.key_used_at, stored.settled_at) == (epoch + 1, None, None)
    assert history(email)[-1] == "retried:pending"
    assert take(database) == [email]


@pytest.mark.parametrize("state", ["pending", "sending", "accepted"])
def test_nothing_else_can_be_retried(database: str, state: str) -> None:
    """Retrying what was accepted is a second e-mail; that is ``resend``, and says so."""
    email = in_state(database, state)

    with pytest.raises(NotAllowed, match=state):
        outbox.retry(email)

    assert table(email).state == state


def test_retry_keeps_the_number_of_the_attempt_rising(database: str) -> None:
    """It fences late results: an attempt of before must not count as one of now."""
    email = in_state(database, "failed")

    outbox.retry(email)

    assert take_again(email).attempt == 2


def test_retry_of_an_expired_email_gives_it_its_life_again(database: str) -> None:
    email = outbox.cancel(put(database, expires_in=timedelta(hours=1)))
    let_time_pass(database, timedelta(days=1))

    outbox.retry(table(email))

    stored = table(email)
    assert timedelta(minutes=59) < stored.expires_at - timezone.now() <= timedelta(hours=1)


def test_late_refusal_of_an_attempt_before_the_retry_is_dropped(database: str) -> None:
    late = put_and_take(database, keyed=False)
    let_time_pass(database, timedelta(minutes=1))
    outbox.rescue(worker="host/2", using=database)
    outbox.retry(table(late))

    lost = outbox.fail([answer(late, NEVER)], using=database)

    assert len(lost) == 1
    assert table(late).state == State.PENDING


@pytest.mark.parametrize("state", State.values)
def test_resend_is_a_new_email_that_names_the_old_one(database: str, state: str) -> None:
    email = in_state(database, state)
    OutboundEmail.objects.using(database).update(language="de", time_zone="Asia/Dhaka", lane=0)
    email = table(email)

    again = outbox.resend(email, actor="ada")

    stored = table(again)
    assert stored.pk != email.pk
    assert stored.uuid != email.uuid
    assert stored.resend_of_id == email.pk
    assert (stored.kind, stored.args, stored.lane) == (email.kind, email.args, 0)
    assert (stored.language, stored.time_zone) == ("de", "Asia/Dhaka")
    assert stored.expires_at - stored.created_at == email.expires_at - email.created_at
    assert stored.state == State.PENDING
    assert table(email).state == state


@pytest.mark.parametrize("state", State.values)
def test_resend_writes_into_the_history_of_the_old_one_who_did_it(database: str, state: str) -> None:
    """The new e-mail begins like any other: only there would anybody look for the hand behind it."""
    email = in_state(database, state)

    again = outbox.resend(email, actor="ada")

    event = email.events.using(database).latest("pk")
    assert (event.type, event.state, event.actor) == (EventType.RESENT, state, "ada")
    assert event.detail == f"as {again.uuid}"


def test_resend_asks_no_replica_for_what_it_has_just_written(settings: Any) -> None:
    """A replica that lags knows nothing of the new e-mail yet: the operator saw a crash, and sent again."""
    settings.DATABASE_ROUTERS = ["tests.conformance.test_by_hand.Replicas"]
    email = put("default")

    again = outbox.resend(email)

    assert again.resend_of_id == email.pk


class Replicas:
    """A router that reads from a server which has not got the newest rows."""

    def db_for_read(self, model: type, **hints: Any) -> str:
        return "lagging"

    def db_for_write(self, model: type, **hints: Any) -> str:
        return "default"


# --- lists --------------------------------------------------------------------------------------


def all_rows(database: str) -> OutboundEmailQuerySet:
    return OutboundEmail.objects.using(database).all()


def one_in_each_state(database: str) -> dict[str, OutboundEmail]:
    return {state: in_state(database, state) for state in sorted(State.values)}


@pytest.mark.parametrize(
    ("verb", "type_", "done"),
    [
        (byhand.cancel_all, EventType.CANCELLED, {"pending"}),
        (byhand.retry_all, EventType.RETRIED, {"failed", "cancelled", "uncertain"}),
        (
            partial(byhand.resend_all, known=frozenset()),
            EventType.RESENT,
            {"accepted", "failed", "cancelled", "uncertain"},
        ),
    ],
)
def test_a_list_is_changed_where_its_guard_allows_with_one_event_a_row(
    database: str, verb: Any, type_: EventType, done: set[str]
) -> None:
    emails = one_in_each_state(database)
    before = {state: history(email) for state, email in emails.items()}

    changed = sum(verb(all_rows(database), actor="ada"))

    assert changed == len(done)
    for state, email in emails.items():
        new = list(email.events.using(database).order_by("pk"))[len(before[state]) :]
        expected = [(type_, "ada")] if state in done else []
        assert [(event.type, event.actor) for event in new] == expected
        if state not in done:
            assert table(email).state == state


def test_whoever_has_seen_the_copies_sends_once_more_and_others_do_not(database: str) -> None:
    old = in_state(database, "failed")
    copies = frozenset([outbox.resend(old).pk])
    rows = all_rows(database).filter(pk=old.pk)

    assert sum(byhand.resend_all(rows, actor="ada", known=frozenset())) == 0
    assert sum(byhand.resend_all(rows, actor="ada", known=copies)) == 1

    assert all_rows(database).filter(resend_of=old).count() == 2
    assert history(old).count("resent:failed") == 2


def test_a_list_obeys_the_guards_of_the_single_arrow(database: str) -> None:
    """Of a pending e-mail whose attempt got no answer nobody may say "not sent"."""
    in_doubt = put_and_take(database)
    outbox.doubt([answer(in_doubt, NO_ANSWER)], using=database)
    retried = put_and_take(database, keyed=False)
    outbox.doubt([answer(retried, NO_ANSWER)], using=database)
    outbox.retry(table(retried))

    assert sum(byhand.cancel_all(all_rows(database), actor="ada")) == 0

    assert {table(email).state for email in (in_doubt, retried)} == {State.PENDING}


def test_a_long_list_is_walked_in_batches_and_each_row_is_met_once(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is retried and fails again at once is among the failed again, behind the back of the walk."""
    monkeypatch.setattr(byhand, "AT_ONCE", 2)
    emails = [in_state(database, "failed") for _n in range(5)]
    sizes = []

    for some in byhand.retry_all(all_rows(database).filter(state=State.FAILED), actor="ada"):
        sizes.append(some)
        for email in take(database, 10, keyed=False):
            outbox.fail([answer(email, NEVER)], using=database)

    assert sizes == [2, 2, 1]
    retried = DeliveryEvent.objects.using(database).filter(type=EventType.RETRIED)
    assert sorted(retried.values_list("email", flat=True)) == sorted(email.pk for email in emails)


def test_each_of_a_list_gets_its_own_life_again(database: str) -> None:
    short = outbox.cancel(put(database, expires_in=timedelta(hours=1)))
    long = outbox.cancel(put(database, expires_in=timedelta(days=9)))
    let_time_pass(database, timedelta(days=1))

    assert sum(byhand.retry_all(all_rows(database), actor="ada")) == 2

    assert timedelta(minutes=59) < table(short).expires_at - timezone.now() <= timedelta(hours=1)
    assert timedelta(days=7) < table(long).expires_at - timezone.now() <= timedelta(days=8)


def test_a_list_costs_the_same_statements_whatever_its_length(database: str) -> None:
    costs = []
    for n in (3, 30):
        for _n in range(n):
            in_state(database, "failed")
        failed = all_rows(database).filter(state=State.FAILED)
        with CaptureQueriesContext(connections[database]) as queries:
            assert sum(byhand.retry_all(failed, actor="ada")) == n
        costs.append(len(queries))

    assert costs[0] == costs[1]
