"""
What happens to a Celery worker under load: it is told to stop, it is killed, it forks for every task,
and two beats call it at once. The judge is the provider's log.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from postroom.models import State
from tests.brokers import Redis
from tests.celery.stage import Office, Web
from tests.journeys.stage import ROOT, eventually

pytestmark = pytest.mark.timeout(300)

SLOW = 1.5


@pytest.fixture(scope="module")
def office(office_on_postgresql: Office) -> Office:
    """Here what a fork does to connections that are sockets can be seen."""
    return office_on_postgresql


@pytest.fixture(scope="module")
def web(office: Office, redis: Redis) -> Web:
    """Somebody who enqueues."""
    return office.web(broker=redis.url)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_sigterm_under_load_finishes_what_is_in_hand_and_hands_back_the_rest(
    office: Office, redis: Redis, web: Web, pool: str
) -> None:
    """A deployment at noon: no e-mail may be in doubt because of it."""
    office.stage.provider.mood(seconds=SLOW)
    called = len(office.stage.provider.calls())
    # A lease that a machine which stands still for a second does not break: then the step would rescue.
    worker = office.worker(f"--pool={pool} --concurrency=4", broker=redis.url, POSTROOM_LEASE_SECONDS="60")
    uuids = web.enqueue(100)
    eventually("some are in flight", lambda: len(office.stage.provider.calls()) >= called + 8)

    office.stop(worker)

    emails = [email for uuid, email in office.stage.emails().items() if uuid in set(uuids)]
    taken = set(office.stage.provider.accepted()) & set(uuids)
    states = Counter(email.state for email in emails)
    assert states[State.ACCEPTED] == len(taken) >= 8
    assert states[State.PENDING] == len(uuids) - len(taken)
    assert not [email for email in emails if email.uncertain_since]
    beat = office.heart(worker)
    assert beat
    assert beat.stopped_at
    assert beat.stop_reason == "SIGTERM"

    office.stage.provider.mood(seconds=0)
    successor = office.worker(f"--pool={pool} --concurrency=4", broker=redis.url)
    eventually("all are accepted", lambda: office.accepted(uuids))
    office.stop(successor)
    office.judge()


def test_sigterm_that_reaches_the_children_too_puts_nothing_in_doubt(
    office: Office, redis: Redis, web: Web
) -> None:
    """
    systemd's default and a kill of the process group send it to every child of the pool, and each ended
    on the spot: all that the drains had in flight was in doubt, and without keys *uncertain*.
    """
    office.stage.provider.mood(seconds=2 * SLOW)
    called = len(office.stage.provider.calls())
    worker = office.worker("--concurrency=4", broker=redis.url, POSTROOM_LEASE_SECONDS="60")
    main = worker.popen.pid
    children = [int(pid) for pid in Path(f"/proc/{main}/task/{main}/children").read_text().split()]
    uuids = web.enqueue(40)
    eventually("some are in flight", lambda: len(office.stage.provider.calls()) >= called + 8)
    assert office.drained(uuids)

    for pid in (main, *children):
        os.kill(pid, signal.SIGTERM)

    def nothing_is_in_hand() -> bool:
        rows = office.stage.emails().items()
        return not any(email.state == State.SENDING for uuid, email in rows if uuid in set(uuids))

    eventually("what was in flight is settled", nothing_is_in_hand)
    eventually("the step says goodbye", lambda: (beat := office.heart(worker)) and beat.stopped_at)
    # An idle child may have died with a lock of the pool, for which Celery's main process then waits for ever.
    worker.kill()
    emails = [email for uuid, email in office.stage.emails().items() if uuid in set(uuids)]
    taken = set(office.stage.provider.accepted()) & set(uuids)
    states = Counter(email.state for email in emails)
    assert states == Counter({State.ACCEPTED: len(taken), State.PENDING: len(uuids) - len(taken)})
    assert not [email for email in emails if email.uncertain_since]

    office.stage.provider.mood(seconds=0)
    successor = office.worker("--concurrency=4", broker=redis.url)
    eventually("all are accepted", lambda: office.accepted(uuids))
    office.stop(successor)
    office.judge()


def test_two_beats_and_a_killed_worker_send_nothing_twice(office: Office, redis: Redis, web: Web) -> None:
    """Nobody notices that beat runs on two machines: both call for a rescue, and at the same time."""
    office.stage.provider.mood(seconds=SLOW)
    called = len(office.stage.provider.calls())
    worker = office.worker("--pool=threads --concurrency=4", broker=redis.url)
    uuids = web.enqueue(40)
    eventually("some are in flight", lambda: len(office.stage.provider.calls()) >= called + 8)
    worker.kill()
    office.stage.provider.mood(seconds=0)

    beats = [office.beat(name, broker=redis.url) for name in ("one machine", "another machine")]
    successor = office.worker("--pool=threads --concurrency=4", broker=redis.url)

    eventually("all are accepted", lambda: office.accepted(uuids))
    eventually("both have called", lambda: office.times_done(successor, "postroom.rescue") >= 2)
    for process in (*beats, successor):
        office.stop(process)
    office.judge()


def test_pool_that_forks_for_every_task_hangs_nowhere(office: Office, redis: Redis, web: Web) -> None:
    """The step is busy beside each fork: what it has locked or opened is nothing to the child."""
    office.stage.provider.mood(seconds=0)
    worker = office.worker("--concurrency=4 --max-tasks-per-child=1", broker=redis.url)

    web.begin(50, pause=0.1)
    uuids = web.finish()

    eventually("all are accepted", lambda: office.accepted(uuids))

    def four_children_have_drained() -> bool:
        # Where forking is slow, one child finds everything that waits; one e-mail at a time is one ring each.
        uuids.extend(web.enqueue(1))
        eventually("it is accepted", lambda: office.accepted(uuids))
        return len(set(office.drained(uuids))) >= 4

    eventually("four children have drained", four_children_have_drained)
    web.assert_nobody_waited()
    office.stop(worker)
    office.judge()


@pytest.mark.parametrize("moment", ["while_a_mailer_is_made", "while_the_tls_context_is_made"])
def test_child_waits_for_no_lock_that_was_held_when_it_was_forked(moment: str) -> None:
    """
    Python 3.11 holds one lock for a whole class while it computes a cached property of any instance:
    a child that was forked in that moment would wait for its parent's thread, for ever.
    """
    forked = _run(moment)

    assert forked.returncode == 0, forked.stderr


def test_thread_of_the_step_imports_nothing_beside_a_fork() -> None:
    """A child that was forked while another thread imported pycurl could never import it."""
    forked = _run("before_the_first_fork")

    assert forked.returncode == 0, forked.stderr


def _run(moment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"from tests.celery import forked; forked.{moment}()"],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.journeys.site",
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
