"""
Waits until there may be something to do, without asking the table in vain.

Owns what wakes a worker: a socket pair (a sender has finished, stop), NOTIFY on the loop's own
connection (PostgreSQL), a write to the log of the database followed by ``PRAGMA data_version``
(SQLite: another process has committed), else time.
"""

from __future__ import annotations

import os
import select
import socket
import time
from typing import Any

from django.db import connections

from postroom import doorbell
from postroom.watch import Watch

DATA_VERSION_SECONDS = 0.035
"""
How often a worker on SQLite asks whether somebody else committed where the log cannot be watched,
and how long it leaves others alone after it heard one. The question takes 5 µs; waking up for it
costs ten times as much (0.4 % of a core at 28 a second, 2026-11).
"""

VISIBLE_SECONDS = 0.001
"""A commit can be seen a moment after it was written to the log; with a slow disk between, a long one."""


class Ears:
    """What a worker hears with. ``wake()`` may be called in any thread, the rest in the worker's own."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)
        self._listening_on: Any = None
        self._line: int | None = None
        """
        Our own descriptor of the connection's socket. The connection's is closed in the middle of a
        wait when a receiver of the site finds out that the server has gone, and may be another file then.
        """

        self._data_version: int | None = None
        self._heard_at = 0.0
        self._watch, self._watching = Watch(), False
        self._log, self._log_of = "", None
        """The file that SQLite writes commits to, and the connection that said so."""

        self._written = False
        """Whether the log was written to, and what was written has not been seen as a commit since."""

    def wake(self) -> None:
        """End the wait of the loop. Any thread, any time."""
        try:
            self._far.send(b".")
        except (BlockingIOError, OSError):
            pass  # full: it is awake already; closed: nobody waits

    def listen(self) -> None:
        """
        Begin to hear commits of others; to be called before every look at the table.

        Only then is nothing missed: what is committed before the look is seen by it, and what is
        committed later rings.
        """
        vendor = connections[self._using].vendor
        if vendor == "sqlite":
            self._watch_the_log()
        elif vendor == "postgresql" and doorbell.kind_for(self._using) == "notify":
            self._listen()

    def wait(self, seconds: float, *, rings: bool = True) -> None:
        """Return after *seconds* at the latest; without *rings* commits of others do not count."""
        if rings and connections[self._using].vendor == "sqlite":
            self._wait_for_commit(seconds)
        else:
            self._poll(self.sources(rings=rings), seconds)

    def sources(self, *, rings: bool) -> list[Any]:
        """Return what becomes readable when the wait should end, for who waits in another way."""
        connection = self._listening_on
        if rings and connection is not None and connection is connections[self._using].connection:
            return [self._near, self._line]
        return [self._near]

    def heard(self) -> None:
        """Forget the wake-ups so far: the caller is awake."""
        try:
            while self._near.recv(4096):
                pass
        except (BlockingIOError, OSError):
            pass

    def somebody_committed(self) -> bool:
        """Whether, on SQLite, another connection has committed since the last time this was asked."""
        wrapper = connections[self._using]
        if wrapper.vendor != "sqlite":
            return False
        wrapper.ensure_connection()
        with wrapper.wrap_database_errors:
            # Past Django's cursor, which costs ten times as much as the question.
            version = int(wrapper.connection.execute("PRAGMA data_version").fetchone()[0])
        known, self._data_version = self._data_version, version
        if known != version:
            self._heard_at = time.monotonic()
        return known != version

    def close(self) -> None:
        """Let go of the sockets."""
        self._hang_up()
        self._watch.close()
        self._near.close()
        self._far.close()

    def _listen(self) -> None:
        """
        LISTEN, once on each connection.

        A ring that comes in with the answer of a query calls the handler, one that comes later makes
        the connection readable.
        """
        wrapper = connections[self._using]
        wrapper.ensure_connection()
        if self._listening_on is not wrapper.connection:
            with wrapper.cursor() as cursor:
                cursor.execute(f"LISTEN {doorbell.CHANNEL}")
            self._hang_up()
            with wrapper.wrap_database_errors:
                self._line = os.dup(wrapper.connection.fileno())
            self._listening_on = wrapper.connection
            if hasattr(wrapper.connection, "add_notify_handler"):  # psycopg 3
                wrapper.connection.add_notify_handler(lambda _: self.wake())

    def _watch_the_log(self) -> None:
        """
        Watch the file that every commit in WAL mode is written to; without WAL there is none.

        Again before every look: while nobody was connected another file may have taken its place.
        """
        wrapper = connections[self._using]
        wrapper.ensure_connection()
        if self._log_of is not wrapper.connection:
            with wrapper.wrap_database_errors:
                databases = wrapper.connection.execute("PRAGMA database_list").fetchall()
            self._log = next((f"{file}-wal" for _, name, file in databases if name == "main" and file), "")
            self._log_of = wrapper.connection
        self._watching = bool(self._log) and self._watch.show(self._log)

    def _wait_for_commit(self, seconds: float) -> None:
        """
        Return when another connection has committed, when woken, or after *seconds*; SQLite.

        Asleep until the log is written to, where that can be watched. Whose commit that was, and when
        it can be seen, only ``PRAGMA data_version`` says, which is asked until the time is over.
        """
        deadline, pause = time.monotonic() + seconds, DATA_VERSION_SECONDS
        near, log = self._near.fileno(), self._watch.fileno()
        sources = [near, log] if self._watching else [near]
        while (left := deadline - time.monotonic()) > 0:
            asleep = self._watching and not self._written
            ready = self._poll(sources, left if asleep else min(pause, left))
            if log in ready:
                self._watch.clear()
                self._written = True
                # In a busy database not after every commit: a look at the table costs more than the question.
                pause = max(self._heard_at + DATA_VERSION_SECONDS - time.monotonic(), VISIBLE_SECONDS)
                ready += self._poll([near], min(pause, left))
            if near in ready:
                return
            if not asleep or self._written:
                if self.somebody_committed():
                    break
                pause = min(2 * pause, DATA_VERSION_SECONDS)
        self._written = False

    def _hang_up(self) -> None:
        if self._line is not None:
            os.close(self._line)
        self._line = self._listening_on = None

    def _poll(self, sources: list[Any], seconds: float) -> list[int]:
        """Return the descriptors among *sources* that are readable, after *seconds* at the latest."""
        # Not select(): it refuses the 1,024th descriptor of a process with a thousand senders.
        poll = select.poll()
        for source in sources:
            poll.register(source, select.POLLIN)
        ready = [number for number, _ in poll.poll(max(seconds, 0) * 1000)]
        if self._near.fileno() in ready:
            self.heard()
        return ready
