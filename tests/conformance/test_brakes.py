"""What holds mail back on purpose, and what it must not hold back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from postroom import outbox
from postroom.brakes import AT_ONCE, deserted
from postroom.models import DeliveryEvent, EventType, OutboundEmail, Pause, State, WorkerHeartbeat
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
from tests.operations import beat

HOURS = timedelta(hours=7)
"""Longer than STALE_AFTER_SECONDS."""

pytestmark = pytest.mark.django_db(databases=["default", "postgres", "mariadb"])


def test_nothing_is_claimed_while_paused(database: str) -> None:
    """At three in the morning every mail carried the wrong price; stopping the servers stopped the shop."""
    email = put(database)

    outbox.pause(actor="ada", reason="wrong price", using=database)

    assert take(database, 10) == []
    assert take(database, 10, urgent_only=True) == []
    assert take(database, 10, alone=True) == []
    assert take(database, only=email.pk) == []
    assert table(email).state == State.PENDING


def test_what_is_in_flight_when_somebody_pauses_is_finished(database: str) -> None:
    """Its mail has left already: not to write the answer down would be to forget it."""
    email = put_and_take(database)

    outbox.pause(actor="ada", using=database)

    assert outbox.renew([email], using=database) == {email.pk}
    assert outbox.accept([answer(email)], using=database) == []
    assert table(email).state == State.ACCEPTED


def test_lost_worker_is_noticed_while_paused(database: str) -> None:
    email = put_and_take(database)
    outbox.pause(actor="ada", using=database)

    assert lose_worker(email).state == State.PENDING
    assert take(database) == []


def test_mail_goes_on_after_the_pause(database: str) -> None:
    outbox.pause(actor="ada", using=database)
    email = put(database)

    assert outbox.resume(actor="ada", using=database)

    assert outbox.paused(database) is None
    assert take(database) == [email]
    assert not outbox.resume(actor="ada", using=database)


def test_second_pause_is_the_first_one(database: str) -> None:
    """The page says since when: it must not begin anew because somebody else pressed the button, too."""
    first = outbox.pause(actor="ada", reason="wrong price", using=database)

    again = outbox.pause(actor="bob", using=database)

    assert again == first == outbox.paused(database)
    assert (again.actor, again.reason) == ("ada", "wrong price")
    with pytest.raises(IntegrityError), transaction.atomic(using=database):
        Pause.objects.using(database).create(id=2, actor="bob")


def test_pause_costs_the_claim_no_statement(database: str) -> None:
    """
    Asked beforehand, a pause that commits between the question and the claim would be overtaken:
    the statement that takes the rows has to ask.
    """
    put(database)

    with CaptureQueriesContext(connections[database]) as queries:
        take(database)

    asking = [query["sql"] for query in queries if "postroom_pause" in query["sql"]]
    assert len(asking) == 1
    assert "postroom_outboundemail" in asking[0]


def test_claim_of_what_is_overdue_leaves_what_has_just_become_due(database: str) -> None:
    """The step inside a Celery worker is the fallback: it must not compete with the tasks."""
    now = timezone.now()
    put(database, due_at=now - timedelta(minutes=3))
    overdue = put(database, due_at=now - timedelta(minutes=8))

    assert take(database, 10, overdue=timedelta(minutes=5)) == [overdue]


# --- the guard after a restored backup ----------------------------------------------------------


def restored(database: str, **options: object) -> OutboundEmail:
    """An e-mail of a backup: its worker was heard just before, and it was due then."""
    beat(heard=HOURS, using=database)
    return put(database, due_at=timezone.now() - HOURS, **options)


def test_restored_backup_sends_nothing_a_second_time(database: str) -> None:
    """A backup of last week was restored, and everything of last week went out a second time."""
    old = restored(database)
    fresh = put(database)

    assert outbox.set_aside_stale(worker="host/2", using=database) == 1

    assert take(database, 10) == [fresh]
    stored = table(old)
    assert (stored.state, stored.reason, stored.due_at) == (State.PENDING, "stale", stored.expires_at)
    assert history(old) == ["set_aside:pending"]
    event = old.events.using(database).get()
    assert "host/2" in event.detail


def test_what_was_set_aside_goes_out_at_a_persons_word(database: str) -> None:
    old = restored(database)
    outbox.set_aside_stale(worker="host/2", using=database)

    assert outbox.release_stale(actor="ada", using=database) == 1

    assert take(database, 10) == [old]
    assert history(old) == ["set_aside:pending", "released:pending", "claimed:sending"]
    assert DeliveryEvent.objects.using(database).get(type="released").actor == "ada"
    assert outbox.release_stale(actor="ada", using=database) == 0


def test_what_was_set_aside_is_claimed_when_it_expires_so_that_it_ends(database: str) -> None:
    """What the guard held back for ever would stay "pending" on a page for ever."""
    old = restored(database)
    outbox.set_aside_stale(worker="host/2", using=database)

    let_time_pass(database, timedelta(days=8))

    (taken,) = take(database, 10)
    assert taken == old
    assert taken.is_expired()


def test_backlog_beside_a_living_worker_is_not_set_aside(database: str) -> None:
    """The provider was away for a night. Setting aside what waited for it would have stranded all of it."""
    restored(database)
    beat("host/9", heard=timedelta(hours=1), using=database)

    assert outbox.set_aside_stale(worker="host/2", using=database) == 0


def test_worker_that_comes_back_under_its_old_name_sets_its_own_backlog_not_aside(database: str) -> None:
    """In a container every incarnation is called web/1: that it was heard an hour ago is no self-deception."""
    beat("web/1", heard=timedelta(hours=1), using=database)
    put(database, due_at=timezone.now() - HOURS)

    assert outbox.set_aside_stale(worker="web/1", using=database) == 0


def test_attempt_within_hours_proves_life_where_no_heartbeat_does(database: str) -> None:
    """Heartbeats are forgotten after a week, and a task of Celery's writes none."""
    put_and_take(database)
    restored(database)

    assert outbox.set_aside_stale(worker="host/2", using=database) == 0
    DeliveryEvent.objects.using(database).update(at=timezone.now() - HOURS)
    WorkerHeartbeat.objects.using(database).all().delete()
    assert outbox.set_aside_stale(worker="host/2", using=database) == 1


def test_very_first_worker_sends_what_has_waited_for_it(database: str) -> None:
    """Nobody had started a worker for two days. None of these can have been sent, so nothing is doubtful."""
    email = put(database, due_at=timezone.now() - timedelta(days=2))

    assert not deserted(database)
    assert outbox.set_aside_stale(worker="host/1", using=database) == 0
    assert take(database) == [email]


def test_expired_e_mail_of_a_backup_ends_at_once(database: str) -> None:
    expired = restored(database)
    OutboundEmail.objects.using(database).update(expires_at=timezone.now() - timedelta(hours=1))

    assert outbox.set_aside_stale(worker="host/2", using=database) == 0
    assert take(database) == [expired]


@pytest.mark.parametrize(("keyed", "aside"), [(True, 0), (False, 1)])
def test_attempt_in_doubt_of_a_backup_is_not_repeated(database: str, keyed: bool, aside: int) -> None:
    """With a key it is far outside its window and becomes uncertain now; without, its repeat is set aside."""
    email = put_and_take(database, keyed=keyed, on_uncertain="repeat")
    outbox.doubt([answer(email, NO_ANSWER)], using=database)
    let_time_pass(database, HOURS)
    beat(heard=HOURS, using=database)

    assert outbox.set_aside_stale(worker="host/2", using=database) == aside

    if keyed:
        assert outbox.key_has_expired(take_again(email))
    else:
        assert take(database, keyed=False) == []


def test_large_backup_is_set_aside_in_several_transactions(database: str) -> None:
    """A million rows in one transaction would keep SQLite's write lock for a minute."""
    restored(database)
    template = OutboundEmail.objects.using(database).get()
    copies = [
        OutboundEmail(kind=template.kind, due_at=template.due_at, expires_at=template.expires_at)
        for _ in range(AT_ONCE)
    ]
    OutboundEmail.objects.using(database).bulk_create(copies)

    assert outbox.set_aside_stale(worker="host/2", using=database) == AT_ONCE + 1

    assert DeliveryEvent.objects.using(database).filter(type=EventType.SET_ASIDE).count() == AT_ONCE + 1
    assert outbox.release_stale(actor="ada", using=database) == AT_ONCE + 1
