"""No answer: when it is repeated, with which key, and who ends the doubt."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from postroom import delivery, outbox
from postroom.exceptions import NotAllowed
from postroom.models import OutboundEmail, State
from tests.attempts import (
    KEY_KNOWN,
    NEVER,
    NO_ANSWER,
    NOT_NOW,
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


def doubted(database: str, **options: object) -> OutboundEmail:
    """An e-mail whose first attempt got no answer."""
    email = put_and_take(database, **options)
    outbox.doubt([answer(email, NO_ANSWER)], using=database)
    return email


def test_with_a_key_no_answer_is_repeated_with_the_same_key(database: str) -> None:
    """The provider recognises the repeat, so it may come soon, and must bear the same key."""
    email = put_and_take(database)
    key = email.idempotency_key

    outbox.doubt([answer(email, NO_ANSWER)], using=database)

    stored = table(email)
    assert (stored.state, stored.strikes) == (State.PENDING, 1)
    assert stored.uncertain_since is not None
    assert stored.due_at - timezone.now() <= timedelta(seconds=10)
    assert take_again(email).idempotency_key == key
    assert history(email) == ["claimed:sending", "doubted:pending", "claimed:sending"]


def test_repeat_is_planned_inside_the_window_of_the_key(database: str) -> None:
    """After many strikes the back-off alone would lie beyond what the provider remembers."""
    email = put_and_take(database)
    email.strikes = 20
    email.key_used_at = timezone.now() - timedelta(minutes=20)

    outbox.doubt([answer(email, NO_ANSWER)], using=database)

    stored = table(email)
    assert stored.state == State.PENDING
    assert stored.due_at <= email.key_used_at + timedelta(minutes=24)


def test_no_answer_after_the_window_of_the_key_is_uncertain(database: str) -> None:
    """Brevo forgets a key after half an hour: the same key would be a second e-mail then."""
    email = doubted(database)
    let_time_pass(database, timedelta(minutes=24, seconds=30))

    outbox.doubt([answer(take_again(email), NO_ANSWER)], using=database)

    stored = table(email)
    assert (stored.state, stored.settled_at is None) == (State.UNCERTAIN, False)
    assert history(email)[-1] == "doubted:uncertain"


def test_repeat_that_comes_too_late_is_not_sent_at_all(database: str) -> None:
    """All workers were down for an hour. The repeat they find is no longer a repeat to the provider."""
    email = doubted(database)
    let_time_pass(database, timedelta(minutes=26))

    ready = delivery.prepare(take_again(email))
    assert isinstance(ready, outbox.Result)
    delivery.settle([ready], using=database)

    stored = table(email)
    assert (stored.state, stored.strikes) == (State.UNCERTAIN, 1)


def test_definite_refusal_gives_the_next_attempt_a_new_key(database: str) -> None:
    """It is unknown whether a refusal registers the key: with the old one the repeat might be swallowed."""
    email = put_and_take(database)
    key = email.idempotency_key

    outbox.reschedule([answer(email, NOT_NOW)], using=database)

    stored = table(email)
    assert (stored.epoch, stored.key_used_at) == (1, None)
    assert stored.idempotency_key != key


def test_definite_refusal_of_a_repeat_in_doubt_keeps_the_key(database: str) -> None:
    """The first attempt may still have arrived: with a new key the third would be a second e-mail."""
    email = doubted(database)
    first = table(email)

    outbox.reschedule([answer(take_again(email), NOT_NOW)], using=database)

    stored = table(email)
    assert stored.idempotency_key == first.idempotency_key
    assert (stored.key_used_at, stored.uncertain_since) == (first.key_used_at, first.uncertain_since)
    assert stored.state == State.PENDING


@pytest.mark.parametrize("verb", [outbox.fail, outbox.withdraw])
def test_refusal_after_doubt_is_uncertain_and_never_failed(database: str, verb: delivery.Verb) -> None:
    """The page said "failed", the visitor asked for another one, and both were in the inbox."""
    email = doubted(database)

    verb([answer(take_again(email), NEVER, reason="verified")], using=database)

    stored = table(email)
    assert stored.state == State.UNCERTAIN
    assert stored.uncertain_since is not None
    assert history(email)[-1] == "doubted:uncertain"


def test_last_strike_in_doubt_is_uncertain(database: str) -> None:
    email = put_and_take(database)
    email.strikes = 23

    outbox.doubt([answer(email, NO_ANSWER)], using=database)

    stored = table(email)
    assert (stored.state, stored.strikes) == (State.UNCERTAIN, 24)


def test_known_key_after_doubt_means_accepted(database: str) -> None:
    """The provider says that it has this one already: the attempt without an answer had arrived."""
    email = doubted(database)

    delivery.settle([answer(take_again(email), KEY_KNOWN)], using=database)

    stored = table(email)
    assert (stored.state, stored.uncertain_since) == (State.ACCEPTED, None)
    assert history(email)[-1] == "accepted:accepted"


def test_known_key_without_doubt_is_repeated_with_a_new_one(database: str) -> None:
    """Only a refusal had used it before, so nothing was accepted: "sent" would be a lie."""
    email = put_and_take(database)

    delivery.settle([answer(email, KEY_KNOWN)], using=database)

    stored = table(email)
    assert (stored.state, stored.epoch) == (State.PENDING, 1)


def test_without_keys_hold_means_no_repeat(database: str) -> None:
    email = doubted(database, keyed=False, on_uncertain="hold")

    assert table(email).state == State.UNCERTAIN


def test_without_keys_repeat_means_once_and_after_ten_minutes(database: str) -> None:
    """Its link is the same, so a second copy does no harm; a third would only annoy."""
    email = doubted(database, keyed=False, on_uncertain="repeat")
    stored = table(email)
    assert stored.state == State.PENDING
    assert timedelta(minutes=9) < stored.due_at - timezone.now() <= timedelta(minutes=10)

    outbox.doubt([answer(take_again(email, keyed=False), NO_ANSWER)], using=database)

    assert table(email).state == State.UNCERTAIN


def test_no_answer_beyond_the_expiry_is_not_repeated(database: str) -> None:
    email = put_and_take(database, expires_in=timedelta(minutes=1))
    let_time_pass(database, timedelta(minutes=2))

    outbox.doubt([answer(table(email), NO_ANSWER)], using=database)

    assert table(email).state == State.UNCERTAIN


def test_results_with_and_without_a_repeat_settle_in_one_list(database: str) -> None:
    again, held = put_and_take(database, keyed=True), put_and_take(database, keyed=False)

    lost = outbox.doubt([answer(held, NO_ANSWER), answer(again, NO_ANSWER)], using=database)

    assert lost == []
    assert [table(held).state, table(again).state] == [State.UNCERTAIN, State.PENDING]


@pytest.mark.parametrize("report", ["requested", "delivered", "bounced", "verified"])
def test_report_ends_the_doubt(database: str, report: str) -> None:
    """Any of them proves that the provider had taken it."""
    email = doubted(database, keyed=False)

    outbox.note(email, report, using=database)

    stored = table(email)
    assert (stored.state, stored.uncertain_since, stored.report) == (State.ACCEPTED, None, report)
    assert history(email)[-1] == f"{report}:accepted"


def test_report_ends_the_doubt_of_a_row_that_waits_for_its_repeat(database: str) -> None:
    email = doubted(database)

    outbox.note(email, "delivered", using=database)

    assert table(email).state == State.ACCEPTED


def test_late_acceptance_ends_the_doubt(database: str) -> None:
    email = doubted(database, keyed=False)

    outbox.accept([answer(email, message_id="<late@p>")], using=database)

    assert table(email).state == State.ACCEPTED


def test_person_who_retries_accepts_a_second_copy(database: str) -> None:
    """A new key, a new budget, and no look at the window any more."""
    email = doubted(database, keyed=False)
    key = table(email).idempotency_key

    outbox.retry(table(email), actor="ada")

    stored = table(email)
    assert (stored.state, stored.strikes, stored.key_used_at) == (State.PENDING, 0, None)
    assert stored.idempotency_key != key
    assert history(email)[-1] == "retried:pending"


@pytest.mark.parametrize("verb", [outbox.fail, outbox.withdraw])
def test_refusal_after_a_retry_cannot_say_that_nothing_went_out(database: str, verb: delivery.Verb) -> None:
    """
    The first attempt got no answer, a person retried, the retry was refused. The first one may
    still lie in the inbox, so neither "failed" nor "cancelled" is known to be true.
    """
    email = doubted(database, keyed=False)
    outbox.retry(table(email))

    verb([answer(take_again(email), NEVER, reason="verified")], using=database)

    stored = table(email)
    assert (stored.state, stored.uncertain_since is None) == (State.UNCERTAIN, False)


def test_cancelling_after_a_retry_cannot_say_that_nothing_went_out(database: str) -> None:
    email = doubted(database, keyed=False)
    outbox.retry(table(email))

    with pytest.raises(NotAllowed):
        outbox.cancel(table(email))


def test_email_in_doubt_of_a_mailer_that_is_gone_ends_at_its_expiry(database: str) -> None:
    """A site changed its provider; rows in doubt of the old one were given to nobody, for ever."""
    email = put(database, expires_in=timedelta(hours=1))
    outbox.doubt([answer(take_again(email, mailer="gone"), NO_ANSWER)], using=database)
    let_time_pass(database, timedelta(hours=2))

    (taken,) = take(database, mailer="its successor")
    ready = delivery.prepare(taken)
    assert isinstance(ready, outbox.Result)
    delivery.settle([ready], using=database)

    stored = table(email)
    assert (stored.state, stored.reason, stored.mailer) == (State.UNCERTAIN, "expired", "gone")
    assert history(email)[-1] == "doubted:uncertain"


def test_email_in_doubt_of_a_mailer_that_is_gone_ends_with_its_key(database: str) -> None:
    """
    It waited for its expiry, a week, for a repeat that could not be any more. Meanwhile nobody could
    cancel or retry it, and its page said that we find out by ourselves.
    """
    email = put(database)
    outbox.doubt([answer(take_again(email, mailer="gone"), NO_ANSWER)], using=database)
    let_time_pass(database, timedelta(minutes=24))
    assert take(database, mailer="its successor") == []
    let_time_pass(database, timedelta(minutes=2))

    (taken,) = take(database, mailer="its successor")
    ready = delivery.prepare(taken)
    assert isinstance(ready, outbox.Result)
    delivery.settle([ready], using=database)

    assert (table(email).state, table(email).mailer) == (State.UNCERTAIN, "gone")
