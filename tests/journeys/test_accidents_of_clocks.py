"""
One host's clock is an hour fast, or an hour slow. Where there is a database server, its clock judges.

On SQLite there is one host and so one clock.
"""

from __future__ import annotations

import signal
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from django.utils import timezone

from postroom import outbox, testing
from postroom.models import DeliveryEvent, EventType, OutboundEmail, State, WorkerHeartbeat
from tests.journeys.judging import assert_sound
from tests.journeys.stage import ALIAS, Process, Stage, eventually
from tests.journeys.webs import start_endless_web, start_web

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.parametrize("stage", ["postgresql"], indirect=True),
    pytest.mark.parametrize("ahead", ["3600", "-3600"], ids=["fast", "slow"]),
]

PROMPT_SECONDS = 90
"""Longer than any wait of an honest clock here, on a busy machine; an hour is far away."""


@pytest.fixture
def stage(stage: Stage) -> Stage:
    """The stage, whose processes may have a wrong clock."""
    stage.environment["DJANGO_SETTINGS_MODULE"] = "tests.journeys.perils.site"
    return stage


def hello(number: int = 1, **options: object) -> OutboundEmail:
    return outbox.enqueue("journey.hello", {"number": number}, using=ALIAS, **options)  # type: ignore[arg-type]


def settled(stage: Stage) -> None:
    eventually("everything is settled", stage.all_settled, seconds=PROMPT_SECONDS)


def put_in_doubt(stage: Stage) -> Process:
    """Let an honest worker send, the provider take it and say nothing, and the worker die."""
    stage.provider.mood("takes-it-and-drops", seconds=120)
    worker = stage.worker()
    eventually("the provider has it", stage.provider.accepted)
    worker.kill()
    stage.provider.mood("instant")
    return worker


def test_worker_with_a_wrong_clock_beside_an_honest_one_sends_each_e_mail_once(
    stage: Stage, ahead: str
) -> None:
    """Refusals, doubts and a killed worker go to and fro between the two of them."""
    stage.worker(JOURNEY_CLOCK=ahead)
    honest = stage.worker()
    web = start_endless_web(stage)
    eventually("mail flows", lambda: len(stage.provider.accepted()) >= 10)
    stage.provider.mood("5xx", seconds=0.1, next=10)
    eventually("some were refused", lambda: any(call["status"] == 503 for call in stage.provider.calls()))
    stage.provider.mood("takes-it-and-drops", seconds=0.1, next=10)
    eventually("some had no answer", lambda: any(c["answered"] is False for c in stage.provider.calls()))
    honest.kill()
    promised = web.ended()
    settled(stage)

    judgement = assert_sound(stage, promised)
    assert judgement.states == {State.ACCEPTED: len(promised)}
    assert Counter(stage.provider.accepted()) == Counter(promised)


def test_nothing_expires_early_because_the_clock_of_the_worker_is_wrong(stage: Stage, ahead: str) -> None:
    promised = [hello(expires_in=timedelta(minutes=30))]

    stage.worker(JOURNEY_CLOCK=ahead)
    settled(stage)

    assert assert_sound(stage, promised).states == {State.ACCEPTED: 1}


def test_nothing_expires_early_because_the_clock_of_the_web_is_wrong(stage: Stage, ahead: str) -> None:
    """Half an hour is meant from now on, whatever the time is for whoever says so."""
    promised = start_web(stage, 1, JOURNEY_CLOCK=ahead, JOURNEY_LIFE="1800").finished()
    [email] = stage.emails().values()

    stage.worker()
    settled(stage)

    assert assert_sound(stage, promised).states == {State.ACCEPTED: 1}
    assert timedelta(minutes=29) < email.expires_at - DeliveryEvent.objects.using(ALIAS).first().at
    assert email.expires_at - DeliveryEvent.objects.using(ALIAS).first().at < timedelta(minutes=31)


def test_what_has_expired_is_not_sent_because_the_clock_of_the_worker_is_wrong(
    stage: Stage, ahead: str
) -> None:
    """It would bring a link that is dead already."""
    promised = [hello(expires_in=timedelta(minutes=30))]
    testing.let_time_pass(timedelta(minutes=35), using=ALIAS)

    stage.worker(JOURNEY_CLOCK=ahead)
    settled(stage)

    assert assert_sound(stage, promised).states == {State.CANCELLED: 1}
    assert stage.provider.calls() == []


def test_attempt_in_doubt_is_repeated_inside_the_window_of_its_key(stage: Stage, ahead: str) -> None:
    """Five minutes after the first use; a clock that is fast would say that it is too late."""
    promised = [hello()]
    put_in_doubt(stage)
    testing.let_time_pass(timedelta(minutes=5), using=ALIAS)

    stage.worker(JOURNEY_CLOCK=ahead)
    settled(stage)

    assert [call["outcome"] for call in stage.provider.calls()] == ["accepted", "duplicate_parameter"]
    assert assert_sound(stage, promised).states == {State.ACCEPTED: 1}


def test_attempt_in_doubt_is_not_repeated_when_its_key_is_too_old(stage: Stage, ahead: str) -> None:
    """Forty minutes: the provider has forgotten the key and would send again. A slow clock says five to."""
    promised = [hello()]
    put_in_doubt(stage)
    testing.let_time_pass(timedelta(minutes=40), using=ALIAS)

    stage.worker(JOURNEY_CLOCK=ahead)
    settled(stage)

    assert len(stage.provider.calls()) == 1
    assert assert_sound(stage, promised).states == {State.UNCERTAIN: 1}


def test_repeat_that_was_planned_is_given_up_when_its_key_has_become_too_old(
    stage: Stage, ahead: str
) -> None:
    """Rescued in time, and then nobody delivered for forty minutes."""
    promised = [hello()]
    put_in_doubt(stage)
    stage.provider.mood("hangs")
    testing.let_time_pass(timedelta(seconds=5), using=ALIAS)
    assert [email.state for email in outbox.rescue(worker="test/1", using=ALIAS)] == [State.PENDING]
    testing.let_time_pass(timedelta(minutes=40), using=ALIAS)

    stage.worker(JOURNEY_CLOCK=ahead)
    settled(stage)

    assert len(stage.provider.calls()) == 1
    assert assert_sound(stage, promised).states == {State.UNCERTAIN: 1}


def test_wait_after_a_refusal_is_neither_skipped_nor_an_hour_longer(stage: Stage, ahead: str) -> None:
    """The provider asks for two seconds; a worker whose clock is slow must not call again at once."""
    promised = [hello()]
    stage.provider.mood("429", seconds=0, reset=2, next=2)

    stage.worker(JOURNEY_CLOCK=ahead)
    settled(stage)

    calls = [datetime.fromisoformat(call["at"]) for call in stage.provider.calls()]
    assert len(calls) == 3
    assert all(later - earlier > timedelta(seconds=1.9) for earlier, later in pairwise(calls))
    assert assert_sound(stage, promised).states == {State.ACCEPTED: 1}


def test_living_worker_is_not_robbed_by_one_whose_clock_is_wrong(stage: Stage, ahead: str) -> None:
    """The provider takes longer than a lease; to whom it is an hour later, each of them is over."""
    stage.provider.mood(seconds=12)
    stage.environment["JOURNEY_LEASE"] = "8"
    promised = [hello()]
    stage.worker()
    eventually("the provider has it", stage.provider.calls)

    stage.worker(JOURNEY_CLOCK=ahead)
    settled(stage)

    assert len(stage.provider.calls()) == 1
    assert assert_sound(stage, promised).rescued == 0


def test_dead_worker_is_missed_at_once_by_one_whose_clock_is_wrong(stage: Stage, ahead: str) -> None:
    """What it had in hand goes out again when the lease is over, and not an hour later."""
    promised = [hello(number) for number in range(8)]
    stage.provider.mood("hangs")
    dead = stage.worker()
    eventually("all are in flight", lambda: len(stage.provider.calls()) == 8)

    dead.kill()
    stage.provider.mood("instant")
    stage.worker(JOURNEY_CLOCK=ahead)
    settled(stage)

    judgement = assert_sound(stage, promised)
    assert (judgement.rescued, judgement.states) == (8, {State.ACCEPTED: 8})
    assert DeliveryEvent.objects.using(ALIAS).filter(type=EventType.RESCUED).count() == 8


def test_worker_whose_clock_is_wrong_looks_alive_to_the_others(stage: Stage, ahead: str) -> None:
    """Its heartbeat an hour old, the doctor would say that nobody delivers; an hour ahead, never that it died."""
    worker = stage.worker(JOURNEY_CLOCK=ahead)
    eventually("it is idle", lambda: WorkerHeartbeat.objects.using(ALIAS).filter(doing="idle").exists())

    beat = WorkerHeartbeat.objects.using(ALIAS).get()
    now, patience = timezone.now(), timedelta(seconds=PROMPT_SECONDS)
    for instant in (beat.started_at, beat.last_turn_at, beat.seen_at):
        assert instant
        assert now - patience < instant < now + patience

    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    beat.refresh_from_db()
    assert beat.stopped_at
    assert beat.seen_at - patience < beat.stopped_at < beat.seen_at + patience
