"""A file that is written to makes its watch readable; where nothing can be watched, it says so."""

from __future__ import annotations

import select
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom import watch
from postroom.watch import Watch

only_linux_watches = pytest.mark.skipif(sys.platform != "linux", reason="Only Linux has inotify.")


@pytest.fixture
def watching() -> Iterator[Watch]:
    one = Watch()
    yield one
    one.close()


def readable(one: Watch) -> bool:
    poll = select.poll()
    poll.register(one, select.POLLIN)
    return bool(poll.poll(0))


@only_linux_watches
def test_is_readable_after_a_write_until_that_is_forgotten(watching: Watch, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before")
    assert watching.show(str(log))
    assert not readable(watching)

    with log.open("a") as far_side:
        far_side.write("one")
        far_side.flush()
        far_side.write("two")

    assert readable(watching)
    watching.clear()
    assert not readable(watching)


@only_linux_watches
def test_file_that_took_the_place_of_another_is_watched_once_it_is_shown(
    watching: Watch, tmp_path: Path
) -> None:
    """The log of a database is deleted by the last who closes it, and made anew by the next."""
    log = tmp_path / "log"
    log.write_text("old")
    assert watching.show(str(log))
    log.unlink()
    log.write_text("new")
    watching.clear()

    assert watching.show(str(log))
    log.write_text("newer")

    assert readable(watching)


def test_file_that_is_not_there_is_not_watched(watching: Watch, tmp_path: Path) -> None:
    assert not watching.show(str(tmp_path / "none"))


def test_nothing_is_watched_where_the_system_cannot(
    watching: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_libc", lambda: None)
    (tmp_path / "log").touch()

    assert not watching.show(str(tmp_path / "log"))
    assert watching.fileno() < 0
