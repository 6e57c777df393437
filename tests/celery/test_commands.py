"""
The command lines of Celery's own documentation, exactly as they are typed, in front of real brokers.

The judge is the provider's log: every e-mail once. With a broker somebody must have come because it
rang; without one, the worker's step has done everything.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from tests import servers
from tests.brokers import Redis
from tests.celery.stage import Office, Web
from tests.journeys.stage import eventually

pytestmark = pytest.mark.timeout(300)
"""Celery takes 3 s to start, and 20 on a machine with much else to do."""

EMAILS = 20
LINES = [
    "",
    "--concurrency=4",
    "--autoscale=10,2",
    "--concurrency=4 --autoscale=10,2",
    "--pool=threads --concurrency=4",
    "--pool=solo",
]
BEATEN = {"postroom.alert", "postroom.prune", "postroom.rescue"}
NAMES = {"postroom.drain", *BEATEN}


@pytest.fixture(scope="module")
def web_of(office: Office) -> Callable[[str], Web]:
    """The web process that rings at one broker, begun when it is first asked for."""
    webs: dict[str, Web] = {}

    def find(broker: str) -> Web:
        return webs.get(broker) or webs.setdefault(broker, office.web(broker=broker))

    return find


@pytest.fixture(
    params=[*(("redis", line) for line in LINES), *(("rabbitmq", line) for line in LINES[3:])],
    ids=lambda param: " ".join(param).strip(),
)
def broker_and_line(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Every line with Redis, one of each pool with RabbitMQ."""
    name, line = request.param
    server = request.getfixturevalue(name)
    return server.url if isinstance(server, Redis) else server, line


def test_every_command_line_sends_each_e_mail_once(
    office: Office, web_of: Callable[[str], Web], broker_and_line: tuple[str, str]
) -> None:
    """
    A pool that forks, one of threads and one that is neither; fixed and breathing. The result
    backend is one that is away, as in the shop that this began with: each publish waited 19 s for it.
    """
    broker, line = broker_and_line
    web = web_of(broker)
    results = servers.free_port()
    worker = office.worker(line, broker=broker, CELERY_RESULT_BACKEND=f"redis://127.0.0.1:{results}/1")

    uuids = web.enqueue(EMAILS)

    eventually("all are accepted", lambda: office.accepted(uuids))
    assert office.drained(uuids), "nobody came because it rang"
    assert urlsplit(broker).port in office.connects(worker)
    assert results not in office.connects(worker)
    web.assert_nobody_waited()
    office.stop(worker)
    office.judge()


@pytest.mark.parametrize("broker", ["", "django://"])
def test_without_a_broker_the_step_sends_all_and_nobody_opens_a_socket_to_one(
    office: Office, web_of: Callable[[str], Web], broker: str
) -> None:
    """Celery itself takes an empty URL for a RabbitMQ on this machine, and knows no ``django://``."""
    web = web_of(broker)
    worker = office.worker(broker=broker)

    uuids = web.enqueue(EMAILS)

    eventually("all are accepted", lambda: office.accepted(uuids))
    assert "no broker: this worker delivers every e-mail by itself" in worker.said()
    assert len(office.stepped(uuids)) == EMAILS
    assert office.connects(worker) == set()
    web.assert_nobody_waited()
    office.stop(worker)
    office.judge()


def test_beat_without_a_broker_goes_on_and_opens_no_socket(office: Office) -> None:
    """Nobody hears it, and nobody has to: the step takes back by itself what a dead worker held."""
    beat = office.beat("beat alone")

    eventually("it goes on", lambda: set(re.findall(r"Sending due task ([\w.]+)", beat.said())) >= BEATEN)

    assert office.connects(beat) == set()
    office.stop(beat)


def test_what_beat_sends_is_done(office: Office, redis: Redis) -> None:
    """A name that no worker has registered would be found out by nobody but the log, at night."""
    worker = office.worker("--pool=threads --concurrency=4", broker=redis.url)
    beat = office.beat("beat", broker=redis.url)

    eventually("all three are done", lambda: all(office.times_done(worker, name) for name in BEATEN))

    assert "unregistered" not in worker.said()
    office.stop(beat)
    office.stop(worker)


def test_flower_and_inspect_show_names_that_say_what_they_do(
    office: Office, web_of: Callable[[str], Web], redis: Redis
) -> None:
    """Both read what the worker tells of itself, and the events that it sends with ``-E``."""
    web = web_of(redis.url)
    worker = office.worker("--pool=threads --concurrency=4 -E", broker=redis.url)
    watch = office.celery("events --dump", broker=redis.url)
    eventually("it hears the worker", lambda: "heartbeat: active" in watch.said())

    uuids = web.enqueue(1)

    eventually("it is accepted", lambda: office.accepted(uuids))
    eventually("it is seen", lambda: "task received: postroom.drain(" in watch.said())

    def registered() -> set[str]:
        # Celery waits for a second, in which a worker on a busy machine may not come to answer.
        code, said = office.run("inspect registered", broker=redis.url)
        return set(re.findall(r"\* ([\w.]+)", said)) if code == 0 else set()

    assert eventually("it answers", registered) == NAMES
    watch.kill()
    office.stop(worker)


def test_worker_of_another_queue_sends_no_mail(
    office: Office, web_of: Callable[[str], Web], redis: Redis
) -> None:
    """It may stand where no mail can leave, or have no business with it."""
    web = web_of(redis.url)
    other = office.celery("worker --loglevel=info --pool=threads -Q other", broker=redis.url)
    worker = office.worker("--pool=threads", broker=redis.url)
    eventually("both are ready", lambda: " ready." in other.said())

    uuids = web.enqueue(EMAILS)
    eventually("all are accepted", lambda: office.accepted(uuids))

    assert not {name for name in office.senders(uuids) if f"/{other.popen.pid}" in name}
    assert office.heart(other) is None
    # Celery's own way to ask a worker which threads it has.
    for process in (worker, other):
        process.signal(signal.SIGUSR1)
        eventually("it tells its threads", lambda said=process.said: "<_MainThread" in said())
    assert "postroom-sweeper" in worker.said()
    assert "postroom-sweeper" not in other.said()
    office.stop(worker)
    office.stop(other)


@pytest.mark.parametrize(
    ("words", "broker", "sentence"),
    [
        ("--pool=threads --autoscale=10,2", "", "postroom.E009"),
        ("", "redis://:s3cret@127.0.0.1:port/0", "CELERY_BROKER_URL is no URL"),
        ("", "http://127.0.0.1/", "CELERY_BROKER_URL begins with http"),
    ],
)
def test_what_cannot_work_ends_at_the_start_with_a_sentence(
    office: Office, words: str, broker: str, sentence: str
) -> None:
    """Celery's own answers are a crash minutes later, and a traceback with the password in it."""
    code, said = office.run(f"worker --loglevel=info {words}", broker=broker)

    assert code != 0
    assert sentence in said
    assert "Traceback" not in said
    assert "s3cret" not in said
