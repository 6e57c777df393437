"""What wakes a worker, and what must not end it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from postroom import watch
from postroom.ears import Ears
from postroom.models import OutboundEmail

PATIENCE_SECONDS = 30
VERSIONS = itertools.count(1)

only_linux_watches = pytest.mark.skipif(sys.platform != "linux", reason="Only Linux has inotify.")


@pytest.mark.django_db(transaction=True, databases=["default", "postgres", "mariadb"])
@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_connection_that_is_lost_in_the_middle_of_a_wait_ends_no_worker(database: str) -> None:
    """
    A receiver of the site asked the database while e-mails were in flight, and found out that the
    server had gone. Letting go of the dead connection's descriptor raised what Django does not
    wrap, and the worker died of it.
    """
    import psycopg

    ears, loop = Ears(database), asyncio.new_event_loop()
    try:
        ears.listen()
        raw = connections[database].connection
        sources = ears.sources(rings=True)
        for source in sources:
            loop.add_reader(source, loop.stop)

        with psycopg.connect(raw.info.dsn, host=raw.info.host) as administrator:
            administrator.execute("SELECT pg_terminate_backend(%s)", [raw.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            raw.execute("SELECT 1")

        assert [loop.remove_reader(source) for source in sources] == [True] * len(sources) == [True, True]
        ears.wait(0.1)
    finally:
        ears.close()
        loop.close()
        connections[database].close()


@pytest.fixture
def sqlite(transactional_db: None) -> Iterator[sqlite3.Connection]:
    """What another process has of the database, which is a file with a log of its own (WAL)."""
    if connections["default"].vendor != "sqlite":
        pytest.skip("This run has another database in the place of SQLite: what is tested is about SQLite.")
    other = sqlite3.connect(connections["default"].settings_dict["NAME"], check_same_thread=False)
    yield other
    other.close()


@pytest.fixture
def listening(sqlite: sqlite3.Connection) -> Iterator[Ears]:
    """The ears of a worker that has looked at the table, and would see what is committed from now on."""
    ears = Ears("default")
    OutboundEmail.objects.exists()
    ears.listen()
    ears.somebody_committed()
    yield ears
    ears.close()


@pytest.fixture
def answers(listening: Ears, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What the database said each time it was asked whether somebody committed."""
    said: list[bool] = []
    ask = listening.somebody_committed

    def note() -> bool:
        said.append(ask())
        return said[-1]

    monkeypatch.setattr(listening, "somebody_committed", note)
    return said


def commit(other: sqlite3.Connection) -> None:
    with other:
        other.execute(f"PRAGMA user_version = {next(VERSIONS)}")


@only_linux_watches
def test_worker_on_sqlite_sleeps_while_nobody_writes(listening: Ears, answers: list[bool]) -> None:
    """It asked 28 times a second, day and night, and each time its process was woken for it."""
    listening.wait(0.2)

    assert answers == []


def test_commit_of_another_connection_ends_the_wait(
    listening: Ears, answers: list[bool], sqlite: sqlite3.Connection
) -> None:
    other = threading.Thread(target=commit, args=[sqlite])
    other.start()

    listening.wait(PATIENCE_SECONDS)

    other.join()
    assert answers[-1] is True


def test_commit_that_is_seen_later_than_it_is_written_ends_the_wait(
    listening: Ears, sqlite: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite writes a commit to its log, waits for the disk, and then lets others see it."""
    answers = [True, False, False]
    monkeypatch.setattr(listening, "somebody_committed", answers.pop)
    commit(sqlite)

    listening.wait(PATIENCE_SECONDS)

    assert answers == []


def test_commit_is_not_forgotten_when_the_worker_was_woken_meanwhile(
    listening: Ears, answers: list[bool], sqlite: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Woken between the write and the moment from which it can be seen, it looks at the table in vain."""
    commit(sqlite)
    poll = listening._poll

    def wake_before_it_can_be_seen(sources: list[Any], seconds: float) -> list[int]:
        if len(sources) == 1:
            listening.wake()
        return poll(sources, seconds)

    monkeypatch.setattr(listening, "_poll", wake_before_it_can_be_seen)
    listening.wait(PATIENCE_SECONDS)
    assert answers == []

    monkeypatch.setattr(listening, "_poll", poll)
    listening.wait(PATIENCE_SECONDS)

    assert answers[-1] is True


def test_worker_that_is_woken_and_hears_a_commit_at_once_does_not_wait(
    listening: Ears, answers: list[bool], sqlite: sqlite3.Connection
) -> None:
    """Both in the same moment: whoever woke it must not wait until the commit can be seen."""
    commit(sqlite)
    listening.wake()

    listening.wait(PATIENCE_SECONDS)
    assert answers == []
    listening.wait(PATIENCE_SECONDS)

    assert answers[-1] is True


def test_commit_is_heard_where_nothing_can_be_watched(
    sqlite: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS has no inotify, and Linux gives a user no more than so many: there the worker asks."""
    monkeypatch.setattr(watch, "_libc", lambda: None)
    ears = Ears("default")
    try:
        ears.listen()
        ears.somebody_committed()
        other = threading.Thread(target=commit, args=[sqlite])
        other.start()

        ears.wait(PATIENCE_SECONDS)

        other.join()
        assert not ears.somebody_committed()  # so the wait has heard it
    finally:
        ears.close()


@only_linux_watches
def test_log_that_was_made_anew_is_watched_at_the_next_look(
    listening: Ears, answers: list[bool], sqlite: sqlite3.Connection
) -> None:
    """The last one who closes the database deletes its log: what is watched then is a file without a name."""
    path = connections["default"].settings_dict["NAME"]
    sqlite.close()
    connections["default"].close()
    assert not Path(f"{path}-wal").exists()

    listening.listen()
    OutboundEmail.objects.exists()
    listening.listen()
    listening.somebody_committed()
    listening.wait(0.1)  # what was written before
    with contextlib.closing(sqlite3.connect(path)) as other:
        commit(other)
        listening.wait(PATIENCE_SECONDS)

        assert answers.pop() is True
        answers.clear()
        listening.wait(0.2)
        assert answers == []


def test_connection_that_was_closed_since_the_last_look_is_not_trusted(
    listening: Ears, sqlite: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A composer closed it, nobody else had one, and the log that is watched has gone with it."""
    path = connections["default"].settings_dict["NAME"]
    sqlite.close()
    connections["default"].close()
    answers: list[bool] = []
    ask = listening.somebody_committed
    with contextlib.closing(sqlite3.connect(path)) as other:

        def note_and_commit() -> bool:
            answers.append(ask())
            commit(other)
            return answers[-1]

        monkeypatch.setattr(listening, "somebody_committed", note_and_commit)
        listening.wait(PATIENCE_SECONDS)

    assert answers[-1] is True
