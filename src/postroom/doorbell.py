"""
Wakes a delivery process after a commit. The table is the queue; this only decides how soon.

``ring()`` sets a flag and returns: a request never waits for a bell. One daemon thread a
process publishes at most one ring per 50 ms and leaves a bell that fails alone for 1, 2, 4 … 30 s.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable

from django.db import connections, transaction
from django.utils.module_loading import import_string

from postroom.conf import config, under_test_runner

logger = logging.getLogger("postroom")

CELERY = "postroom.tasks.publish"
"""Where the bell "celery" lives; a path, because this module must not need Celery."""

CHANNEL = "postroom"
"""PostgreSQL channel of the bell."""

INTERVAL_SECONDS = 0.05
LAST_TRY_SECONDS = 0.5
"""How long the end of a short process waits for the ring that it owes."""

LONGEST_SILENCE_SECONDS = 30

on_ring: list[Callable[[str], None]] = []
"""Called in the bell's thread with the database alias; the development delivery listens here."""


def ring(using: str) -> None:
    """Ask that somebody looks at the outbox in database *using* soon. Never blocks, never raises."""
    _bell.ring(using)


def ring_after_commit(using: str) -> None:
    """Ring once the transaction of *using* that is open now has committed; at once outside of one."""
    # A lambda has a name, which Django 5.2 asks a hook that failed for; functools.partial has none.
    transaction.on_commit(lambda: ring(using), using=using, robust=True)


def kind_for(using: str) -> str:
    """Return which bell serves database *using*: the setting, or NOTIFY where it exists, else none."""
    chosen = config().DOORBELL
    if not chosen:
        chosen = "notify" if connections[using].vendor == "postgresql" else "none"
    return chosen


class _Bell:
    """The flag, and the thread that carries it away. Begun at the first ring, and again after a fork."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget everything, the thread included."""
        self._rung: set[str] = set()
        self._owed: set[str] = set()
        self._flag = threading.Event()
        self._lock = threading.Lock()
        self._pid = 0
        self._silent_until = 0.0
        self._failures = 0
        self._publishing = False

    def ring(self, using: str) -> None:
        # Under Django's test runner nobody listens, and a connection of our own would keep
        # the test database from being dropped.
        if under_test_runner() or (kind_for(using) == "none" and not on_ring):
            return
        self._rung.add(using)
        if self._pid != os.getpid():
            self._begin()
        self._flag.set()

    def _begin(self) -> None:
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                threading.Thread(target=self._run, name="postroom-doorbell", daemon=True).start()
                atexit.register(self._last_try)

    def _last_try(self) -> None:
        deadline = time.monotonic() + LAST_TRY_SECONDS
        while (self._rung or self._publishing) and time.monotonic() < deadline:
            time.sleep(INTERVAL_SECONDS / 10)

    def _run(self) -> None:
        while True:
            self._flag.wait(max(self._silent_until - time.monotonic(), 0) if self._owed else None)
            self._flag.clear()
            if time.monotonic() >= self._silent_until:
                self._rung |= self._owed
                self._owed.clear()
            self._publishing = True
            # What rings from now on waits for the next turn: a burst must not be a connection an e-mail.
            for using in list(self._rung):
                self._rung.discard(using)
                self._publish(using)
            self._publishing = False
            time.sleep(INTERVAL_SECONDS)

    def _publish(self, using: str) -> None:
        for listener in on_ring:
            try:
                listener(using)
            except Exception:
                logger.exception("doorbell listener failed")
        if time.monotonic() < self._silent_until:
            self._owed.add(using)
            return
        try:
            _publisher(kind_for(using))(using)
            self._failures = 0
        except Exception as error:  # noqa: BLE001 - the bell may fail in any way its library likes; mail only goes later
            self._failures += 1
            self._owed.add(using)
            silence = min(2 ** (self._failures - 1), LONGEST_SILENCE_SECONDS)
            self._silent_until = time.monotonic() + silence
            logger.warning("doorbell failed=%s silent_seconds=%s", type(error).__name__, silence)


def _publisher(kind: str) -> Callable[[str], None]:
    if kind == "none":
        return lambda using: None
    if kind == "notify":
        return _notify
    publisher: Callable[[str], None] = import_string(CELERY if kind == "celery" else kind)
    return publisher


def _notify(using: str) -> None:
    """Publish over a connection of this thread's own, closed at once: web processes keep none for it."""
    connection = connections[using]
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [CHANNEL])
    finally:
        connection.close()


_bell = _Bell()

# A lock that another thread held at the fork would stay locked in the child, for ever.
os.register_at_fork(after_in_child=_bell.begin_anew)
