"""
The mailbox's file: letters as they were composed, and what the mailer answered.

Owns one SQLite file and hides that it is one: callers get ``Letter`` values and ``MailboxUnusableError``,
never ``sqlite3``. Each call opens the file anew (0.5 ms). So any number of threads and processes
may write while others read, a fork inherits nothing, and a file that is deleted while everything
runs is simply begun again.
"""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

KEEP: Final = 500
"""So many letters stay in the file; the oldest give way."""

BUSY_SECONDS: Final = 5.0
"""The longest wait for another process that is writing."""

SCHEMA_VERSION: Final = 1
"""Raised with every change of the table. A file of another version is begun again: nothing in it is precious."""

_LARGEST_ID: Final = 2**63 - 1

_TABLE: Final = """
CREATE TABLE letter (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    composed_at REAL NOT NULL,
    mailer TEXT NOT NULL,
    email_uuid TEXT NOT NULL,
    sender TEXT NOT NULL,
    recipients TEXT NOT NULL,
    subject TEXT NOT NULL,
    outcome TEXT NOT NULL DEFAULT 'waiting',
    answer TEXT NOT NULL DEFAULT '',
    message_id TEXT NOT NULL DEFAULT '',
    answered_at REAL,
    source BLOB NOT NULL
)
"""

_SUMMARY: Final = "id, composed_at, mailer, email_uuid, sender, recipients, subject, outcome, answer, message_id, answered_at"


class Outcome(StrEnum):
    """What became of a letter as far as the recorder saw it."""

    WAITING = "waiting"
    """Given to the mailer, which has not answered; nor will it, where the process died."""

    ACCEPTED = "accepted"
    """The mailer took it."""

    UNSENT = "unsent"
    """The mailer raised nothing and said that it did not send it."""

    ERROR = "error"
    """The mailer raised."""

    KEPT = "kept"
    """Nothing stands behind the mailbox: it was recorded and went nowhere else."""


class MailboxUnusableError(Exception):
    """The file cannot be read or written; the message says which file, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One e-mail as a mailer was given it."""

    id: int
    """Rises with time and is never given out twice, not even after ``clear()``."""

    composed_at: datetime
    mailer: str
    """Alias of the mailer that recorded it; empty where the backend was not told one."""

    email_uuid: str
    """UUID of the row in the outbox; empty for a message that did not come from there."""

    sender: str
    recipients: tuple[str, ...]
    """Bare addresses of all who get it: to, cc and bcc, in this order."""

    subject: str
    outcome: Outcome
    answer: str
    """What the mailer said, in its own words; empty where it only counted."""

    message_id: str
    """The provider's id where the backend told one, else the header ``Message-ID``."""

    answered_at: datetime | None
    source: bytes
    """The whole message as MIME; empty in lists, and where it could not be written as MIME."""


class Store:
    """The letters in the file *path*, which need not exist."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def add(
        self,
        *,
        mailer: str,
        email_uuid: str,
        sender: str,
        recipients: Sequence[str],
        subject: str,
        source: bytes,
    ) -> int:
        """Write down a letter that is about to be sent and return its id; the oldest beyond KEEP go."""
        values = (time.time(), mailer, email_uuid, sender, json.dumps(list(recipients)), subject, source)
        with self._writing() as file:
            cursor = file.execute(
                "INSERT INTO letter (composed_at, mailer, email_uuid, sender, recipients, subject, source)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            letter_id = cursor.lastrowid or 0
            file.execute("DELETE FROM letter WHERE id <= ?", (letter_id - KEEP,))
        return letter_id

    def answer(self, letter_id: int, outcome: Outcome, *, answer: str = "", message_id: str = "") -> None:
        """Write down what the mailer answered. An empty *message_id* leaves the one that is there."""
        with self._writing() as file:
            file.execute(
                "UPDATE letter SET outcome = ?, answer = ?, answered_at = ?,"
                " message_id = coalesce(nullif(?, ''), message_id) WHERE id = ?",
                (outcome.value, answer, time.time(), message_id, letter_id),
            )

    def newest(self, address: str = "", *, limit: int = KEEP, with_source: bool = False) -> list[Letter]:
        """Return letters, the newest first; with *address* only those that it gets (case is ignored)."""
        columns = f"{_SUMMARY}, source" if with_source else f"{_SUMMARY}, x'' AS source"
        sql = f"SELECT {columns} FROM letter"  # noqa: S608 - no part of it comes from outside
        values: list[str | int] = []
        if address:
            sql += " WHERE EXISTS (SELECT 1 FROM json_each(recipients) WHERE lower(value) = lower(?))"
            values.append(address)
        return self._letters(f"{sql} ORDER BY id DESC LIMIT ?", [*values, limit])

    def get(self, letter_id: int) -> Letter | None:
        """Return one letter with its source, or None."""
        if letter_id > _LARGEST_ID:
            return None
        found = self._letters(f"SELECT {_SUMMARY}, source FROM letter WHERE id = ?", [letter_id])  # noqa: S608
        return found[0] if found else None

    def clear(self) -> None:
        """Forget all letters."""
        if self.path.exists():
            with self._writing() as file:
                file.execute("DELETE FROM letter")

    def _letters(self, sql: str, values: Sequence[str | int]) -> list[Letter]:
        """Run one SELECT; a file that does not exist yet holds nothing, and reading does not make it."""
        if not self.path.exists():
            return []
        with self._opened() as file:
            if _version(file) != SCHEMA_VERSION:
                return []
            file.row_factory = sqlite3.Row
            return [_letter(row) for row in file.execute(sql, values)]

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Open the file, make it where it is missing, and give one transaction that may write."""
        if not self.path.exists():
            self._make()
        with self._opened() as file:
            file.execute(
                "PRAGMA synchronous = OFF"
            )  # survives a killed process; a power cut may take letters
            file.execute("BEGIN IMMEDIATE")
            if _version(file) != SCHEMA_VERSION:
                file.execute("DROP TABLE IF EXISTS letter")
                file.execute(_TABLE)
                file.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            yield file
            file.execute("COMMIT")

    def _make(self) -> None:
        """Make folder and file, with the write-ahead log that lets the web read while a worker writes."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MailboxUnusableError(
                f"The mailbox's folder {self.path.parent} cannot be made: {error}"
            ) from error
        with self._opened() as file:
            # Two processes that switch at once: SQLite refuses one of them without waiting.
            deadline = time.monotonic() + BUSY_SECONDS
            while True:
                try:
                    file.execute("PRAGMA journal_mode = WAL")
                    return
                except sqlite3.OperationalError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one use; closing it rolls back what was not committed."""
        try:
            file = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                yield file
            finally:
                file.close()
        except sqlite3.Error as error:
            raise MailboxUnusableError(f"The mailbox's file {self.path} cannot be used: {error}") from error


def _version(file: sqlite3.Connection) -> int:
    return int(file.execute("PRAGMA user_version").fetchone()[0])


def _letter(row: sqlite3.Row) -> Letter:
    return Letter(
        id=row["id"],
        composed_at=datetime.fromtimestamp(row["composed_at"], UTC),
        mailer=row["mailer"],
        email_uuid=row["email_uuid"],
        sender=row["sender"],
        recipients=tuple(json.loads(row["recipients"])),
        subject=row["subject"],
        outcome=Outcome(row["outcome"]),
        answer=row["answer"],
        message_id=row["message_id"],
        answered_at=None if row["answered_at"] is None else datetime.fromtimestamp(row["answered_at"], UTC),
        source=bytes(row["source"]),
    )
