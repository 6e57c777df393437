"""
The thread that shows that a worker is alive: it renews leases and writes the heartbeat row.

It has a database connection of its own, so that neither waits for a slow composer. Alive is not
working: ``last_turn_at`` comes from the loop that delivers, ``seen_at`` from here. Both are written
by the clock of the database: a host whose own is wrong must not look dead to the others.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db import Error as DatabaseFailure
from django.db import connections
from django.utils.crypto import salted_hmac

import postroom
from postroom import outbox
from postroom.conf import config
from postroom.models import WorkerHeartbeat
from postroom.ops.words import database_label
from postroom.statements import clock_now

if TYPE_CHECKING:
    from postroom.worker import Worker

logger = logging.getLogger("postroom")

BEAT_SECONDS = 2.0
"""How often the heartbeat row is written."""


class Pulse:
    """The heartbeat of one worker; ``heartbeat=False`` on the worker leaves it the leases alone."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="postroom-pulse", daemon=True)
        self._started = self._turned = self._renewed = time.monotonic()
        self.doing = "starting"

    def start(self) -> None:
        """Say hello, in the caller's thread: a database that refuses to be written is found out here."""
        if self._worker.heartbeat:
            self._introduce()
        self._thread.start()

    def turned(self) -> None:
        """The loop has finished a turn: alive *and* working."""
        self._turned, self.doing = time.monotonic(), "idle"

    def stop(self, reason: str) -> None:
        """Say goodbye, if ``start`` came as far as a hello."""
        self._end.set()
        if self._thread.ident is None:
            return
        self._thread.join(timeout=5)
        try:
            self._beat(stopped_at=clock_now(self._worker.using), stop_reason=reason[:200])
        except DatabaseFailure:
            logger.warning("heartbeat: no goodbye, the database does not answer")

    def _run(self) -> None:
        third = config().LEASE_SECONDS / 3
        while not self._end.wait(min(third, BEAT_SECONDS) if self._worker.heartbeat else third):
            try:
                self._renew()
                if not self._end.is_set():  # a goodbye that did not wait for a slow database stands
                    self._beat()
            except DatabaseFailure as error:
                logger.warning("heartbeat failed=%s", type(error).__name__)
                connections[self._worker.using].close()
        connections[self._worker.using].close()

    def _renew(self) -> None:
        """
        Renew every third of a lease, but no attempt beyond its time: a composer or a provider that
        hangs for ever must not hold its e-mail for ever, even where the loop itself hangs with it.
        """
        now = time.monotonic()
        if now - self._renewed >= config().LEASE_SECONDS / 3 - 0.01:
            self._renewed = now
            lively = self._worker.holds(since=now - config().ATTEMPT_SECONDS, turned=self._turned)
            # As of before the question: this process may stand still between the answer and the next line.
            self._worker.renewed(outbox.renew(lively, using=self._worker.using), at=now)

    def _introduce(self) -> None:
        worker, now = self._worker, clock_now(self._worker.using)
        WorkerHeartbeat.objects.using(worker.using).update_or_create(
            name=worker.name,
            defaults={
                "started_at": _before(now, self._started),
                "seen_at": now,
                "host": worker.name.partition("/")[0][:100],
                "pid": int(worker.name.rpartition("/")[2].partition("-")[0] or 0),
                "concurrency": worker.concurrency,
                "version": postroom.__version__,
                "database": database_label(worker.using)[:128],
                "fingerprint": fingerprint(),
                "stopped_at": None,
                "stop_reason": "",
            },
        )

    def _beat(self, **goodbye: Any) -> None:
        worker = self._worker
        if not worker.heartbeat:
            return
        now = clock_now(worker.using)
        facts = {
            "seen_at": now,
            "last_turn_at": _before(now, self._turned),
            "doing": self.doing,
            "in_hand": len(worker.in_hand),
            # Of two containers that share the name of a host both may be its process 1, and one has stopped.
            "stopped_at": None,
            "stop_reason": "",
            **goodbye,
        }
        row = WorkerHeartbeat.objects.using(worker.using).filter(name=worker.name)
        if not row.update(**facts):  # somebody deleted it: a worker that nobody sees is taken for dead
            self._introduce()
            row.update(**facts)


def _before(now: datetime, then: float) -> datetime:
    """The instant of *then*, monotonic seconds of this process, by the clock that says *now*."""
    return now - timedelta(seconds=time.monotonic() - then)


def fingerprint() -> str:
    """Return a digest of what links are made of: two processes that differ make links that do not work."""
    return salted_hmac("postroom.fingerprint", config().SITE_URL, algorithm="sha256").hexdigest()[:16]
