"""A worker is killed, stopped or asked to stop, at every step of an e-mail's path and under load."""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter

import pytest

from postroom import outbox
from postroom.models import DeliveryEvent, EventType, OutboundEmail, State, WorkerHeartbeat
from tests.journeys.judging import assert_sound
from tests.journeys.stage import ALIAS, Process, Stage, eventually, start

pytestmark = pytest.mark.timeout(180)

STEPS = {
    "in the transaction of claimed": (0, 0),
    "after the claim": (0, 0),
    "in the composer:3": (0, 2),
    "before the call:3": (0, 2),
    "after the answer:3": (3, 8),
    "in the transaction of accepted": (1, 8),
}
"""Where a worker dies, and how many e-mails the provider has at least, and at most, been asked for by then."""

LONG_LEASE = {"JOURNEY_LEASE": "60"}
"""Of a worker that lives: on a machine that stands still for two seconds nobody is to be taken for dead."""


@pytest.fixture
def stage(stage: Stage) -> Stage:
    """The stage, with the app that knows where to die."""
    stage.environment["DJANGO_SETTINGS_MODULE"] = "tests.journeys.perils.site"
    return stage


def letters(count: int, kind: str = "perils.letter") -> list[OutboundEmail]:
    return [outbox.enqueue(kind, {"number": number}, using=ALIAS) for number in range(count)]


def dies(worker: Process) -> None:
    assert worker.ended() == -signal.SIGKILL, worker.said()


def events(type_: EventType) -> int:
    return DeliveryEvent.objects.using(ALIAS).filter(type=type_).count()


@pytest.mark.parametrize("step", STEPS, ids=[step.partition(":")[0].replace(" ", "-") for step in STEPS])
def test_worker_killed_at_any_step_sends_each_e_mail_once(stage: Stage, step: str) -> None:
    """
    SIGKILL at one exact instruction, with seven others in hand. Whatever the dead worker knew and
    had not committed is gone; another one finds out with the same keys.
    """
    at_least, at_most = STEPS[step]
    promised = letters(12)

    dies(stage.worker(JOURNEY_PERIL=step))
    assert at_least <= len(stage.provider.calls()) <= at_most
    stage.worker(**LONG_LEASE)
    eventually("everything is settled", stage.all_settled)

    judgement = assert_sound(stage, promised)
    assert Counter(stage.provider.accepted()) == Counter(str(email.uuid) for email in promised)
    assert judgement.states == {State.ACCEPTED: 12}
    assert bool(judgement.rescued) == (step != "in the transaction of claimed")


def test_worker_killed_while_it_rescues_leaves_the_rescue_to_another(stage: Stage) -> None:
    """Its transaction is rolled back: nothing was taken back, and no loss is counted twice."""
    promised = letters(8)
    dies(stage.worker(JOURNEY_PERIL="after the answer:3"))

    dies(stage.worker(JOURNEY_PERIL="in the transaction of rescued"))
    assert events(EventType.RESCUED) == 0
    stage.worker(**LONG_LEASE)
    eventually("everything is settled", stage.all_settled)

    assert_sound(stage, promised)
    assert Counter(stage.provider.accepted()) == Counter(str(email.uuid) for email in promised)
    assert {email.losses for email in stage.emails().values()} <= {0, 1}


def test_without_keys_what_a_killed_worker_had_in_hand_is_uncertain_and_not_repeated(stage: Stage) -> None:
    """The provider would not know the repeat: a second copy is worse than a word that says "perhaps"."""
    stage.environment["JOURNEY_KEYS"] = "off"
    promised = letters(8)

    dies(stage.worker(JOURNEY_PERIL="after the answer:3"))
    stage.worker()
    eventually("everything is settled", stage.all_settled)

    judgement = assert_sound(stage, promised, keyed=False)
    assert judgement.twice == 0
    assert judgement.states[State.UNCERTAIN] >= 6
    assert len(stage.provider.calls()) <= 8


def test_sigterm_under_load_hands_back_the_unbegun_and_doubts_the_unanswered(stage: Stage) -> None:
    """
    A deployment in a bad hour: the provider has taken some and answers none, others wait to be
    written. The worker ends in STOP_SECONDS; nothing that it hands back has cost a strike.
    """
    stage.provider.mood(seconds=120)
    promised = letters(60, "perils.laborious")
    worker = stage.worker("--concurrency", "40", JOURNEY_STOP="4", JOURNEY_LABOUR="0.2", **LONG_LEASE)
    eventually("some are in flight", lambda: len(stage.provider.calls()) >= 5)

    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0, worker.said()
    # Four seconds for what is in flight, and what a busy machine needs to write two lists.
    assert time.monotonic() - began < 4 + 20

    in_flight = set(stage.provider.accepted())
    rows = stage.emails()
    handed_back = DeliveryEvent.objects.using(ALIAS).filter(type=EventType.RESCHEDULED)
    assert {email.state for email in rows.values()} == {State.PENDING}
    assert {email.strikes for email in rows.values()} == {0}
    assert {name for name, email in rows.items() if email.uncertain_since} == in_flight
    assert handed_back.count() + len(in_flight) == events(EventType.CLAIMED)
    assert handed_back.exists()
    assert WorkerHeartbeat.objects.using(ALIAS).get().stop_reason == "SIGTERM"
    assert {email.epoch for email in rows.values() if email.uncertain_since} == {0}

    stage.provider.mood("instant")
    stage.worker("--concurrency", "40")
    eventually("everything is settled", stage.all_settled)
    assert_sound(stage, promised)
    assert Counter(stage.provider.accepted()) == Counter(str(email.uuid) for email in promised)


def test_second_sigterm_ends_a_worker_at_once(stage: Stage) -> None:
    """Whoever asks twice does not want to wait for STOP_SECONDS, here an hour; rescue does the rest."""
    stage.provider.mood(seconds=120)
    promised = letters(8)
    worker = stage.worker(JOURNEY_STOP="3600")
    eventually("all are in flight", lambda: len(stage.provider.calls()) == 8)

    worker.signal(signal.SIGTERM)
    eventually("it is stopping", lambda: "stopping signal=SIGTERM" in worker.said())
    assert worker.popen.poll() is None
    worker.signal(signal.SIGTERM)

    assert worker.ended() == -signal.SIGTERM
    stage.provider.mood("instant")
    stage.worker(**LONG_LEASE)
    eventually("everything is settled", stage.all_settled)
    judgement = assert_sound(stage, promised)
    assert judgement.rescued == 8
    assert Counter(stage.provider.accepted()) == Counter(str(email.uuid) for email in promised)


def test_poison_that_kills_its_worker_is_given_up_and_the_doctor_names_it(stage: Stage) -> None:
    """
    A composer takes its whole process with it, each time. Whoever starts the worker again would do it
    for ever, and twelve other e-mails would never go out. After two losses it is claimed alone,
    after the third it is given up, and nothing else has paid for it.
    """
    poison = outbox.enqueue("perils.poison", lane="urgent", using=ALIAS)
    promised = [poison, *letters(12)]

    deaths = 0
    worker = stage.worker()
    while not stage.all_settled():
        if worker.popen.poll() is not None:
            dies(worker)
            deaths += 1
            assert deaths <= 3
            worker = stage.worker()
        time.sleep(0.05)

    judgement = assert_sound(stage, promised)
    assert deaths == 3
    poison.refresh_from_db()
    assert (poison.state, poison.reason, poison.losses) == (State.UNCERTAIN, "worker_lost", 3)
    assert judgement.states == {State.ACCEPTED: 12, State.UNCERTAIN: 1}
    assert worker.popen.poll() is None
    doctor = start(
        stage.folder / "doctor.log", [sys.executable, "-m", "django", "postroom_doctor"], stage.environment
    )
    doctor.ended()
    assert "(perils.poison) has lost 3 delivery processes" in doctor.said()
