"""
Waits until there may be something to do, without asking the table in vain.

Owns what wakes a worker: a socket pair (a sender has finished, stop), NOTIFY on the loop's own
connection (PostgreSQL), ``PRAGMA data_version`` (SQLite: another process has committed), else time.
"""

from __future__ import annotations

import os
import select
import socket
import time
from typing import Any

from django.db import connections

from postroom import doorbell

DATA_VERSION_SECONDS = 0.035
"""
How often a worker on SQLite asks whether somebody else committed. The question takes 5 µs; waking
up for it is what costs (0.3 % of a core at 40 a second, 2026-11).
"""


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

    def wake(self) -> None:
        """End the wait of the loop. Any thread, any time."""
        try:
            self._far.send(b".")
        except (BlockingIOError, OSError):
            pass  # full: it is awake already; closed: nobody waits

    def listen(self) -> None:
        """
        LISTEN, once on each connection; to be called before every look at the table.

        Only then is nothing missed: what is committed before the look is seen by it, and what is
        committed later rings. A ring that comes in with the answer of a query calls the handler,
        one that comes later makes the connection readable.
        """
        if connections[self._using].vendor != "postgresql" or doorbell.kind_for(self._using) != "notify":
            return
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

    def wait(self, seconds: float, *, rings: bool = True) -> None:
        """Return after *seconds* at the latest; without *rings* commits of others do not count."""
        if not rings or connections[self._using].vendor != "sqlite":
            self._poll(self.sources(rings=rings), seconds)
            return
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._near, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            woken = poll.poll(min(DATA_VERSION_SECONDS, left) * 1000)
            if woken or self.somebody_committed():
                self.heard()
                return

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
        return known != version

    def close(self) -> None:
        """Let go of the sockets."""
        self._hang_up()
        self._near.close()
        self._far.close()

    def _hang_up(self) -> None:
        if self._line is not None:
            os.close(self._line)
        self._line = self._listening_on = None

    def _poll(self, sources: list[Any], seconds: float) -> bool:
        # Not select(): it refuses the 1,024th descriptor of a process with a thousand senders.
        poll = select.poll()
        for source in sources:
            poll.register(source, select.POLLIN)
        ready = [number for number, _ in poll.poll(max(seconds, 0) * 1000)]
        if self._near.fileno() in ready:
            self.heard()
        return bool(ready)
