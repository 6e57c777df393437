"""
What is known about delivery at one moment: numbers and instants, no judgement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from postroom.models import Pause, WorkerHeartbeat

CAP: Final = 100_000
"""Counted no further than this."""

SAMPLE: Final = 500
"""So many events of a type are looked at, the newest first."""

RECENT: Final = timedelta(minutes=10)

DONE: Final = "done"
"""Goodbye of a delivery process that ended because nothing was left (``--until-empty``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The PENDING e-mails of one kind with one reason (the class of their last failure, or none)."""

    kind: str
    reason: str
    count: int
    due: int
    """Could go out now; those that are dead or stale are not counted here."""

    oldest: datetime | None
    """Since when the longest overdue of them could have gone out; those that are stale count here."""

    first_expiry: datetime | None
    dead: int
    """Expired while they waited: they will not be sent any more."""

    stale: int
    """Due for so long that no worker takes them unasked (``STALE_AFTER_SECONDS``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one attempt ended: an event of the sample."""

    at: datetime
    type: str
    email_id: int | None
    kind: str
    mailer: str
    error_class: str
    fingerprint: str
    detail: str
    duration_ms: int | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One delivery process as its heartbeat tells it."""

    beat: WorkerHeartbeat
    state: str
    """``turning``; ``stuck``: alive, no turn; ``silent``: gone without goodbye; ``stopped``: said goodbye."""

    held: int
    """E-mails that stand as being sent by it; of a lost worker its last heartbeat knows less."""

    @property
    def is_alive(self) -> bool:
        """Whether the process was heard lately. Alive is not working."""
        return self.state in ("turning", "stuck")


@dataclass(frozen=True, slots=True, kw_only=True)
class Killer:
    """An e-mail whose workers died with it in hand, again and again."""

    short_id: str
    kind: str
    state: str
    losses: int
    last: datetime
    worker: str
    """The latest one that was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailerSeen:
    """One mailer as the newest events tell it."""

    alias: str
    reports: bool | None
    """Whether it tells what became of an e-mail; None for an alias that is not configured (any more)."""

    last_accepted_at: datetime | None
    last_refusal: Outcome | None
    streak: tuple[Outcome, ...]
    """Refusals since the last acceptance, newest first."""

    typical_ms: float
    """Median answer of the last ten minutes; 0 where there was none."""

    usual_ms: float
    """Median answer at this hour yesterday, asked for only when answers are not quick; 0: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Somebody who stands in the way: the evidence, and what ends it."""

    why: tuple[str, ...]
    do: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One look at everything, the same for page and terminal."""

    now: datetime
    database: str
    database_ms: float
    vendor: str
    doorbell: str
    bell_trouble: str
    """Why nobody can be rung for; empty where the bell works, or there is none that needs a broker."""

    mailer_trouble: str
    """Why the settings that were read for this look can send nothing; empty where they can."""

    pause: Pause | None
    """The pause in force: since when, by whom and why."""

    waiting: tuple[Waiting, ...]
    in_hand: int
    abandoned: int
    stepped_over: int
    """Overdue e-mails that somebody keeps locked, of the first few."""

    row_lock: Lock | None
    """Who that may be."""

    in_flight_seconds: tuple[float, ...]
    """How long the sends that are not answered yet have been under way (a sample)."""

    uncertain: int
    accepted_1m: int
    accepted_10m: int
    created_10m: int
    day: Mapping[str, int]
    """Counts of the last 24 hours: accepted, delivered, bounced, failed, expired; of our e-mails alone."""

    accepted: tuple[Outcome, ...]
    setbacks: tuple[Outcome, ...]
    workers: tuple[Worker, ...]
    killers: tuple[Killer, ...]
    """E-mails that have lost two workers or more in the last day, and are not settled well."""

    mailers: tuple[MailerSeen, ...]
    last_report_at: datetime | None
    accepted_unreported: int
    """Accepted between 10 and 70 minutes ago by mailers that report, if no report has come since; else 0."""

    asked_3h: int
    asked_3h_yesterday: int
    """E-mails saved in the last three hours, and in the same three yesterday (asked only where the first is 0)."""

    @property
    def due(self) -> int:
        """E-mails that could go out now and do not."""
        return sum(group.due for group in self.waiting)

    @property
    def later(self) -> int:
        """E-mails whose time has not come: planned, or to be tried again."""
        return sum(group.count - group.due - group.dead - group.stale for group in self.waiting)

    @property
    def dead(self) -> int:
        """E-mails that expired while they waited."""
        return sum(group.dead for group in self.waiting)

    @property
    def stale(self) -> int:
        """E-mails that wait for a person's word before a worker takes them."""
        return sum(group.stale for group in self.waiting)

    @property
    def lag_seconds(self) -> float:
        """For how long the oldest due e-mail could have gone out."""
        oldest = [group.oldest for group in self.waiting if group.oldest]
        return (self.now - min(oldest)).total_seconds() if oldest else 0.0

    @property
    def refused_seconds(self) -> float:
        """
        For how long a mailer has refused whatever it was given; 0 where the last one was accepted.

        Infinite where the sample does not reach back to the first refusal.
        """
        streaks = [mailer.streak for mailer in self.mailers if mailer.streak]
        return max(
            (math.inf if len(s) >= SAMPLE else (self.now - s[-1].at).total_seconds() for s in streaks),
            default=0.0,
        )

    @property
    def alive(self) -> tuple[Worker, ...]:
        """Workers heard lately, the stuck ones included."""
        return tuple(worker for worker in self.workers if worker.is_alive)

    @property
    def is_between_runs(self) -> bool:
        """Whether nobody is alive because cron starts one now and then, and the last one left nothing a moment ago."""
        last = self.workers[0].beat if self.workers and not self.alive else None
        if last is None or last.stopped_at is None:
            return False
        return last.stop_reason == DONE and self.now - last.stopped_at <= RECENT

    @property
    def slots(self) -> int:
        """How many e-mails all living workers can send at once."""
        return sum(worker.beat.concurrency for worker in self.alive)

    @property
    def latencies(self) -> list[float]:
        """Seconds from commit to acceptance, of the last ten minutes (a sample)."""
        return [(o.at - o.created_at).total_seconds() for o in self.accepted if o.at >= self.now - RECENT]
