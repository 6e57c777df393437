"""Taking e-mails back from workers that are gone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from postroom import outbox
from postroom.models import State
from tests.attempts import (
    NO_ANSWER,
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


def rescue(database: str, **options: int) -> list[outbox.OutboundEmail]:
    return outbox.rescue(worker="host/2", using=database, **options)


def test_claim_whose_lease_runs_is_left_alone(database: str) -> None:
    email = put_and_take(database)

    assert rescue(database) == []
    assert table(email).state == State.SENDING


def test_renewed_claim_is_left_alone(database: str) -> None:
    """A provider took five minutes, the worker lived, and the mail went out twice."""
    email = put_and_take(database)
    for _ in range(6):
        let_time_pass(database, timedelta(seconds=20))
        assert outbox.renew([email], using=database) == {email.pk}
        assert rescue(database) == []

    assert table(email).state == State.SENDING


def test_rescued_with_a_key_is_repeated_at_once_with_the_same_key(database: str) -> None:
    """The worker may have died one instruction after the provider took it."""
    email = put_and_take(database)

    stored = lose_worker(email)

    assert (stored.state, stored.losses, stored.strikes) == (State.PENDING, 1, 1)
    assert stored.uncertain_since is not None
    assert stored.due_at <= timezone.now() + timedelta(seconds=1)
    assert stored.idempotency_key == email.idempotency_key
    assert history(email) == ["claimed:sending", "rescued:pending"]


def test_rescued_without_keys_is_uncertain_or_repeated_once(database: str) -> None:
    hold = lose_worker(put_and_take(database, keyed=False))
    repeat = lose_worker(put_and_take(database, keyed=False, on_uncertain="repeat"))

    assert (hold.state, hold.reason) == (State.UNCERTAIN, "worker_lost")
    assert repeat.state == State.PENDING
    assert repeat.due_at > timezone.now() + timedelta(minutes=9)
    assert lose_worker(take_again(repeat, keyed=False)).state == State.UNCERTAIN


def test_rescued_after_a_report_is_accepted_and_not_sent_again(database: str) -> None:
    """The webhook was faster than the worker, which died before it could write the answer."""
    email = put_and_take(database)
    outbox.note(email, "delivered", dedupe_key="d", using=database)

    stored = lose_worker(email)

    assert (stored.state, stored.report, stored.uncertain_since) == (State.ACCEPTED, "delivered", None)
    assert stored.accepted_at is not None
    assert history(email)[-1] == "rescued:accepted"


def test_third_lost_worker_is_the_last(database: str) -> None:
    """What kills every worker would otherwise kill them for a week."""
    email = put(database)
    for losses in (1, 2):
        stored = lose_worker(take_again(email))
        assert (stored.state, stored.losses) == (State.PENDING, losses)

    stored = lose_worker(take_again(email))

    assert (stored.state, stored.losses, stored.reason) == (State.UNCERTAIN, 3, "worker_lost")


def test_retry_forgives_lost_workers(database: str) -> None:
    email = put(database)
    for _ in range(3):
        stored = lose_worker(take_again(email))

    outbox.retry(stored)

    assert take(database) == [email]


def test_rescue_beyond_the_window_of_the_key_is_uncertain(database: str) -> None:
    email = put_and_take(database)
    outbox.doubt([answer(email, NO_ANSWER)], using=database)
    take_again(email)
    let_time_pass(database, timedelta(minutes=25))

    rescue(database)

    assert table(email).state == State.UNCERTAIN


def test_rescue_of_an_expired_one_is_uncertain(database: str) -> None:
    email = put_and_take(database, expires_in=timedelta(minutes=1))
    let_time_pass(database, timedelta(minutes=2))

    rescue(database)

    assert table(email).state == State.UNCERTAIN


def test_rescue_takes_no_more_than_its_limit_and_the_oldest_first(database: str) -> None:
    first = put_and_take(database)
    let_time_pass(database, timedelta(seconds=5))
    later = [put_and_take(database), put_and_take(database)]
    let_time_pass(database, timedelta(minutes=1))

    assert rescue(database, limit=1) == [first]
    assert set(rescue(database)) == set(later)
    assert rescue(database) == []


def test_rescued_rows_in_memory_say_what_the_table_says(database: str) -> None:
    email = put_and_take(database)
    let_time_pass(database, timedelta(minutes=1))

    (rescued,) = rescue(database)

    stored = table(email)
    names = ("state", "claim_id", "lease_expires_at", "losses", "strikes", "due_at", "uncertain_since")
    assert {n: getattr(rescued, n) for n in names} == {n: getattr(stored, n) for n in names}
