"""
The delivery process, wherever it lives: ``postroom_worker``, a Celery task, a step of Celery's worker.

Two threads, two database connections. The *loop* (the caller's thread) claims, composes and
settles; ``pulse`` renews leases and writes the heartbeat. ``senders`` talk to the provider and
never touch the database.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType

from django.db import Error as DatabaseFailure
from django.db import InterfaceError, OperationalError, connections, router
from django.utils.functional import cached_property

from postroom import delivery, mailers, outbox
from postroom.conf import config
from postroom.delivery import Prepared
from postroom.ears import Ears
from postroom.ledger import Result
from postroom.models import OutboundEmail, OutboundEmailQuerySet
from postroom.ops.facts import DONE
from postroom.ops.writing import read_only
from postroom.pulse import Pulse
from postroom.senders import SETTLE_AT_ONCE, Senders, senders_for
from postroom.statements import clock

logger = logging.getLogger("postroom")

COMPOSE_SECONDS = 0.02
"""How long messages are written before the senders get their turn again."""

DATABASE_PAUSE_SECONDS = 1.0

ADOPT_SECONDS = 30
"""How often it looks for reports that a killed process has left without their e-mails."""

CRASHED = "an error that nobody expected: its log tells which"
"""Goodbye of a worker that an exception has ended."""

SUSPECT_SECONDS = 30
"""How often a busy worker looks for an e-mail that lost two workers, and makes room to send it alone."""

SUSPECT_DEPTH = 1000
"""How many of the next e-mails it looks at: a backlog of a million must not be read for it."""


@dataclass(slots=True)
class Held:
    """One e-mail in hand. Instants are monotonic seconds."""

    email: OutboundEmail
    renewed: float
    """When its lease was last known to be ours."""

    since: float | None = None
    """When its attempt began; None: it waits to be composed."""

    def is_ours(self) -> bool:
        """Whether nobody else can have taken it: a process that stood still does not know that."""
        return time.monotonic() - self.renewed < config().LEASE_SECONDS


class Worker:
    """
    Delivers until it is told to stop.

    ``run()`` returns after ``stop()`` (SIGTERM), or with *until_empty* when nothing is due and
    nothing is in hand. After *claim_seconds* it claims nothing more, finishes what is in hand and
    returns. It takes only what has been due for *overdue_seconds*: others go first. Without
    *heartbeat* it renews its leases and writes no row about itself: its host is known already.
    Safe in any number, beside any other worker, in any thread.
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
        claim_seconds: float = math.inf,
        overdue_seconds: float = 0,
        heartbeat: bool = True,
    ) -> None:
        self.using = using or router.db_for_write(OutboundEmail)
        self.concurrency = concurrency or config().CONCURRENCY
        self.until_empty, self.release_stale, self.keep_on = until_empty, release_stale, keep_on
        self.claim_seconds, self.heartbeat = claim_seconds, heartbeat
        self.overdue = timedelta(seconds=overdue_seconds)
        self.name = name or delivery.worker_name()
        self.mailer = mailers.names()[0]
        self.keyed = mailers.get(self.mailer).keyed
        self.in_hand: dict[int, Held] = {}
        self.sent = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._stop_reason = ""
        self.found_nothing = False
        """Whether it ended because there was nothing that anybody may claim now."""

        self._claims_until = math.inf
        self._waiting: deque[OutboundEmail] = deque()
        self._unwritten: list[Result] = []
        self._ears = Ears(self.using)
        self._pulse = Pulse(self)
        self._more = self._room_for_suspect = False
        self._rescued_at, self._suspects_sought_at = 0.0, time.monotonic()
        self._adopted_at = -math.inf

    def run(self) -> None:
        """Deliver. Errors of the database are waited out; a claim that is lost meanwhile is nobody's loss."""
        self._claims_until = time.monotonic() + self.claim_seconds
        try:
            # Before the heartbeat, which says that somebody works here.
            outbox.set_aside_stale(worker=self.name, using=self.using)
            if self.release_stale:
                outbox.release_stale(actor=self.name, using=self.using)
            self._pulse.start()
            while not self._stopping.is_set() and self._guarded(self._turn):
                pass
            self._finish()
            self._stop_reason = self._stop_reason or DONE
        finally:
            self._senders.stop()
            self._pulse.stop(self._stop_reason or CRASHED)
            self._ears.close()

    def stop(self, reason: str) -> None:
        """Claim nothing more, finish what is in hand, hand back the rest. May be called from any thread."""
        self._stop_reason = reason
        self._stopping.set()
        self._ears.wake()

    def holds(self, *, since: float = -math.inf, turned: float = math.inf) -> list[OutboundEmail]:
        """
        Return the e-mails in hand whose attempts began after *since* (monotonic seconds).

        Those that wait to be composed count as long as the loop has *turned* since then.
        """
        with self._lock:
            return [
                held.email
                for held in self.in_hand.values()
                if (turned if held.since is None else held.since) > since
            ]

    def renewed(self, pks: set[int], *, at: float) -> None:
        """Note that the leases of these e-mails were prolonged not before *at* (monotonic seconds)."""
        with self._lock:
            for pk in pks & self.in_hand.keys():
                self.in_hand[pk].renewed = at

    @cached_property
    def _senders(self) -> Senders:
        """Made in the thread that uses it: an event loop belongs to one."""
        return senders_for(mailers.get(self.mailer), self.concurrency, self._ears)

    # --- the loop -------------------------------------------------------------------------------

    def _guarded(self, turn: Callable[[], bool]) -> bool:
        try:
            return turn()
        except DatabaseFailure as error:
            # Restarted, locked or out of connections: mail waits, the worker does not die of it.
            logger.warning("database failed=%s; the worker waits", type(error).__name__)
            connections[self.using].close()
            self._senders.wait(self._ears, DATABASE_PAUSE_SECONDS, rings=False)
            return True

    def _turn(self) -> bool:
        """One look at the world: settle, rescue, claim, compose; then wait. False: nothing left to do."""
        if not self.keep_on():
            return False
        self._settle()
        self._give_up_what_hangs()
        self._rescue()
        self._ears.listen()
        claims = time.monotonic() < self._claims_until
        claimed = claims and self._claim()
        self._compose()
        self._pulse.turned()
        if not self.in_hand and (not claims or (self.until_empty and not claimed)):
            self.found_nothing = claims
            return False
        if self._waiting or self._unwritten or self._more:
            self._senders.wait(self._ears, 0, rings=False)
        else:
            rings = claims and len(self.in_hand) < self.concurrency
            self._senders.wait(self._ears, config().POLL_INTERVAL_SECONDS, rings=rings)
        return True

    def _claim(self) -> bool:
        """Take no more than there are free slots; a tenth of them is kept for urgent e-mails."""
        self._pulse.doing, self._more = "claim", False
        free = self.concurrency - len(self.in_hand)
        if free <= 0 or self._waiting or not self._due().exists():
            # Looked at before it is written to: an idle worker takes no write lock, which on SQLite
            # would keep everybody waiting if the process were frozen in that very moment.
            return False
        if self._suspect_waits():
            return not self.in_hand and self._take(1, alone=True) > 0
        kept = self.concurrency // 10
        wanted = max(min(free - kept, SETTLE_AT_ONCE), 0)
        taken = self._take(wanted) if wanted else 0
        self._more = bool(wanted) and taken == wanted < free - kept
        if kept and taken == wanted:
            taken += self._take(min(kept, free - taken), urgent_only=True)
        if not taken and not self.in_hand:
            # Only with nothing else in hand: it has killed two workers.
            taken = self._take(1, alone=True)
        return taken > 0

    def _suspect_waits(self) -> bool:
        """Whether nothing more may be claimed until an e-mail that lost two workers has gone out alone."""
        if not self._room_for_suspect and time.monotonic() - self._suspects_sought_at > SUSPECT_SECONDS:
            self._suspects_sought_at = time.monotonic()
            next_ones = self._due().order_by("lane", "due_at").values_list("losses", flat=True)
            self._room_for_suspect = max(next_ones[:SUSPECT_DEPTH], default=0) >= outbox.SUSPECT_LOSSES
        return self._room_for_suspect

    def _take(self, limit: int, *, urgent_only: bool = False, alone: bool = False) -> int:
        now = time.monotonic()
        emails = outbox.claim(
            limit,
            worker=self.name,
            mailer=self.mailer,
            keyed=self.keyed,
            urgent_only=urgent_only,
            alone=alone,
            overdue=self.overdue,
            using=self.using,
        )
        with self._lock:
            self.in_hand.update({email.pk: Held(email, renewed=now) for email in emails})
        self._waiting.extend(emails)
        self._room_for_suspect = self._room_for_suspect and not alone
        return len(emails)

    def _compose(self) -> None:
        """Write messages, but never for so long that those in flight stand still."""
        deadline = time.monotonic() + COMPOSE_SECONDS
        while self._waiting and time.monotonic() < deadline:
            self._pulse.doing = "compose"
            held = self.in_hand[self._waiting[0].pk]
            held.since = time.monotonic()
            try:
                ready = delivery.prepare(held.email, is_ours=held.is_ours)
            except DatabaseFailure:
                held.since = None  # it has another turn, and ATTEMPT_SECONDS begin then
                raise
            self._waiting.popleft()
            if isinstance(ready, Prepared):
                self._senders.start(ready)
            else:
                self._unwritten.append(ready)

    # --- ends -----------------------------------------------------------------------------------

    def _settle(self) -> None:
        while self._unwritten or (ended := self._senders.finished()):
            # Kept until they are written: what a provider said must not be forgotten.
            self._unwritten = self._unwritten or ended
            self._pulse.doing = "settle"
            self._write(self._unwritten[:SETTLE_AT_ONCE])

    def _write(self, results: list[Result]) -> None:
        """Settle the first *results* that are unwritten; raises where the database is away, and then they stay."""
        try:
            delivery.settle(results, using=self.using)
        except (OperationalError, InterfaceError):
            raise
        except DatabaseFailure:
            if read_only(self.using):  # which PostgreSQL does not call an OperationalError
                raise
            if len(results) > 1:  # one of them cannot be written: the others must not suffer for it
                for result in results:
                    self._write([result])
                return
            logger.exception("settle refused email=%s; its lease runs out", results[0].email.uuid)
        del self._unwritten[: len(results)]
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
        hanging = [held for held in self.in_hand.values() if held.since is not None and held.since < limit]
        for held in hanging:
            self._senders.abandon(held.email)
            held.since = math.inf  # once
            self._unwritten.append(
                Result(email=held.email, verdict=delivery.no_answer("no answer within ATTEMPT_SECONDS"))
            )
        if hanging:
            self._settle()

    def _rescue(self) -> None:
        if time.monotonic() - self._rescued_at < config().POLL_INTERVAL_SECONDS:
            return
        self._rescued_at = time.monotonic()
        if self._rows().abandoned(clock(self.using))[:1].exists():
            outbox.rescue(worker=self.name, using=self.using)
        # Not in every drain of Celery's: the step beside them does it, which has a heartbeat.
        if self.heartbeat and time.monotonic() - self._adopted_at > ADOPT_SECONDS:
            self._adopted_at = time.monotonic()
            outbox.adopt_left_behind(self.using)

    def _due(self) -> OutboundEmailQuerySet:
        return self._rows().due(clock(self.using) - self.overdue)

    def _rows(self) -> OutboundEmailQuerySet:
        return OutboundEmail.objects.using(self.using)

    def _finish(self) -> None:
        """
        Hand back what has not begun, wait up to STOP_SECONDS for what is in flight, and put that in doubt.

        Where the database is away for all of that time the leases run out instead.
        """
        deadline = time.monotonic() + config().STOP_SECONDS
        while self._waiting:
            verdict = delivery.not_begun("handed back: the worker stopped before it was sent", wait=0)
            self._unwritten.append(Result(email=self._waiting.popleft(), verdict=verdict))
        while self.in_hand and time.monotonic() < deadline:
            self._guarded(self._finishing)
        verdict = delivery.no_answer(
            "handed back: the worker stopped before the provider answered", strike=False
        )
        while ended := self._senders.finished():
            self._unwritten += ended
        answered = {result.email.pk for result in self._unwritten}
        self._unwritten += [
            Result(email=email, verdict=verdict) for email in self.holds() if email.pk not in answered
        ]
        try:
            self._settle()
        except DatabaseFailure:
            logger.warning("stopped with results=%s unwritten; their leases run out", len(self._unwritten))

    def _finishing(self) -> bool:
        self._settle()
        self._give_up_what_hangs()
        if self.in_hand:
            self._senders.wait(self._ears, 0.1, rings=False)
        return True


@contextmanager
def stop_on_signals(worker: Worker) -> Iterator[None]:
    """SIGTERM and SIGINT stop *worker*; a second one ends the process at once, and rescue does the rest."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL)
        worker.stop(name)
        with suppress(RuntimeError):  # it may have come in the middle of a write to the same stream
            logger.info("stopping signal=%s in_hand=%s", name, len(worker.in_hand))

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
