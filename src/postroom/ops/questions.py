"""
The questions that the tables are asked.

Every one is bounded: a range of an index, or the newest few hundred rows of one. PostgreSQL is
waited for at most two seconds a question, so that a look never adds to the trouble.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router, transaction
from django.db.models import Count, F, Max, Min, Q, QuerySet
from django.utils import timezone

from postroom import doorbell, mailers
from postroom.conf import config
from postroom.exceptions import PostroomError
from postroom.models import DeliveryEvent, EventType, OutboundEmail, State, WorkerHeartbeat
from postroom.ops.facts import CAP, RECENT, SAMPLE, Facts, MailerSeen, Outcome, Waiting, Worker
from postroom.ops.words import database_label, median

QUESTION_MS: Final = 2_000
"""The longest answer that PostgreSQL is waited for."""

DAY: Final = timedelta(hours=24)

SILENT_AFTER: Final = timedelta(seconds=15)
"""A worker that wrote no heartbeat for this long is gone; it writes one every two seconds."""

DEAD_AFTER: Final = timedelta(seconds=5)
"""The same, where its process is no longer there to be seen on this host."""

STUCK_AFTER: Final = timedelta(seconds=60)
"""Alive, but the loop that delivers has not come round for this long."""

NOT_QUICK_MS: Final = 2_000
"""From here on it is worth asking what was usual."""

_SETBACKS: Final = (EventType.RESCHEDULED, EventType.FAILED, EventType.DOUBTED)

_NOT_THE_MAILER: Final = ("compose", "permanent_message", "permanent_recipient", "expired", "worker_lost")
"""Classes that say nothing about whether the mailer works."""

_REPORTS: Final = (EventType.REQUESTED, EventType.DELIVERED, EventType.DEFERRED, EventType.BOUNCED)


def database() -> str:
    """Return the alias of the database that the outbox is written to."""
    return router.db_for_write(OutboundEmail)


def depth() -> int:
    """Return how many e-mails are due and wait."""
    return OutboundEmail.objects.using(database()).due().count()


def lag_seconds() -> float:
    """Return for how long the oldest due e-mail could have gone out; 0 when none waits."""
    oldest = OutboundEmail.objects.using(database()).due().aggregate(at=Min("due_at"))["at"]
    return (timezone.now() - oldest).total_seconds() if oldest else 0.0


def throughput_per_minute() -> int:
    """Return how many e-mails were accepted in the last minute."""
    return _happened(database(), EventType.ACCEPTED, timezone.now() - timedelta(minutes=1))


def failures_by_reason() -> dict[str, int]:
    """Return how the newest unsuccessful attempts of the last 24 hours ended: class → number (of a sample)."""
    alias, since = database(), timezone.now() - DAY
    return dict(Counter(o.error_class for o in _setbacks(alias, since)).most_common())


def workers() -> tuple[Worker, ...]:
    """Return the delivery processes heard in the last day, the living first; else the last one ever heard."""
    return _workers(database(), timezone.now())


def mailers_seen() -> tuple[MailerSeen, ...]:
    """Return the configured mailers, and others that the newest events name."""
    alias, now = database(), timezone.now()
    return _mailers(alias, now, _outcomes(alias, EventType.ACCEPTED, now - DAY), _setbacks(alias, now - DAY))


def look(alias: str) -> Facts:
    """Ask everything once. Raises DatabaseError where the database does not answer in time."""
    began = time.perf_counter()
    with bounded(alias):
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
        database_ms = (time.perf_counter() - began) * 1000
        now = timezone.now()
        accepted = _outcomes(alias, EventType.ACCEPTED, now - DAY)
        setbacks = _setbacks(alias, now - DAY)
        rows = OutboundEmail.objects.using(alias)
        return Facts(
            now=now,
            database=database_label(alias),
            database_ms=database_ms,
            vendor=connections[alias].vendor,
            doorbell=doorbell.kind_for(alias),
            waiting=_waiting(alias, now),
            in_hand=rows.filter(state=State.SENDING).count(),
            abandoned=rows.abandoned(now).count(),
            in_flight_seconds=_in_flight(alias, now),
            uncertain=rows.filter(state=State.UNCERTAIN)[:CAP].count(),
            accepted_1m=_happened(alias, EventType.ACCEPTED, now - timedelta(minutes=1)),
            accepted_10m=_happened(alias, EventType.ACCEPTED, now - RECENT),
            created_10m=rows.filter(created_at__gte=now - RECENT)[:CAP].count(),
            day=_day(alias, now - DAY),
            accepted=accepted,
            setbacks=setbacks,
            workers=_workers(alias, now),
            mailers=_mailers(alias, now, accepted, setbacks),
            last_report_at=_last_report(alias),
        )


@contextmanager
def bounded(alias: str) -> Iterator[None]:
    """Let PostgreSQL give up on a question after QUESTION_MS. Elsewhere no transaction is begun (SQLite's locks)."""
    connection = connections[alias]
    if connection.vendor != "postgresql":
        yield
        return
    with transaction.atomic(using=alias), connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('statement_timeout')")
        before = cursor.fetchone()[0]
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(QUESTION_MS)])
        yield
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [before])


def _waiting(alias: str, now: datetime) -> tuple[Waiting, ...]:
    stale_before = now - timedelta(seconds=config().STALE_AFTER_SECONDS)
    is_due = Q(due_at__lte=now, due_at__gt=stale_before, expires_at__gt=now)
    groups = (
        _pending(alias)
        .order_by()
        .values("kind", "reason")
        .annotate(
            count=Count("pk"),
            due=Count("pk", filter=is_due),
            oldest=Min("due_at", filter=is_due),
            first_expiry=Min("expires_at", filter=Q(expires_at__gt=now)),
            dead=Count("pk", filter=Q(expires_at__lte=now)),
            stale=Count("pk", filter=Q(due_at__lte=stale_before, expires_at__gt=now)),
        )
    )
    return tuple(sorted((Waiting(**group) for group in groups), key=lambda group: -group.count))


def _pending(alias: str) -> QuerySet[OutboundEmail]:
    """Return what is PENDING; of a very large backlog the CAP that go first (MySQL knows no such subquery)."""
    rows = OutboundEmail.objects.using(alias)
    pending = rows.filter(state=State.PENDING)
    if connections[alias].vendor == "mysql" or pending[:CAP].count() < CAP:
        return pending
    return rows.filter(pk__in=pending.order_by("lane", "due_at").values("pk")[:CAP])


def _in_flight(alias: str, now: datetime) -> tuple[float, ...]:
    """Return the ages of the attempts under way; the leases that ran out belong to no living worker."""
    began = (
        DeliveryEvent.objects.using(alias)
        .filter(type=EventType.CLAIMED, email__state=State.SENDING, email__lease_expires_at__gte=now)
        .filter(at__gte=now - RECENT)
        .order_by()
        .values("email")
        .annotate(at=Max("at"))[:SAMPLE]
    )
    return tuple((now - row["at"]).total_seconds() for row in began)


def _happened(alias: str, event_type: str, since: datetime, **more: Any) -> int:
    """Count the events of our e-mails; a provider's account may report on those of others too."""
    events = DeliveryEvent.objects.using(alias).filter(type=event_type, at__gte=since, email__isnull=False)
    return events.filter(**more)[:CAP].count()


def _day(alias: str, since: datetime) -> dict[str, int]:
    counts = {
        event_type.value: _happened(alias, event_type, since)
        for event_type in (EventType.ACCEPTED, EventType.DELIVERED, EventType.BOUNCED, EventType.FAILED)
    }
    counts["expired"] = _happened(alias, EventType.WITHDRAWN, since, email__reason="expired")
    return counts


def _outcomes(alias: str, event_type: str, since: datetime) -> tuple[Outcome, ...]:
    """Return the newest events of one type, newest first; one range of the index (type, at)."""
    events = DeliveryEvent.objects.using(alias).filter(type=event_type, at__gte=since, email__isnull=False)
    columns = ("at", "type", "email_id", "mailer", "error_class", "fingerprint", "detail", "duration_ms")
    rows = events.order_by("-at", "-pk").values(
        *columns, kind=F("email__kind"), created_at=F("email__created_at")
    )[:SAMPLE]
    return tuple(Outcome(**row) for row in rows)


def _setbacks(alias: str, since: datetime) -> tuple[Outcome, ...]:
    found = [o for event_type in _SETBACKS for o in _outcomes(alias, event_type, since)]
    return tuple(sorted(found, key=lambda o: o.at, reverse=True))


def _workers(alias: str, now: datetime) -> tuple[Worker, ...]:
    beats = WorkerHeartbeat.objects.using(alias).order_by("-seen_at")
    heard = list(beats.filter(seen_at__gte=now - DAY)[:50]) or list(beats[:1])
    sending = OutboundEmail.objects.using(alias).filter(state=State.SENDING).order_by()
    held = dict(sending.values_list("worker").annotate(n=Count("pk")))
    found = [Worker(beat=beat, state=_worker_state(beat, now), held=held.get(beat.name, 0)) for beat in heard]
    return tuple(sorted(found, key=lambda worker: not worker.is_alive))


def _worker_state(beat: WorkerHeartbeat, now: datetime) -> str:
    if beat.stopped_at:
        return "stopped"
    quiet = now - beat.seen_at
    if quiet > SILENT_AFTER or (quiet > DEAD_AFTER and _is_dead_here(beat)):
        return "silent"
    return "stuck" if now - (beat.last_turn_at or beat.started_at) > STUCK_AFTER else "turning"


def _is_dead_here(beat: WorkerHeartbeat) -> bool:
    """Whether the process ran on this host and does not exist any more; elsewhere nobody can tell."""
    if not beat.pid or beat.host != socket.gethostname()[:100]:
        return False
    try:
        os.kill(beat.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it exists and is somebody else's
        return False
    return False


def _mailers(
    using: str, now: datetime, accepted: Sequence[Outcome], setbacks: Sequence[Outcome]
) -> tuple[MailerSeen, ...]:
    seen = dict.fromkeys([*config().SEND_WITH, *(o.mailer for o in (*accepted, *setbacks) if o.mailer)])
    return tuple(_mailer(using, now, alias, accepted, setbacks) for alias in seen)


def _mailer(
    using: str, now: datetime, alias: str, accepted: Sequence[Outcome], setbacks: Sequence[Outcome]
) -> MailerSeen:
    mine = [o for o in accepted if o.mailer == alias]
    against = [o for o in setbacks if o.mailer == alias and o.error_class not in _NOT_THE_MAILER]
    last = mine[0].at if mine else None
    answers = [o.duration_ms for o in mine if o.at >= now - RECENT and o.duration_ms is not None]
    typical_ms = median(answers)
    return MailerSeen(
        alias=alias,
        reports=_reports(alias),
        last_accepted_at=last,
        last_refusal=against[0] if against else None,
        streak=tuple(o for o in against if last is None or o.at > last),
        typical_ms=typical_ms,
        usual_ms=_usual_ms(using, alias, now) if typical_ms >= NOT_QUICK_MS else 0.0,
    )


def _usual_ms(alias: str, mailer: str, now: datetime) -> float:
    """Return the median answer of *mailer* in the same hour yesterday; 0 where it is not known."""
    events = DeliveryEvent.objects.using(alias).filter(
        type=EventType.ACCEPTED,
        at__range=(now - timedelta(hours=24, minutes=30), now - timedelta(hours=23, minutes=30)),
        mailer=mailer,
        duration_ms__isnull=False,
    )
    return median(ms or 0 for ms in events.order_by("-at").values_list("duration_ms", flat=True)[:SAMPLE])


def _reports(alias: str) -> bool | None:
    try:
        return mailers.get(alias).reports
    except (PostroomError, ImproperlyConfigured, LookupError, ImportError):
        return None


def _last_report(alias: str) -> datetime | None:
    """Return when the newest report came in: one look at the end of the index for each kind of report."""
    events = DeliveryEvent.objects.using(alias)
    newest = [events.filter(type=t).order_by("-at").values_list("at", flat=True).first() for t in _REPORTS]
    return max((at for at in newest if at), default=None)
