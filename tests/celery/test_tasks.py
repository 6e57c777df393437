"""What the tasks, the bell and the step promise, each alone; no broker but one that is not there."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from celery import Celery, _state, signals
from kombu.exceptions import OperationalError
from pytest_django.fixtures import Settings

from example import broker
from postroom import beat, ops, outbox, tasks
from postroom.models import OutboundEmail
from tests import servers
from tests.attempts import NO_ANSWER, answer, let_time_pass, take_again

Make = Callable[..., Any]


@pytest.fixture
def celery_app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Let this process have the Celery app that the test describes, and no line to a broker yet."""
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    before = _state._tls.current_app
    made: list[Any] = []

    def make(url: str, **conf: Any) -> Any:
        made.append(Celery("site", broker=url, fixups=[]))
        made[-1].conf.update(conf)
        return made[-1]

    tasks._drop_line()
    yield make
    tasks._drop_line()
    for app in made:
        app.close()
    _state._set_current_app(before)


def test_task_names_are_those_of_the_schedule(celery_app: Make) -> None:
    """Flower shows them, and beat sends them by name: a wrong one would be "unregistered" at night."""
    app = celery_app("memory://")

    ours = {name for name in app.tasks if name.startswith("postroom.")}

    assert ours == {"postroom.drain", "postroom.rescue", "postroom.prune", "postroom.alert"}
    assert {entry["task"] for entry in beat.SCHEDULE.values()} == ours - {"postroom.drain"}


def test_no_default_of_the_site_changes_what_a_ring_is(celery_app: Make) -> None:
    """acks_late with Redis would run a drain again and again; a result backend that is away costs 19 s."""
    app = celery_app("memory://", task_acks_late=True, task_reject_on_worker_lost=True)

    for name in ("postroom.drain", "postroom.rescue", "postroom.prune", "postroom.alert"):
        task = app.tasks[name]
        assert (task.ignore_result, task.acks_late, task.reject_on_worker_lost) == (True, False, False)
    assert app.tasks["postroom.drain"].time_limit == 20 + 90 + 30


def test_without_a_broker_no_socket_is_opened(celery_app: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty URL alone would mean RabbitMQ on this machine."""
    celery_app("memory://")

    def refuse(*args: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    tasks.publish("default")

    assert not hasattr(tasks._own, "line")


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_bell_fails_soon_where_the_broker_refuses(celery_app: Make, scheme: str) -> None:
    """With Celery's defaults it is 0.6 s with Redis, and 19 s with a result backend beside it."""
    celery_app(f"{scheme}://127.0.0.1:{servers.free_port()}//")

    began = time.monotonic()
    with pytest.raises(OperationalError):
        tasks.publish("default")

    assert time.monotonic() - began < 10
    assert not hasattr(tasks._own, "line")


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_bell_does_not_wait_for_a_broker_that_never_answers(celery_app: Make, scheme: str) -> None:
    """Celery's defaults wait for ever when Redis accepts the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        celery_app(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}//")

        began = time.monotonic()
        with pytest.raises((OperationalError, OSError)):
            tasks.publish("default")

    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("chosen", "routes", "consumed", "sweeps"),
    [
        ("", {}, ["celery"], True),
        ("", {}, ["reports"], False),
        ("mail", {}, ["mail", "reports"], True),
        ("mail", {}, ["celery"], False),
        ("", {"postroom.*": {"queue": "mail"}}, ["mail"], True),
        ("", {"postroom.*": {"queue": "mail"}}, ["celery"], False),
    ],
)
def test_step_runs_only_where_our_queue_is_consumed(
    celery_app: Make, settings: Settings, chosen: str, routes: Any, consumed: list[str], sweeps: bool
) -> None:
    """A worker for reports may stand where no mail may leave."""
    settings.POSTROOM = {**settings.POSTROOM, "CELERY_QUEUE": chosen}
    app = celery_app("memory://", task_routes=routes)
    app.amqp.queues.select(consumed)
    step = tasks.Sweeper(SimpleNamespace(app=app))

    assert step.include_if(SimpleNamespace(app=app)) is sweeps


@pytest.mark.parametrize(("sig", "told"), [("SIGTERM", "SIGTERM"), ("", "celery worker stops")])
def test_goodbye_of_the_step_tells_what_ended_it(celery_app: Make, sig: str, told: str) -> None:
    """It said "done", whoever had ended it; "celery control shutdown" sends no signal."""
    reasons: list[str] = []
    step = tasks.Sweeper(SimpleNamespace(app=celery_app("memory://")))
    step._worker = cast(Any, SimpleNamespace(stop=reasons.append))
    assert step._goes_on()

    try:
        if sig:
            signals.worker_shutting_down.send(sender="worker", sig=sig, how="Warm", exitcode=0)
        step.stop(None)
        assert not step._goes_on()
    finally:
        tasks._open_again()

    assert set(reasons) == {told}


@pytest.mark.parametrize(
    ("missing", "works"), [(["shop.0002_color"], True), (["postroom.0001_initial", "shop.0002_color"], False)]
)
def test_step_waits_for_no_tables_but_its_own(
    celery_app: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    missing: list[str],
    works: bool,
) -> None:
    """A migration of the site's own that somebody runs tomorrow kept all mail waiting until then."""
    monkeypatch.setattr(tasks.ops, "missing_migrations", lambda alias: missing)
    step = tasks.Sweeper(SimpleNamespace(app=celery_app("memory://")))

    assert step._tables_are_there() is works

    assert "shop" not in caplog.text
    assert ("E010" in caplog.text) is not works


@pytest.mark.parametrize("trouble", ["", "OPTIONS must define 'api_key'."])
def test_step_says_in_a_sentence_that_it_has_nothing_to_send_with(
    celery_app: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    """Celery heeds no check, and a traceback every half a minute says less."""
    monkeypatch.setattr(tasks.mailers, "trouble", lambda alias: trouble)
    step = tasks.Sweeper(SimpleNamespace(app=celery_app("memory://")))

    assert step._mailers_are_usable() is not bool(trouble)

    assert (
        "postroom.E004 no e-mail leaves this worker, the mailer 'provider' cannot be used: OPTIONS"
        in caplog.text
    ) is bool(trouble)


def test_threads_with_autoscale_are_refused_in_a_sentence(celery_app: Make) -> None:
    """Celery 5.7 crashes over it, with a traceback that says nothing."""
    instance = SimpleNamespace(app=celery_app("memory://"))

    with pytest.raises(SystemExit, match=r"E009 .* --concurrency=N"):
        tasks.join_worker(instance=instance, options={"pool": "threads", "autoscale": "10,2"})


def test_step_joins_every_other_worker(celery_app: Make) -> None:
    app = celery_app("memory://")

    tasks.join_worker(instance=SimpleNamespace(app=app), options={"autoscale": "10,2", "pool": "prefork"})

    assert tasks.Sweeper in app.steps["worker"]


def pause() -> None:
    outbox.pause(actor="anna")


def leave_in_doubt_with_another_mailer() -> None:
    email = take_again(outbox.enqueue("celery.letter"), mailer="gone")
    outbox.doubt([answer(email, NO_ANSWER)])
    let_time_pass("default", timedelta(minutes=1))
    outbox.cancel(OutboundEmail.objects.exclude(pk=email.pk).get())


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("hold_back", [pause, leave_in_doubt_with_another_mailer])
def test_drain_calls_no_other_one_for_what_it_may_not_take(
    monkeypatch: pytest.MonkeyPatch, hold_back: Callable[[], None]
) -> None:
    """While sending was paused each drain found mail that was due, and called the next: twenty tasks a second."""
    rings: list[str] = []
    monkeypatch.setattr(tasks.doorbell, "ring", rings.append)
    outbox.enqueue("celery.letter")
    hold_back()
    rings.clear()

    tasks.drain.run("default")

    assert OutboundEmail.objects.due().exists()
    assert rings == []


@pytest.mark.django_db(transaction=True)
def test_drain_whose_time_is_over_calls_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rings: list[str] = []
    outbox.enqueue("celery.letter")
    monkeypatch.setattr(tasks, "DRAIN_SECONDS", 0)
    monkeypatch.setattr(tasks.doorbell, "ring", rings.append)

    tasks.drain.run("default")

    assert rings == ["default"]


def verdict(level: ops.Level, lag: float, *, code: str = "D41", refused: float = 0) -> Any:
    facts = SimpleNamespace(lag_seconds=lag, refused_seconds=refused)
    return SimpleNamespace(level=level, code=code, headline="E-mails wait.", facts=facts)


@pytest.mark.parametrize(
    ("level", "lag", "told"),
    [
        (ops.Level.OK, 0, False),
        (ops.Level.LATE, 20, False),
        (ops.Level.LATE, 61, True),
        (ops.Level.STOPPED, 3, True),
    ],
)
def test_alert_tells_of_what_stands_still_or_is_late_by_a_minute(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    level: ops.Level,
    lag: float,
    told: bool,
) -> None:
    """A burst of a few seconds wakes nobody; a dead provider does."""
    heard: list[Any] = []

    def hear(*, diagnosis: Any, **_: Any) -> None:
        heard.append(diagnosis)

    monkeypatch.setattr(tasks.ops, "diagnose", lambda using: verdict(level, lag))
    tasks.alerted.connect(hear)
    try:
        tasks.alert.run()
    finally:
        tasks.alerted.disconnect(hear)

    assert bool(heard) is told
    assert ("alert code=D41" in caplog.text) is told


@pytest.mark.parametrize(("refused", "told"), [(20, False), (61, True)])
def test_alert_tells_of_a_provider_that_takes_nothing_though_nothing_is_overdue(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, refused: float, told: bool
) -> None:
    """Each refusal moves its e-mail to a later attempt: in an hour without provider the alert said nothing."""
    down = verdict(ops.Level.LATE, 0, code="D31", refused=refused)
    monkeypatch.setattr(tasks.ops, "diagnose", lambda using: down)

    tasks.alert.run()

    assert ("alert code=D31" in caplog.text) is told


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("", "memory://"),
        ("django://", "memory://"),
        ("redis://h:1/0", "redis://h:1/0"),
        ("amqp://h//", "amqp://h//"),
    ],
)
def test_shop_understands_the_brokers_of_the_contract(
    monkeypatch: pytest.MonkeyPatch, given: str, url: str
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", given)

    assert broker.url() == url


@pytest.mark.parametrize("given", ["redis", "redis:/h", "http://h", "redis://:s3cret@h:port/0", "amqp:///x"])
def test_shop_refuses_a_broker_it_cannot_mean_without_showing_its_password(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", given)

    with pytest.raises(SystemExit, match="CELERY_BROKER_URL") as refused:
        broker.url()

    assert "s3cret" not in str(refused.value)
