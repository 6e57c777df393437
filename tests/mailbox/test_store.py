"""The mailbox's file, shared by threads and processes that know nothing of each other."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from postroom.mailbox.store import KEEP, MailboxUnusableError, Outcome, Store

if TYPE_CHECKING:
    from pathlib import Path

WRITER = """
import sys
import postroom.mailbox.store
from postroom.mailbox.store import Outcome, Store

postroom.mailbox.store.BUSY_SECONDS = 60
store = Store(sys.argv[1])
for turn in range(50):
    letter_id = add(store, f"{sys.argv[2]}.{turn}@example.com")
    store.answer(letter_id, Outcome.ACCEPTED, message_id=f"<{letter_id}@provider>")
"""
ADD = """
def add(store, address):
    return store.add(
        mailer="post", email_uuid="", sender="shop@example.com", recipients=[address], subject="Hello", source=b"x" * 9000
    )
"""


def add(store: Store, address: str = "ann@example.com") -> int:
    return store.add(
        mailer="post",
        email_uuid="",
        sender="shop@example.com",
        recipients=[address],
        subject="Hello",
        source=b"Subject: Hello\n\nHello",
    )


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes waits for a turn as long as a busy machine needs: SQLite keeps no queue."""
    monkeypatch.setattr("postroom.mailbox.store.BUSY_SECONDS", 60)


@pytest.mark.usefixtures("patience")
def test_several_processes_begin_one_file_at_once_and_lose_nothing(path: Path, store: Store) -> None:
    """A worker and a web process start together, and the file is not there yet."""
    writers = [
        subprocess.Popen([sys.executable, "-c", ADD + WRITER, str(path), str(number)]) for number in range(4)
    ]
    read: list[int] = []
    while any(writer.poll() is None for writer in writers):
        read.append(len(store.newest(with_source=True)))

    letters = store.newest()
    assert [writer.returncode for writer in writers] == [0, 0, 0, 0]
    assert {letter.recipients[0] for letter in letters} == {
        f"{number}.{turn}@example.com" for number in range(4) for turn in range(50)
    }
    assert all(letter.message_id == f"<{letter.id}@provider>" for letter in letters)
    assert read == sorted(read)


@pytest.mark.usefixtures("patience")
def test_many_threads_write_while_others_read(store: Store) -> None:
    failed: list[Exception] = []

    def write() -> None:
        try:
            for _ in range(10):
                store.answer(add(store), Outcome.ACCEPTED)
                store.newest("ann@example.com", limit=5)
        except MailboxUnusableError as error:
            failed.append(error)

    threads = [threading.Thread(target=write) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert len(store.newest()) == 240


def test_the_file_keeps_the_newest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.mailbox.store.KEEP", 5)
    added = [add(store) for _ in range(8)]

    assert KEEP == 500
    assert [letter.id for letter in store.newest()] == added[:2:-1]


def test_an_id_is_never_given_out_twice(store: Store) -> None:
    """An address of a page in somebody's history must not lead to another e-mail."""
    first = add(store)
    store.clear()

    assert add(store) > first
    assert store.get(first) is None


def test_letters_are_found_by_recipient_whatever_the_case(store: Store) -> None:
    add(store, "Ann@Example.com")
    add(store, "joann@example.com")

    assert [letter.recipients for letter in store.newest("ann@example.COM")] == [("Ann@Example.com",)]


def test_an_answer_without_an_id_keeps_the_one_that_is_there(store: Store) -> None:
    letter_id = add(store)
    store.answer(letter_id, Outcome.ACCEPTED, message_id="<1@provider>")
    store.answer(letter_id, Outcome.ERROR, answer="late")

    letter = store.get(letter_id)
    assert letter is not None
    assert (letter.outcome, letter.answer, letter.message_id) == (Outcome.ERROR, "late", "<1@provider>")


def test_looking_makes_no_file(path: Path, store: Store) -> None:
    assert store.newest() == []
    assert store.get(1) is None
    store.clear()

    assert not path.exists()
    assert not path.parent.exists()


def test_a_file_of_another_version_is_begun_again(path: Path, store: Store) -> None:
    """After an update: an old file must not keep a developer from seeing new e-mails."""
    path.parent.mkdir()
    old = sqlite3.connect(path)
    old.execute("CREATE TABLE letter (id INTEGER PRIMARY KEY, words TEXT)")
    old.execute("PRAGMA user_version = 99")
    old.close()

    assert store.newest() == []
    add(store)

    assert [letter.subject for letter in store.newest()] == ["Hello"]


def test_a_broken_file_is_named(path: Path, store: Store) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database, and long enough to be looked at" * 100)

    with pytest.raises(MailboxUnusableError, match="not a database") as caught:
        store.newest()
    assert str(path) in str(caught.value)
