"""The ends of a claim: accept, reschedule, fail, doubt, withdraw, and who may write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from postroom import delivery, outbox
from postroom.models import OutboundEmail, State
from tests.attempts import (
    NEVER,
    NO_ANSWER,
    NOT_NOW,
    RATE_LIMITED,
    answer,
    history,
    let_time_pass,
    lose_worker,
    put,
    put_and_take,
    table,
    take,
    take_again,
)

pytestmark = pytest.mark.django_db(databases=["default", "postgres", "mariadb"])


def test_acceptance_is_written_with_what_the_provider_said(database: str) -> None:
    email = put_and_take(database)

    lost = outbox.accept(
        [answer(email, message_id="<1@p>", recipient_count=2, duration_ms=12)], using=database
    )

    stored = table(email)
    assert lost == []
    assert (stored.state, stored.message_id, stored.recipient) == (
        State.ACCEPTED,
        "<1@p>",
        "ada@example.com",
    )
    assert stored.recipient_count == 2
    assert stored.accepted_at == stored.settled_at is not None
    assert history(email) == ["claimed:sending", "accepted:accepted"]
    assert email.events.using(database).get(type="accepted").duration_ms == 12


def test_acceptances_of_a_list_keep_their_own_ids(database: str) -> None:
    put(database)
    put(database)
    put(database)
    emails = take(database, 3)

    outbox.accept([answer(email, message_id=f"<{email.pk}@p>") for email in emails], using=database)

    assert all(table(email).message_id == f"<{email.pk}@p>" for email in emails)


def test_settling_a_list_costs_the_same_as_settling_one(database: str) -> None:
    for _ in range(12):
        put(database)
    one, *others = take(database, 12)

    with CaptureQueriesContext(connections[database]) as for_one:
        outbox.accept([answer(one, message_id="<0@p>")], using=database)
    with CaptureQueriesContext(connections[database]) as for_eleven:
        outbox.accept([answer(email, message_id=f"<{email.pk}@p>") for email in others], using=database)

    assert len(for_one) == len(for_eleven)


def test_refusal_for_now_waits_and_strikes(database: str) -> None:
    email = put_and_take(database)

    outbox.reschedule([answer(email, NOT_NOW, wait=timedelta(minutes=3))], using=database)

    stored = table(email)
    assert (stored.state, stored.strikes, stored.reason) == (State.PENDING, 1, "transient")
    assert timedelta(minutes=2) < stored.due_at - timezone.now() <= timedelta(minutes=3)
    assert stored.claim_id is None
    assert history(email) == ["claimed:sending", "rescheduled:pending"]


def test_rate_limit_costs_no_strike(database: str) -> None:
    """A provider asked everybody to wait, and half an hour later mails were given up for it."""
    email = put_and_take(database)
    before = timezone.now()

    delivery.settle([answer(email, RATE_LIMITED)], using=database)

    stored = table(email)
    assert stored.strikes == 0
    assert before <= stored.due_at - timedelta(seconds=30) <= timezone.now()


def test_wait_never_reaches_beyond_the_expiry(database: str) -> None:
    """What expires while it waits has to be ended then, not an hour later."""
    email = put_and_take(database, expires_in=timedelta(minutes=1))

    outbox.reschedule([answer(email, NOT_NOW, wait=timedelta(hours=1))], using=database)

    stored = table(email)
    assert stored.due_at == stored.expires_at


def test_last_strike_gives_up(database: str) -> None:
    email = put_and_take(database)
    OutboundEmail.objects.using(database).update(strikes=23)
    email.strikes = 23

    delivery.settle([answer(email, NOT_NOW)], using=database)

    stored = table(email)
    assert (stored.state, stored.strikes, stored.reason) == (State.FAILED, 24, "transient")


def test_budget_outlasts_an_outage_of_two_hours(database: str) -> None:
    """A provider was away for two hours in the night, and everything of those hours was given up."""
    email = put(database)
    waited = timedelta()
    for strike in range(1, 24):
        taken = take_again(email)
        delivery.settle([answer(taken, NOT_NOW)], using=database)
        stored = table(email)
        assert (stored.state, stored.strikes) == (State.PENDING, strike)
        waited += stored.due_at - timezone.now()

    assert timedelta(hours=2) < waited < timedelta(hours=5)


def test_permanent_refusal_fails_at_once(database: str) -> None:
    email = put_and_take(database)

    outbox.fail([answer(email, NEVER)], using=database)

    stored = table(email)
    assert (stored.state, stored.reason) == (State.FAILED, "permanent_message")
    assert stored.settled_at is not None
    assert history(email) == ["claimed:sending", "failed:failed"]


def test_withdrawal_says_why(database: str) -> None:
    email = put_and_take(database)

    outbox.withdraw([answer(email, reason="verified")], using=database)

    stored = table(email)
    assert (stored.state, stored.reason, stored.strikes) == (State.CANCELLED, "verified", 0)
    assert history(email) == ["claimed:sending", "withdrawn:cancelled"]


@pytest.mark.parametrize("verb", [outbox.reschedule, outbox.fail, outbox.doubt, outbox.withdraw])
def test_worker_that_lost_its_claim_cannot_overwrite_the_result(database: str, verb: delivery.Verb) -> None:
    """
    A worker that hung past its lease comes back after another one has sent the
    e-mail. Its late "failed" must not replace the "accepted".
    """
    late = put_and_take(database)
    lose_worker(late)
    outbox.accept([answer(take_again(late, worker="host/2"))], using=database)
    before = history(late)

    lost = verb([answer(late, NEVER)], using=database)

    assert [result.email for result in lost] == [late]
    assert table(late).state == State.ACCEPTED
    assert history(late) == before


@pytest.mark.parametrize("verb", [outbox.reschedule, outbox.fail, outbox.doubt, outbox.withdraw])
def test_worker_that_lost_its_claim_cannot_end_the_claim_of_another(
    database: str, verb: delivery.Verb
) -> None:
    """State alone is no fence: the row is SENDING again, under another claim."""
    late = put_and_take(database)
    lose_worker(late)
    other = take_again(late, worker="host/2")

    lost = verb([answer(late, NEVER)], using=database)

    stored = table(late)
    assert len(lost) == 1
    assert (stored.state, stored.claim_id, stored.worker) == (State.SENDING, other.claim_id, "host/2")


def test_lost_and_held_results_in_one_list_are_told_apart(database: str) -> None:
    held, late = put_and_take(database), put_and_take(database)
    OutboundEmail.objects.using(database).filter(pk=late.pk).update(claim_id=held.uuid)

    lost = outbox.fail([answer(held, NEVER), answer(late, NEVER)], using=database)

    assert [result.email for result in lost] == [late]
    assert table(held).state == State.FAILED
    assert table(late).state == State.SENDING


def test_results_of_different_claims_settle_in_one_list(database: str) -> None:
    emails = [put_and_take(database) for _ in range(3)]
    assert len({email.claim_id for email in emails}) == 3

    lost = outbox.reschedule(
        [answer(email, NOT_NOW, wait=timedelta(minutes=n)) for n, email in enumerate(emails, 1)],
        using=database,
    )

    waits = [table(email).due_at - timezone.now() for email in emails]
    assert lost == []
    assert [round(wait / timedelta(minutes=1)) for wait in waits] == [1, 2, 3]


@pytest.mark.parametrize("end", ["pending", "sending", "failed", "cancelled", "uncertain"])
def test_late_acceptance_is_written_whatever_the_row_says(database: str, end: str) -> None:
    """
    The provider took it, the answer came after the lease. Were it dropped, the visitor
    would read "failed" beside the e-mail in the inbox.
    """
    late = put_and_take(database, keyed=end != "uncertain")
    lose_worker(late)
    if end == "sending":
        take_again(late, worker="host/2")
    elif end in ("failed", "cancelled"):
        OutboundEmail.objects.using(database).update(
            state=end, settled_at=timezone.now(), uncertain_since=None
        )
    assert table(late).state == end

    lost = outbox.accept([answer(late, message_id="<late@p>")], using=database)

    stored = table(late)
    assert lost == []
    assert (stored.state, stored.message_id) == (State.ACCEPTED, "<late@p>")
    assert stored.uncertain_since is None
    assert stored.claim_id is None
    assert history(late)[-1] == "accepted:accepted"


def test_second_acceptance_without_an_id_does_not_wipe_the_first(database: str) -> None:
    """Two attempts in doubt were both accepted; the second answer was empty, and reports found no row."""
    first = put_and_take(database)
    lose_worker(first)
    second = take_again(first)
    outbox.accept([answer(first, message_id="<first@p>")], using=database)
    accepted_at = table(first).accepted_at

    outbox.accept([answer(second, message_id="")], using=database)

    stored = table(first)
    assert stored.message_id == "<first@p>"
    assert stored.accepted_at == accepted_at


def test_acceptance_of_a_deleted_row_is_lost_and_says_so(database: str) -> None:
    email = put_and_take(database)
    OutboundEmail.objects.using(database).all().delete()

    assert len(outbox.accept([answer(email)], using=database)) == 1


@pytest.mark.parametrize("verb", [outbox.reschedule, outbox.fail, outbox.doubt, outbox.withdraw])
def test_report_before_the_settling_beats_refusal_and_doubt(database: str, verb: delivery.Verb) -> None:
    """The webhook said "delivered" while the attempt still hung; then the attempt timed out."""
    email = put_and_take(database)
    outbox.note(email, "delivered", dedupe_key="d1", using=database)
    assert table(email).state == State.SENDING

    lost = verb([answer(email, NO_ANSWER, reason="late")], using=database)

    stored = table(email)
    assert lost == []
    assert (stored.state, stored.report) == (State.ACCEPTED, "delivered")
    assert stored.accepted_at is not None
    assert history(email) == ["claimed:sending", "delivered:sending", "accepted:accepted"]


def test_rows_in_memory_say_what_the_table_says(database: str) -> None:
    """Log lines and signals are written from the rows in memory."""
    verbs = [outbox.accept, outbox.reschedule, outbox.fail, outbox.doubt, outbox.withdraw]
    names = ("state", "strikes", "due_at", "reason", "epoch", "key_used_at", "settled_at", "uncertain_since")
    for verb in verbs:
        email = put_and_take(database)

        verb([answer(email, None if verb is outbox.accept else NOT_NOW)], using=database)

        stored = table(email)
        assert {n: getattr(email, n) for n in names} == {n: getattr(stored, n) for n in names}, verb


def test_nothing_to_settle_is_no_query(database: str) -> None:
    with CaptureQueriesContext(connections[database]) as queries:
        for verb in (outbox.accept, outbox.reschedule, outbox.fail, outbox.doubt, outbox.withdraw):
            assert verb([], using=database) == []

    assert len(queries) == 0


def test_expired_before_it_was_sent_is_cancelled_as_expired(database: str) -> None:
    email = put(database, expires_in=timedelta(minutes=5))
    let_time_pass(database, timedelta(minutes=6))

    ready = delivery.prepare(take_again(email))
    assert isinstance(ready, outbox.Result)
    delivery.settle([ready], using=database)

    stored = table(email)
    assert (stored.state, stored.reason) == (State.CANCELLED, "expired")


def test_expired_after_its_composer_failed_to_the_end_is_failed(database: str) -> None:
    """Nobody cancelled it: the site could not write it, and somebody should know."""
    email = put(database, expires_in=timedelta(minutes=5))
    ready = delivery.prepare(take_again(email))  # no composer of this kind exists
    assert isinstance(ready, outbox.Result)
    delivery.settle([ready], using=database)
    assert table(email).reason == "compose"
    let_time_pass(database, timedelta(minutes=6))

    too_late = delivery.prepare(take_again(email))
    assert isinstance(too_late, outbox.Result)
    delivery.settle([too_late], using=database)

    stored = table(email)
    assert (stored.state, stored.reason) == (State.FAILED, "compose")


def test_expired_in_doubt_is_uncertain_and_not_cancelled(database: str) -> None:
    """It may lie in the inbox: "not sent" would be a lie."""
    email = put_and_take(database, expires_in=timedelta(minutes=5))
    outbox.doubt([answer(email, NO_ANSWER)], using=database)
    let_time_pass(database, timedelta(minutes=6))

    too_late = delivery.prepare(take_again(email))
    assert isinstance(too_late, outbox.Result)
    delivery.settle([too_late], using=database)

    stored = table(email)
    assert (stored.state, stored.reason) == (State.UNCERTAIN, "expired")
