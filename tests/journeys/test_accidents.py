"""What happens to the mail when something happens to a worker."""

from __future__ import annotations

import signal
import sys
from collections import Counter

import pytest
from django.db import connections, transaction

from postroom import outbox
from postroom.models import DeliveryEvent, EventType, OutboundEmail, State, WorkerHeartbeat
from tests.journeys.judging import assert_sound
from tests.journeys.stage import ALIAS, Stage, eventually, start

pytestmark = pytest.mark.timeout(180)


def hello(number: int) -> OutboundEmail:
    return outbox.enqueue("journey.hello", {"number": number}, using=ALIAS)


def test_worker_killed_while_it_composes_loses_nothing(stage: Stage) -> None:
    """The row is claimed, its message half written; nobody can say so any more."""
    marker = stage.folder / "writing"
    marker.touch()
    outbox.enqueue("journey.slow_to_write", {"marker": str(marker)}, using=ALIAS)
    worker = stage.worker()
    eventually("it is being written", marker.with_suffix(".begun").exists)

    worker.kill()
    marker.unlink()
    stage.worker()
    eventually("everything is settled", stage.all_settled)

    assert len(stage.provider.accepted()) == 1
    assert [email.state for email in stage.emails().values()] == [State.ACCEPTED]
    assert_sound(stage)


def test_worker_killed_while_it_waits_for_the_provider_sends_once(stage: Stage) -> None:
    """
    The provider has taken the e-mail and is about to answer when the worker dies. The repeat goes
    out with the same key; the provider refuses it, and that proves that the first had arrived.
    """
    stage.provider.mood(seconds=30)
    hello(1)
    worker = stage.worker()
    eventually("the provider has it", stage.provider.calls)

    worker.kill()
    stage.provider.mood("instant")
    stage.worker()
    eventually("everything is settled", stage.all_settled)

    calls = stage.provider.calls()
    assert [call["outcome"] for call in calls] == ["accepted", "duplicate_parameter"]
    assert len({call["key"] for call in calls}) == 1
    (email,) = stage.emails().values()
    assert email.state == State.ACCEPTED
    assert email.losses == 1
    assert_sound(stage)


def test_worker_killed_before_the_provider_took_it_sends_once(stage: Stage) -> None:
    """The same from outside, but the provider never took the first: the repeat is the only one."""
    stage.provider.mood("hangs")
    hello(1)
    worker = stage.worker()
    eventually("the provider was asked", stage.provider.calls)

    worker.kill()
    stage.provider.mood("instant")
    stage.worker()
    eventually("everything is settled", stage.all_settled)

    assert len(stage.provider.accepted()) == 1
    assert_sound(stage)


def test_worker_killed_after_acceptance_before_it_could_write_it(stage: Stage) -> None:
    """The answer is in its memory; the table is locked by somebody else; then it dies."""
    stage.provider.mood(seconds=0.5)
    hello(1)
    worker = stage.worker(JOURNEY_LEASE="1.5")
    eventually("the provider has it", stage.provider.calls)
    with transaction.atomic(using=ALIAS):
        list(OutboundEmail.objects.using(ALIAS).select_for_update())
        eventually("the answer was heard", lambda: stage.provider.calls()[0]["answered"])
        worker.kill()

    stage.worker()
    eventually("everything is settled", stage.all_settled)

    assert len(stage.provider.accepted()) == 1
    assert [email.state for email in stage.emails().values()] == [State.ACCEPTED]
    assert_sound(stage)


def test_two_workers_send_three_hundred_e_mails_once_each(stage: Stage) -> None:
    """Both look at the same rows at the same moment, again and again."""
    stage.provider.mood(seconds=0.01)
    for number in range(300):
        hello(number)

    # Nobody dies here: on a machine that stands still for a second nobody is to be taken for dead.
    for _ in range(2):
        stage.worker(JOURNEY_LEASE="60")
    eventually("everything is settled", stage.all_settled)

    accepted = Counter(stage.provider.accepted())
    assert set(accepted) == set(stage.emails())
    assert set(accepted.values()) == {1}
    assert len(stage.provider.calls()) == 300
    assert DeliveryEvent.objects.using(ALIAS).filter(type=EventType.CLAIMED).count() == 300
    assert_sound(stage)


def test_frozen_worker_that_comes_back_with_a_refusal_is_not_believed(stage: Stage) -> None:
    """
    Frozen beyond its lease, it was told 503. Meanwhile another one has sent the e-mail. Its late
    "try again later" must not put an accepted e-mail back into the queue.
    """
    stage.provider.mood("5xx", seconds=12)
    hello(1)
    frozen = stage.worker()
    eventually("it has asked", stage.provider.calls)
    stage.freeze(frozen)
    stage.provider.mood("instant")
    stage.worker()
    eventually("another one has sent it", stage.all_settled)

    frozen.signal(signal.SIGCONT)
    eventually("its result was dropped", lambda: "claim_lost" in frozen.said())

    (email,) = stage.emails().values()
    assert email.state == State.ACCEPTED
    assert len(stage.provider.accepted()) == 1
    assert_sound(stage)


def test_frozen_worker_that_comes_back_with_an_acceptance_is_believed(stage: Stage) -> None:
    """
    Frozen beyond its lease, it had been told 201. The second worker cannot find that out, for
    the provider hangs. The late acceptance is evidence, and evidence wins.
    """
    stage.provider.mood(seconds=12)
    hello(1)
    frozen = stage.worker()
    eventually("the provider has it", stage.provider.accepted)
    stage.freeze(frozen)
    stage.provider.mood("hangs")
    stage.worker()
    eventually("the second one asks", lambda: len(stage.provider.calls()) == 2)

    frozen.signal(signal.SIGCONT)
    eventually("the acceptance was written", stage.all_settled)

    (email,) = stage.emails().values()
    assert email.state == State.ACCEPTED
    assert email.message_id
    assert len(stage.provider.accepted()) == 1
    assert_sound(stage)


def test_rollback_leaves_nothing(stage: Stage) -> None:
    """The order was not written, so its confirmation must not exist either: no row, no event, no call."""
    stage.worker()
    with transaction.atomic(using=ALIAS):
        hello(1)
        transaction.set_rollback(True, using=ALIAS)

    hello(2)
    eventually("the next one is sent", lambda: stage.emails() and stage.all_settled())

    assert [call["subject"] for call in stage.provider.calls()] == ["Hello 2"]
    assert OutboundEmail.objects.using(ALIAS).count() == 1
    assert set(DeliveryEvent.objects.using(ALIAS).values_list("email_id", flat=True)) == {
        OutboundEmail.objects.using(ALIAS).get().pk
    }
    assert_sound(stage)


def test_one_poisonous_e_mail_delays_nobody_and_is_not_lost(stage: Stage) -> None:
    """The first in the queue cannot be written, the twenty behind it can."""
    poison = outbox.enqueue("journey.poison", lane="urgent", using=ALIAS)
    unknown = outbox.enqueue("journey.not_in_this_version", lane="urgent", using=ALIAS)
    others = [hello(number) for number in range(20)]

    worker = stage.worker()
    eventually("the others are sent", lambda: len(set(stage.provider.accepted())) == 20)

    assert set(stage.provider.accepted()) == {str(email.uuid) for email in others}
    for email in (poison, unknown):
        email.refresh_from_db()
        assert email.state == State.PENDING
        assert email.reason == "compose"
        assert email.strikes == 0
    assert worker.popen.poll() is None
    assert worker.said().count("compose failed") == 2


def test_fifty_sends_in_flight_need_two_database_connections(stage_on_postgresql: Stage) -> None:
    """
    One connection a send would exhaust PostgreSQL. A receiver of the site opens one in each
    sending thread at the end of the first wave; with the second wave in flight none is left.
    """
    stage = stage_on_postgresql
    stage.provider.mood(seconds=8)
    for number in range(100):  # urgent ones: a tenth of the slots takes no others
        outbox.enqueue("journey.hello", {"number": number}, lane="urgent", using=ALIAS)
    worker = stage.worker("--concurrency", "50", JOURNEY_LEASE="60")

    for wave in (50, 100):
        eventually(f"{wave} have been asked for", lambda wave=wave: len(stage.provider.calls()) >= wave)
        eventually(
            "the worker is idle", lambda: WorkerHeartbeat.objects.using(ALIAS).filter(in_hand=50).exists()
        )
        assert connections_of_others(stage) <= 2

    eventually("all are sent", stage.all_settled)
    assert worker.popen.poll() is None
    assert len(set(stage.provider.accepted())) == 100
    assert_sound(stage)


def connections_of_others(stage: Stage) -> int:
    """Return how many connections there are to the database of the stage beside this test's."""
    own = connections[ALIAS]
    own.ensure_connection()
    with own.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return int(cursor.fetchone()[0])


def test_sigterm_finishes_what_is_in_hand_and_says_goodbye(stage: Stage) -> None:
    """A deployment must not turn e-mails in flight into doubts."""
    stage.provider.mood(seconds=1.5)
    for number in range(20):
        hello(number)
    worker = stage.worker(JOURNEY_LEASE="60")
    eventually("some are in flight", lambda: len(stage.provider.calls()) >= 8)

    worker.signal(signal.SIGTERM)

    assert worker.ended() == 0
    states = Counter(email.state for email in stage.emails().values())
    assert states[State.SENDING] == 0
    assert states[State.ACCEPTED] == len(stage.provider.accepted()) >= 8
    assert all(email.uncertain_since is None for email in stage.emails().values())
    beat = WorkerHeartbeat.objects.using(ALIAS).get()
    assert beat.stopped_at
    assert beat.stop_reason == "SIGTERM"

    stage.worker()
    eventually("the rest is settled", stage.all_settled)
    assert_sound(stage)


@pytest.mark.parametrize("stage", ["sqlite", "postgresql"], indirect=True)
def test_commit_wakes_an_idle_worker_long_before_its_next_look(stage: Stage) -> None:
    """
    The worker looks by itself once in ten minutes here: only NOTIFY or data_version can wake it.
    (MariaDB has neither. Without Celery's doorbell its workers look every POLL_INTERVAL_SECONDS.)
    The process that enqueues ends at once; the ring it owes must not end with it. (It waits for it for
    half a second, which is not enough to connect to a database where this machine is busy.)
    """
    stage.provider.mood("instant")
    stage.worker(JOURNEY_POLL="600")
    eventually("it is idle", lambda: WorkerHeartbeat.objects.using(ALIAS).filter(doing="idle").exists())

    script = (
        "import django; django.setup(); import postroom; from postroom import doorbell\n"
        "doorbell.LAST_TRY_SECONDS = 30\n"
        "postroom.enqueue('journey.hello', {'number': 1})"
    )
    short = start(stage.folder / "short.log", [sys.executable, "-c", script], stage.environment)
    stage.processes.append(short)

    assert short.ended() == 0, short.said()
    eventually("it was sent", stage.all_settled)
    assert_sound(stage)


def test_send_that_outlives_its_lease_is_not_repeated_while_its_worker_lives(stage: Stage) -> None:
    """The provider takes half as long again as a lease; another worker stands by and would repeat it."""
    stage.provider.mood(seconds=12)
    hello(1)

    for _ in range(2):
        stage.worker(JOURNEY_LEASE="8")
    eventually("it is settled", stage.all_settled)

    assert len(stage.provider.calls()) == 1
    (email,) = stage.emails().values()
    assert (email.attempt, email.losses) == (1, 0)
    assert_sound(stage)


def test_attempt_that_hangs_for_ever_is_in_doubt_and_its_slot_is_replaced(stage: Stage) -> None:
    """One slot, one provider that never answers: the e-mail behind it must go out all the same."""
    stage.provider.mood("hangs", next=1)
    hello(1)
    stage.worker("--concurrency", "1", JOURNEY_ATTEMPT="1.5")
    eventually("the provider was asked", stage.provider.calls)

    hello(2)
    eventually("both are settled", stage.all_settled)

    assert sorted(stage.provider.accepted()) == sorted(stage.emails())
    first = stage.provider.calls()[0]
    again = [call for call in stage.provider.calls() if call["email"] == first["email"]]
    assert len(again) > 1
    assert {call["key"] for call in again} == {first["key"]}
    assert_sound(stage)


def test_in_development_the_web_process_delivers_while_no_worker_is_heard_of(stage: Stage) -> None:
    """Minute one of a new site: DEBUG, no worker. The mail must come, and one line must say who sent it."""
    stage.provider.mood("instant")
    script = (
        "import django, time; django.setup()\n"
        "from django.core.signals import request_started\n"
        "from postroom import enqueue\n"
        "from postroom.models import OutboundEmail\n"
        "request_started.send(sender=None)\n"
        "email = enqueue('journey.hello', {'number': 1})\n"
        "while not OutboundEmail.objects.get(pk=email.pk).is_settled: time.sleep(0.05)\n"
    )

    web = start(
        stage.folder / "web.log", [sys.executable, "-c", script], {**stage.environment, "JOURNEY_DEBUG": "1"}
    )
    stage.processes.append(web)

    assert web.ended() == 0
    assert stage.provider.accepted() == list(stage.emails())
    assert web.said().count("no worker is heard of") == 1
    assert_sound(stage)
