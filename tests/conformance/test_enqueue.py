"""The promise: one INSERT in the caller's transaction."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from postroom import doorbell, outbox
from postroom.models import DeliveryEvent, Lane, OutboundEmail, State
from tests.attempts import history, let_time_pass, put, table, take

pytestmark = pytest.mark.django_db(databases=["default", "postgres", "mariadb"])


def test_promise_costs_exactly_one_insert(database: str) -> None:
    """A visitor waits for this. A second query, or a look at a broker, would be paid by everybody."""
    with CaptureQueriesContext(connections[database]) as queries:
        put(database)

    assert len(queries) == 1
    assert queries[0]["sql"].startswith("INSERT")


def test_promise_is_pending_and_due_at_once(database: str) -> None:
    email = table(put(database))

    assert email.state == State.PENDING
    assert email.due_at <= timezone.now() + timedelta(seconds=1)
    assert email.attempt == email.strikes == email.epoch == 0
    assert history(email) == []
    assert take(database) == [email]


def test_promise_in_memory_says_what_the_table_says(database: str) -> None:
    """It is put together from what was written, and not read again: what it leaves out must be the same there."""
    email = put(database, lane="urgent", due_at=timezone.now() + timedelta(minutes=1))

    stored = table(email)
    names = {field.attname for field in OutboundEmail._meta.concrete_fields} - {"created_at", "expires_at"}
    assert {name: getattr(email, name) for name in names} == {name: getattr(stored, name) for name in names}
    assert email.expires_at == stored.expires_at == email.due_at + timedelta(days=7)
    assert (email._state.db, email._state.adding) == (database, False)


def test_rollback_leaves_nothing(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account was rolled back and its verification mail went out all the same."""
    rung: list[str] = []
    monkeypatch.setattr(doorbell, "ring", rung.append)

    with transaction.atomic(using=database):
        put(database)
        transaction.set_rollback(True, using=database)

    assert not OutboundEmail.objects.using(database).exists()
    assert not DeliveryEvent.objects.using(database).exists()
    assert rung == []


@pytest.mark.django_db(databases=["default", "postgres", "mariadb"], transaction=True)
def test_bell_rings_after_the_commit_and_not_before(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is woken inside the transaction finds nothing and goes to sleep again."""
    rung: list[str] = []
    monkeypatch.setattr(doorbell, "ring", rung.append)

    with transaction.atomic(using=database):
        put(database)
        before = list(rung)

    assert before == []
    assert rung == [database]


@pytest.mark.django_db(databases=["default", "postgres", "mariadb"], transaction=True)
def test_bell_that_breaks_does_not_break_the_request(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transaction has committed: an exception now would show an error page for what is done."""

    def broken(using: str) -> None:
        raise ConnectionError(using)

    monkeypatch.setattr(doorbell, "ring", broken)

    email = put(database)

    assert table(email).state == State.PENDING


def test_promise_remembers_language_zone_and_arguments(database: str) -> None:
    with translation.override("de"), timezone.override("Asia/Dhaka"):
        email = outbox.enqueue("tests.letter", {"name": "Ünïcode", "ids": [1, None]}, using=database)

    stored = table(email)
    assert (stored.language, stored.time_zone) == ("de", "Asia/Dhaka")
    assert stored.args == {"name": "Ünïcode", "ids": [1, None]}


def test_promise_for_later_waits_until_then(database: str) -> None:
    put(database, due_at=timezone.now() + timedelta(hours=1))

    assert take(database) == []


def test_lanes_may_be_named_or_numbered(database: str) -> None:
    assert table(put(database, lane="urgent")).lane == Lane.URGENT
    assert table(put(database, lane=Lane.BULK)).lane == Lane.BULK
    with pytest.raises(KeyError):
        put(database, lane="express")


def test_expiry_is_an_instant_or_a_duration_or_a_week(database: str) -> None:
    now = timezone.now()
    instant = now + timedelta(hours=3)

    assert table(put(database, expires_at=instant)).expires_at == instant
    assert table(put(database, expires_in=timedelta(hours=1))).expires_at - now < timedelta(hours=1.1)
    assert table(put(database)).expires_at - now >= timedelta(days=7)


def test_promise_for_next_month_does_not_expire_before_it_is_due(database: str) -> None:
    """It was withdrawn unsent in the moment in which it became due: its week had begun with the promise."""
    now = timezone.now()
    email = put(database, due_at=now + timedelta(days=30), expires_in=timedelta(days=2))
    assert email.expires_at == table(email).expires_at == now + timedelta(days=32)

    let_time_pass(database, timedelta(days=30, minutes=1))
    (taken,) = take(database)

    assert not taken.is_expired()


def test_promise_that_was_due_before_it_was_made_lives_from_now_on(database: str) -> None:
    """A reminder a week before something that is tomorrow."""
    now = timezone.now()

    email = put(database, due_at=now - timedelta(days=6), expires_in=timedelta(days=2))

    assert table(email).expires_at - now >= timedelta(days=1.9)
