"""
Everything that happens to a Redis, to a shop that runs: mail goes later, and nobody waits for it.

The bell rings in a thread of its own, so the enqueueing thread runs not a line of a broker's library,
and no enqueue takes long. The step inside the worker takes over; when the broker is back, so is the
bell, by itself. The judge is the provider's log: nothing lost, nothing twice.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from tests import brokers
from tests.brokers import Redis
from tests.celery.stage import Office, Process, Web
from tests.journeys.stage import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.timeout(300)

QUEUE = "celery"


@pytest.fixture(scope="module")
def office(office_on_postgresql: Office) -> Office:
    """Here many may write at once: who is slow has waited for the broker."""
    return office_on_postgresql


@pytest.mark.parametrize("gone", [brokers.nobody, brokers.black_hole, brokers.syn_drop])
def test_worker_that_never_reached_its_broker_sends_every_e_mail(
    office: Office, gone: Callable[[], AbstractContextManager[str]]
) -> None:
    """
    Refused, accepted and never answered, dropped by a wall. Celery itself is stuck in its start then,
    and may not even end; the step has begun before, works, and says goodbye when it is asked to.
    """
    with gone() as broker:
        web = office.web(broker=broker)
        worker = office.worker(broker=broker, ready=False)

        uuids = web.enqueue(20)

        eventually("all are accepted", lambda: office.accepted(uuids))
        assert len(office.stepped(uuids)) == 20
        assert " ready." not in worker.said()
        web.assert_nobody_waited()
        worker.signal(signal.SIGTERM)
        eventually("the step says goodbye", lambda: (beat := office.heart(worker)) and beat.stopped_at)
        beat = office.heart(worker)
        assert beat
        assert beat.stop_reason == "SIGTERM"
        web.end()
        worker.kill()
    office.judge()


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A shop in the middle of its day."""

    office: Office
    redis: Redis
    worker: Process
    web: Web


@pytest.fixture(scope="module")
def begun(office: Office, redis: Redis) -> Scene:
    """Begin the day once; each accident is mended before the next."""
    web = office.web(broker=redis.url)
    worker = office.worker("--concurrency=2", broker=redis.url)
    return Scene(office=office, redis=redis, worker=worker, web=web)


@pytest.fixture
def scene(begun: Scene) -> Scene:
    """The shop with a bell that rings, before anything happens to it."""
    _rings_again(begun)
    return begun


def test_redis_that_hangs_in_the_middle_delays_and_loses_nothing(scene: Scene) -> None:
    """A machine that swaps: connections stand, new ones are accepted, and no answer comes."""
    _under_load(scene, scene.redis.freeze, scene.redis.thaw)


def test_redis_killed_and_started_again_empty_delays_and_loses_nothing(scene: Scene) -> None:
    """What was in its queue is gone with it."""
    _under_load(scene, scene.redis.kill, scene.redis.start)


def test_redis_out_of_memory_delays_and_loses_nothing(scene: Scene) -> None:
    """It answers everything but takes no message: the usual end of a queue that nobody reads."""

    def fill() -> None:
        scene.redis.ask("config_set", "maxmemory", "1")

    def empty() -> None:
        scene.redis.ask("config_set", "maxmemory", "0")

    assert scene.redis.ask("config_get", "maxmemory-policy")["maxmemory-policy"] == "noeviction"
    _under_load(scene, fill, empty)


def test_rings_that_are_flushed_away_delay_and_lose_nothing(scene: Scene) -> None:
    """Somebody types FLUSHALL while rings stand in the queue: nobody will ever hear them."""
    scene.worker.signal(signal.SIGSTOP)
    # The worker waits for its next ring, and that one would not go through the queue.
    scene.redis.ask("client_kill_filter", None, "normal", None, True)
    uuids = scene.web.enqueue(20)
    eventually("rings stand in the queue", lambda: scene.redis.ask("llen", QUEUE))

    eventually("all are flushed", lambda: scene.redis.ask("flushall") and scene.office.age(uuids) > 3)
    scene.worker.signal(signal.SIGCONT)

    eventually("all are accepted", lambda: scene.office.accepted(uuids))
    assert len(scene.office.stepped(uuids)) == 20
    _all_is_well(scene)


def _under_load(scene: Scene, break_it: Callable[[], None], mend_it: Callable[[], None]) -> None:
    """Let it happen while e-mails come in, and mend it when the last of them is out."""
    scene.web.begin(40, pause=0.05)
    try:
        break_it()
        uuids = scene.web.finish()
        eventually("all are accepted", lambda: scene.office.accepted(uuids))
    finally:
        mend_it()

    assert scene.office.stepped(uuids), "the broker was not even away"
    _all_is_well(scene)


def _all_is_well(scene: Scene) -> None:
    _rings_again(scene)
    assert scene.worker.popen.poll() is None
    scene.web.assert_nobody_waited()
    scene.office.judge()


def _rings_again(scene: Scene) -> None:
    """Wait until an e-mail is sent by a drain, which nothing but a ring can have called."""

    def is_drained() -> list[str]:
        uuids = scene.web.enqueue(1)
        eventually("it is accepted", lambda: scene.office.accepted(uuids))
        return scene.office.drained(uuids)

    # The bell is silent for half a minute at the longest, and Celery looks for its broker as seldom.
    eventually("the bell rings again", is_drained, seconds=2 * PATIENCE_SECONDS)
