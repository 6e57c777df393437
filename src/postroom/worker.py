"""
The delivery process that needs no broker.

Three kinds of threads, two database connections. The *loop* (the caller's thread) claims,
composes and settles. The *pulse* renews leases and writes the heartbeat. The *senders* talk to
the provider and never touch the database. ``Senders`` is the seam behind which something faster
than threads may stand.
"""

from __future__ import annotations

import logging
import math
import queue
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType
from typing import Any

from django.conf import settings
from django.db import Error as DatabaseFailure
from django.db import InterfaceError, OperationalError, connections, router
from django.utils import timezone
from django.utils.crypto import salted_hmac

import postroom
from postroom import delivery, doorbell, mailers, outbox
from postroom.conf import config
from postroom.delivery import Prepared
from postroom.failures import FailureClass, Fate, Verdict
from postroom.ledger import Result
from postroom.models import UNSETTLED, OutboundEmail, OutboundEmailQuerySet, WorkerHeartbeat
from postroom.ops.words import database_label
from postroom.statements import clock

logger = logging.getLogger("postroom")

DATA_VERSION_SECONDS = 0.025
"""How often a worker on SQLite asks whether somebody else committed (5 µs a look)."""

HEARD_WITHIN_SECONDS = 60
"""A worker that wrote no heartbeat for longer is gone."""

SETTLE_AT_ONCE = 200
"""Most results written in one transaction."""

DATABASE_PAUSE_SECONDS = 1.0


class Senders:
    """
    Sends messages in threads of its own and reports how they ended.

    ``start(prepared)`` returns at once; finished Results come out of ``finished()``. A send that
    outlives ``ATTEMPT_SECONDS`` is given up with ``abandon``: its thread is replaced, and whatever
    it says later is still reported, so that a late acceptance is not lost.
    """

    def __init__(self, size: int, wake: Callable[[], None]) -> None:
        self._size, self._wake = size, wake
        self._work: queue.SimpleQueue[Prepared | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._threads = 0

    def start(self, prepared: Prepared) -> None:
        """Send soon, in another thread; at most ``size`` at once."""
        self._work.put(prepared)
        if self._threads < self._size:
            self._add_thread()

    def abandon(self) -> None:
        """Begin one more thread in the place of one that hangs."""
        self._add_thread()

    def finished(self) -> list[Result]:
        """Return what has ended since the last call, at most SETTLE_AT_ONCE of it."""
        results: list[Result] = []
        while len(results) < SETTLE_AT_ONCE:
            try:
                results.append(self._done.get_nowait())
            except queue.Empty:
                break
        return results

    def stop(self) -> None:
        """Let the threads end when they have nothing in hand; those that hang die with the process."""
        for _ in range(self._threads):
            self._work.put(None)

    def _add_thread(self) -> None:
        self._threads += 1
        threading.Thread(target=self._run, name=f"postroom-sender-{self._threads}", daemon=True).start()

    def _run(self) -> None:
        while (prepared := self._work.get()) is not None:
            result = delivery.send(prepared)
            # A receiver of post_send may have used the database in this thread.
            delivery.close_connections()
            self._done.put(result)
            self._wake()
        mailers.close_all()


@dataclass(slots=True)
class Held:
    """One e-mail in hand and when its attempt began (monotonic seconds)."""

    email: OutboundEmail
    since: float = field(default_factory=time.monotonic)


class Worker:
    """
    Delivers until it is told to stop.

    ``run()`` returns after ``stop()`` (SIGTERM), or with *until_empty* when nothing is due and
    nothing is in hand. Safe in any number, beside any other worker.
    """

    def __init__(
        self,
        *,
        using: str | None = None,
        concurrency: int | None = None,
        until_empty: bool = False,
        release_stale: bool = False,
        name: str | None = None,
        keep_on: Callable[[], bool] = lambda: True,
    ) -> None:
        self.using = using or router.db_for_write(OutboundEmail)
        self.concurrency = concurrency or config().CONCURRENCY
        self.until_empty, self.release_stale, self.keep_on = until_empty, release_stale, keep_on
        self.name = name or delivery.worker_name()
        self.mailer = mailers.names()[0]
        self.keyed = mailers.get(self.mailer).keyed
        self.in_hand: dict[int, Held] = {}
        self.sent = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._stop_reason = ""
        self._ears = _Ears(self.using)
        self._senders = Senders(self.concurrency, self._ears.wake)
        self._pulse = _Pulse(self)
        self._rescued_at = 0.0

    def run(self) -> None:
        """Deliver. Errors of the database are waited out; a claim that is lost meanwhile is nobody's loss."""
        self._pulse.start()
        try:
            while not self._stopping.is_set() and self.keep_on():
                if not self._guarded_turn():
                    break
            self._finish()
        finally:
            self._senders.stop()
            self._pulse.stop(self._stop_reason or "done")
            self._ears.close()

    def stop(self, reason: str) -> None:
        """Claim nothing more, finish what is in hand, hand back the rest. May be called from any thread."""
        self._stop_reason = reason
        self._stopping.set()
        self._ears.wake()

    def holds(self, *, since: float = -math.inf) -> list[OutboundEmail]:
        """Return the e-mails in hand whose attempts began after *since* (monotonic seconds)."""
        with self._lock:
            return [held.email for held in self.in_hand.values() if held.since > since]

    def _guarded_turn(self) -> bool:
        try:
            return self._turn()
        except DatabaseFailure as error:
            # Restarted, locked or out of connections: mail waits, the worker does not die of it.
            logger.warning("database failed=%s; the worker waits", type(error).__name__)
            connections[self.using].close()
            self._stopping.wait(DATABASE_PAUSE_SECONDS)
            return True

    def _turn(self) -> bool:
        """One look at the world: settle, rescue, claim, compose; then wait. False: nothing left to do."""
        self._settle()
        self._give_up_what_hangs()
        self._rescue()
        self._ears.listen()
        claimed = self._claim()
        self._pulse.turned("idle")
        if claimed:
            return True
        if self.until_empty and not self.in_hand:
            return False
        self._ears.wait(config().POLL_INTERVAL_SECONDS, rings=len(self.in_hand) < self.concurrency)
        return True

    def _claim(self) -> bool:
        """Take no more than there are free slots; a tenth of them is kept for urgent e-mails."""
        self._pulse.doing = "claim"
        free = self.concurrency - len(self.in_hand)
        if free <= 0 or not self._rows().due(clock(self.using)).exists():
            # Looked at before it is written to: an idle worker takes no write lock, which on SQLite
            # would keep everybody waiting if the process were frozen in that very moment.
            return False
        kept = self.concurrency // 10
        emails = self._take(min(free - kept, SETTLE_AT_ONCE)) if free > kept else []
        if kept and len(emails) == max(free - kept, 0):
            emails += self._take(min(kept, free), urgent_only=True)
        if not emails and not self.in_hand:
            # Only with nothing else in hand: it has killed two workers.
            emails = self._take(1, alone=True)
        for email in emails:
            self._begin(email)
        return bool(emails)

    def _take(self, limit: int, *, urgent_only: bool = False, alone: bool = False) -> list[OutboundEmail]:
        emails = outbox.claim(
            limit,
            worker=self.name,
            mailer=self.mailer,
            keyed=self.keyed,
            urgent_only=urgent_only,
            alone=alone,
            release_stale=self.release_stale,
            using=self.using,
        )
        with self._lock:
            self.in_hand.update({email.pk: Held(email) for email in emails})
        return emails

    def _begin(self, email: OutboundEmail) -> None:
        self._pulse.doing = "compose"
        ready = delivery.prepare(email)
        if isinstance(ready, Prepared):
            self._senders.start(ready)
        else:
            self._write([ready])

    def _settle(self) -> None:
        while results := self._senders.finished():
            self._pulse.doing = "settle"
            self._write(results)

    def _write(self, results: list[Result]) -> None:
        """Settle *results*, however long the database is away: what a provider said must not be forgotten."""
        while True:
            try:
                delivery.settle(results, using=self.using)
                break
            except (OperationalError, InterfaceError) as error:
                logger.warning(
                    "settle failed=%s results=%s; trying again", type(error).__name__, len(results)
                )
                connections[self.using].close()
                time.sleep(DATABASE_PAUSE_SECONDS)
            except DatabaseFailure:
                if len(results) > 1:  # one of them cannot be written: the others must not suffer for it
                    for result in results:
                        self._write([result])
                    return
                logger.exception("settle refused email=%s; its lease runs out", results[0].email.uuid)
                break
        self.sent += len(results)
        self._let_go(results)

    def _let_go(self, results: list[Result]) -> None:
        with self._lock:
            for result in results:
                held = self.in_hand.get(result.email.pk)
                if held and held.email.attempt == result.email.attempt:
                    del self.in_hand[result.email.pk]

    def _give_up_what_hangs(self) -> None:
        """An attempt beyond ATTEMPT_SECONDS goes the way of doubt, and its slot is replaced."""
        limit = time.monotonic() - config().ATTEMPT_SECONDS
        hanging = [held.email for held in list(self.in_hand.values()) if held.since < limit]
        for email in hanging:
            self._senders.abandon()
            self._write([Result(email=email, verdict=_no_answer("no answer within ATTEMPT_SECONDS"))])

    def _rescue(self) -> None:
        if time.monotonic() - self._rescued_at < config().POLL_INTERVAL_SECONDS:
            return
        self._rescued_at = time.monotonic()
        if self._rows().abandoned(clock(self.using)).exists():
            outbox.rescue(worker=self.name, using=self.using)

    def _rows(self) -> OutboundEmailQuerySet:
        return OutboundEmail.objects.using(self.using)

    def _finish(self) -> None:
        """Wait up to STOP_SECONDS for what is in hand; then it is in doubt and goes back."""
        deadline = time.monotonic() + config().STOP_SECONDS
        while self.in_hand and time.monotonic() < deadline:
            self._settle()
            self._give_up_what_hangs()
            if self.in_hand:
                self._ears.wait(0.1, rings=False)
        left = self.holds()
        if left:
            unanswered = _no_answer(
                "handed back: the worker stopped before the provider answered", strike=False
            )
            self._write([Result(email=email, verdict=unanswered) for email in left])


class _Pulse:
    """The thread that shows that the worker is alive: leases and the heartbeat row, on its own connection."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="postroom-pulse", daemon=True)
        self._last_turn = timezone.now()
        self._renewed_at = time.monotonic()
        self.doing = "starting"

    def start(self) -> None:
        worker = self._worker
        now = timezone.now()
        WorkerHeartbeat.objects.using(worker.using).update_or_create(
            name=worker.name,
            defaults={
                "started_at": now,
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
        self._thread.start()

    def turned(self, doing: str) -> None:
        """The loop has finished a turn: alive *and* working."""
        self._last_turn, self.doing = timezone.now(), doing

    def stop(self, reason: str) -> None:
        self._end.set()
        self._thread.join(timeout=5)
        try:
            self._beat(stopped_at=timezone.now(), stop_reason=reason[:200])
        except DatabaseFailure:
            logger.warning("heartbeat: no goodbye, the database does not answer")

    def _run(self) -> None:
        interval = min(config().LEASE_SECONDS / 3, 2.0)
        while not self._end.wait(interval):
            try:
                self._renew()
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
        if now - self._renewed_at >= config().LEASE_SECONDS / 3 - 0.01:
            self._renewed_at = now
            lively = self._worker.holds(since=now - config().ATTEMPT_SECONDS)
            outbox.renew(lively, using=self._worker.using)

    def _beat(self, **more: object) -> None:
        worker = self._worker
        WorkerHeartbeat.objects.using(worker.using).filter(name=worker.name).update(
            seen_at=timezone.now(),
            last_turn_at=self._last_turn,
            doing=self.doing,
            in_hand=len(worker.in_hand),
            **more,
        )


class _Ears:
    """
    Waits until there may be something to do, without asking the table in vain.

    Wakes by a socket pair (a sender has finished, stop), by NOTIFY on the loop's own connection
    (PostgreSQL), by ``PRAGMA data_version`` (SQLite: another process has committed), else by time.
    """

    def __init__(self, using: str) -> None:
        self._using = using
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)
        self._listening_on: Any = None
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
            self._listening_on = wrapper.connection
            if hasattr(wrapper.connection, "add_notify_handler"):  # psycopg 3
                wrapper.connection.add_notify_handler(lambda _: self.wake())

    def wait(self, seconds: float, *, rings: bool = True) -> None:
        """Return after *seconds* at the latest; without *rings* commits of others do not count."""
        if not rings:
            self._select([self._near], seconds)
            return
        vendor = connections[self._using].vendor
        if vendor == "sqlite":
            self._wait_for_commit(seconds)
        elif self._listening_on is not None and self._listening_on is connections[self._using].connection:
            self._select([self._near, self._listening_on], seconds)
        else:
            self._select([self._near], seconds)

    def close(self) -> None:
        self._near.close()
        self._far.close()

    def _select(self, sources: list[Any], seconds: float) -> bool:
        # Not select(): it refuses the 1,024th descriptor of a process with a thousand senders.
        poll = select.poll()
        for source in sources:
            poll.register(source, select.POLLIN)
        ready = [number for number, _ in poll.poll(max(seconds, 0) * 1000)]
        if self._near.fileno() in ready:
            try:
                while self._near.recv(4096):
                    pass
            except BlockingIOError:
                pass
        return bool(ready)

    def _wait_for_commit(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._select([self._near], min(DATA_VERSION_SECONDS, left)):
                return
            with connections[self._using].cursor() as cursor:
                cursor.execute("PRAGMA data_version")
                version = cursor.fetchone()[0]
            if version != self._data_version:
                self._data_version = version
                return


@contextmanager
def stop_on_signals(worker: Worker) -> Iterator[None]:
    """SIGTERM and SIGINT stop *worker*; a second one ends the process at once, and rescue does the rest."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL)
        logger.info("stopping signal=%s in_hand=%s", name, len(worker.in_hand))
        worker.stop(name)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_heard(using: str | None = None) -> bool:
    """Whether a delivery process has written its heartbeat lately and said no goodbye."""
    using = using or router.db_for_write(WorkerHeartbeat)
    lately = timezone.now() - timedelta(seconds=HEARD_WITHIN_SECONDS)
    return WorkerHeartbeat.objects.using(using).filter(seen_at__gte=lately, stopped_at__isnull=True).exists()


def fingerprint() -> str:
    """Return a digest of what links are made of: two processes that differ make links that do not work."""
    return salted_hmac("postroom.fingerprint", config().SITE_URL, algorithm="sha256").hexdigest()[:16]


def deliver_while_nobody_does(using: str) -> None:
    """
    In development: deliver in a thread of this process while no worker is heard of.

    Called by the doorbell's thread after a commit; prints one line that says so.
    """
    with _embedded_lock:
        if _embedded.get(using) or not settings.DEBUG:
            return
        _embedded[using] = True
    threading.Thread(target=_embed, args=(using,), name="postroom-embedded", daemon=True).start()


def _embed(using: str) -> None:
    """Deliver while there is nobody else; a worker that died a moment ago still counts as heard."""
    name = f"{delivery.worker_name()}-web"
    try:
        while is_heard(using):
            if not OutboundEmail.objects.using(using).filter(state__in=UNSETTLED).exists():
                return
            time.sleep(HEARD_WITHIN_SECONDS / 30)
        logger.warning(
            "no worker is heard of, so this process delivers itself (DEBUG): manage.py postroom_worker"
        )
        Worker(using=using, concurrency=4, name=name, keep_on=lambda: not _others(using, name)).run()
    finally:
        _embedded[using] = False
        delivery.close_connections()


def _others(using: str, name: str) -> bool:
    lately = timezone.now() - timedelta(seconds=HEARD_WITHIN_SECONDS)
    beats = WorkerHeartbeat.objects.using(using).filter(seen_at__gte=lately, stopped_at__isnull=True)
    return beats.exclude(name=name).exists()


def _no_answer(detail: str, *, strike: bool = True) -> Verdict:
    return Verdict(
        failure=FailureClass.UNCERTAIN,
        fate=Fate.DOUBT,
        strike=strike,
        retry_after=None,
        detail=detail,
        fingerprint="",
    )


_embedded: dict[str, bool] = {}
_embedded_lock = threading.Lock()
