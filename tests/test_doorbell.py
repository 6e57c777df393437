"""The bell: after the commit, never in the caller, and alone with its troubles."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connections
from pytest_django.fixtures import Settings

from postroom import doorbell
from tests.journeys.stage import eventually

NOW = 1000.0
PATIENCE_SECONDS = 60
calls: list[str] = []
rung, enough = threading.Event(), threading.Event()


def hear(using: str) -> None:
    """A doorbell of the site's own."""
    calls.append(using)
    rung.set()


def hang(using: str) -> None:
    hear(using)
    enough.wait()


def break_down(using: str) -> None:
    calls.append(using)
    rung.set()
    raise ConnectionError("the broker is away")


@pytest.fixture
def bell(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Iterator[Any]:
    """A bell of this test's own, outside of Django's test runner, where none rings."""
    monkeypatch.setattr(doorbell, "under_test_runner", lambda: False)
    own = doorbell._Bell()
    monkeypatch.setattr(doorbell, "_bell", own)
    calls.clear()
    rung.clear()
    enough.clear()

    def rings(function: Any) -> None:
        settings.POSTROOM = {**settings.POSTROOM, "DOORBELL": f"{__name__}.{function.__name__}"}
        monkeypatch.setattr(doorbell, "_publisher", lambda kind: function)

    yield rings
    enough.set()
    # What its thread still had to ring it would ring in the next test, by what rings there.
    eventually("the bell is at rest", lambda: not own._rung and not own._publishing)


@pytest.fixture
def clock_that_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is NOW for the bell, however long this process is kept waiting: a silence may be one second long."""
    monkeypatch.setattr(doorbell, "time", SimpleNamespace(monotonic=lambda: NOW, sleep=time.sleep))


def test_bell_is_the_setting_or_what_the_database_offers(settings: Settings) -> None:
    assert doorbell.kind_for("default") == "none"
    if "postgres" in settings.DATABASES:
        assert doorbell.kind_for("postgres") == "notify"

    settings.POSTROOM = {**settings.POSTROOM, "DOORBELL": "site.bell"}

    assert doorbell.kind_for("default") == "site.bell"


def test_publisher_may_be_a_dotted_path() -> None:
    assert doorbell._publisher("operator.neg")(1) == -1
    doorbell._publisher("none")("default")


def test_ring_is_carried_away_by_another_thread(bell: Any) -> None:
    caller = threading.get_ident()
    threads: list[int] = []
    bell(lambda using: (threads.append(threading.get_ident()), rung.set()))

    doorbell.ring("default")

    assert rung.wait(PATIENCE_SECONDS)
    assert threads
    assert threads[0] != caller


def test_bell_that_hangs_does_not_keep_the_caller(bell: Any) -> None:
    """Redis accepted the connection and said nothing: a request hung for ever."""
    bell(hang)
    doorbell.ring("default")
    assert rung.wait(PATIENCE_SECONDS)

    for _ in range(1000):
        doorbell.ring("default")  # whoever waits here waits for ever

    assert calls == ["default"]


def test_many_rings_become_few(bell: Any) -> None:
    """A thousand registrations in a second need one "look", and one more for those that came during it."""
    bell(hang)
    own = doorbell._bell

    for _ in range(1000):
        doorbell.ring("default")
    assert rung.wait(PATIENCE_SECONDS)
    for _ in range(1000):
        doorbell.ring("default")
    enough.set()

    eventually("all were heard", lambda: not own._rung and not own._publishing)
    assert len(calls) <= 2


@pytest.mark.usefixtures("clock_that_stands_still")
def test_bell_that_breaks_is_left_alone_for_a_while(bell: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Trying a dead broker for each mail costs more than the poll that finds it anyway."""
    bell(break_down)
    own = doorbell._bell

    for _ in range(3):
        own._publish("default")

    assert calls == ["default"]
    assert own._silent_until == NOW + 1
    assert "doorbell failed=ConnectionError silent_seconds=1" in caplog.text


@pytest.mark.usefixtures("clock_that_stands_still")
def test_silence_doubles_up_to_half_a_minute_and_ends_with_a_success(bell: Any) -> None:
    bell(break_down)
    own = doorbell._bell
    silences = []
    for _ in range(7):
        own._silent_until = 0
        own._publish("default")
        silences.append(own._silent_until - NOW)

    bell(hear)
    own._silent_until = 0
    own._publish("default")

    assert silences == [1, 2, 4, 8, 16, 30, 30]
    assert own._failures == 0


def test_listener_in_the_process_hears_even_while_the_bell_is_silent(
    bell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In development the web process itself delivers, whatever the broker does."""
    heard: list[str] = []
    monkeypatch.setattr(doorbell, "on_ring", [heard.append])
    bell(break_down)

    doorbell._bell._publish("default")
    doorbell._bell._publish("default")

    assert heard == ["default", "default"]


def test_no_bell_rings_under_the_test_runner(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection would keep the test database from being dropped."""
    monkeypatch.setattr(doorbell, "_bell", doorbell._Bell())
    settings.POSTROOM = {**settings.POSTROOM, "DOORBELL": f"{__name__}.hear"}

    doorbell.ring("default")

    assert doorbell._bell._pid == 0


def test_bell_begins_again_after_a_fork(bell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads do not survive a fork: a prefork server would have had one deaf bell per child."""
    bell(hear)
    doorbell.ring("default")
    assert rung.wait(PATIENCE_SECONDS)
    rung.clear()

    monkeypatch.setattr(doorbell.os, "getpid", lambda: 4711)
    doorbell.ring("default")

    assert rung.wait(PATIENCE_SECONDS)
    assert doorbell._bell._pid == 4711


@pytest.mark.django_db(databases=["default", "postgres"], transaction=True)
@pytest.mark.parametrize("database", ["postgres"])
def test_notify_wakes_whoever_listens(database: str) -> None:
    listener = connections[database]
    with listener.cursor() as cursor:
        cursor.execute(f"LISTEN {doorbell.CHANNEL}")

    def ring() -> None:
        doorbell._notify(database)

    thread = threading.Thread(target=ring)
    thread.start()
    thread.join()

    assert select.select([listener.connection], [], [], PATIENCE_SECONDS)[0]
    assert [note.channel for note in listener.connection.notifies(timeout=5, stop_after=1)] == ["postroom"]
