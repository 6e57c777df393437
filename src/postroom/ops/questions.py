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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connections, router, transaction
from django.db.models import Count, F, Max, Min, Q, QuerySet
from django.db.models.expressions import RawSQL
from django.utils import timezone

from postroom import doorbell
from postroom.brakes import STALE, deserted, paused
from postroom.conf import config
from postroom.models import DeliveryEvent, EventType, OutboundEmail, State, WorkerHeartbeat
from postroom.ops import bell, mailer_questions
from postroom.ops.facts import CAP, RECENT, SAMPLE, Facts, Killer, MailerSeen, Outcome, Waiting, Worker
from postroom.ops.locks import stepped_over
from postroom.ops.words import database_label
from postroom.outbox import SUSPECT_LOSSES

QUESTION_MS: Final = 2_000
"""The longest answer that PostgreSQL is waited for."""

DAY: Final = timedelta(hours=24)

SILENT_AFTER: Final = timedelta(seconds=15)
"""A worker that wrote no heartbeat for this long is gone; it writes one every two seconds."""

DEAD_AFTER: Final = timedelta(seconds=5)
"""The same, where its process is no longer there to be seen on this host."""

STUCK_AFTER: Final = timedelta(seconds=60)
"""Alive, but the loop that delivers has not come round for this long."""

LATE: Final = timedelta(seconds=15)
"""Overdue by this much, an e-mail that a worker could take would have been taken."""

ASKED: Final = timedelta(hours=3)
"""A site that asked for nothing in so long, and did yesterday, has a trouble of its own."""

_SETBACKS: Final = (EventType.RESCHEDULED, EventType.FAILED, EventType.DOUBTED)


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
    return happened(database(), EventType.ACCEPTED, timezone.now() - timedelta(minutes=1))


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
    return mailer_questions.seen(
        alias, now, _outcomes(alias, EventType.ACCEPTED, now - DAY), _setbacks(alias, now - DAY)
    )


def look(alias: str) -> Facts:
    """Ask everything once. Raises DatabaseError where the database does not answer in time."""
    trouble_of_bell = bell.ask(alias)
    began = time.perf_counter()
    with bounded(alias):
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
        database_ms = (time.perf_counter() - began) * 1000
        now = timezone.now()
        accepted = _outcomes(alias, EventType.ACCEPTED, now - DAY)
        setbacks = _setbacks(alias, now - DAY)
        rows = OutboundEmail.objects.using(alias)
        overdue, row_lock = stepped_over(alias, now - LATE)
        mailers_now = mailer_questions.seen(alias, now, accepted, setbacks)
        last_report_at = mailer_questions.last_report(alias)
        asked_3h = rows.filter(created_at__gte=now - ASKED)[:CAP].count()
        facts = Facts(
            now=now,
            mailer_trouble=mailer_questions.trouble(),
            database=database_label(alias),
            database_ms=database_ms,
            vendor=connections[alias].vendor,
            doorbell=doorbell.kind_for(alias),
            bell_trouble="",
            pause=paused(alias),
            waiting=_waiting(alias, now),
            in_hand=rows.filter(state=State.SENDING).count(),
            abandoned=rows.abandoned(now).count(),
            stepped_over=overdue,
            row_lock=row_lock,
            in_flight_seconds=_in_flight(alias, now),
            uncertain=rows.filter(state=State.UNCERTAIN)[:CAP].count(),
            accepted_1m=happened(alias, EventType.ACCEPTED, now - timedelta(minutes=1)),
            accepted_10m=happened(alias, EventType.ACCEPTED, now - RECENT),
            created_10m=rows.filter(created_at__gte=now - RECENT)[:CAP].count(),
            day=_day(alias, now - DAY),
            accepted=accepted,
            setbacks=setbacks,
            workers=_workers(alias, now),
            killers=_killers(alias, now - DAY),
            mailers=mailers_now,
            last_report_at=last_report_at,
            accepted_unreported=mailer_questions.accepted_unreported(alias, now, mailers_now, last_report_at),
            asked_3h=asked_3h,
            asked_3h_yesterday=0
            if asked_3h
            else rows.filter(created_at__range=(now - ASKED - DAY, now - DAY))[:CAP].count(),
        )
    return replace(facts, bell_trouble=trouble_of_bell())


def happened(alias: str, event_type: str, since: datetime, **more: Any) -> int:
    """Count the events of our e-mails; a provider's account may report on those of others too."""
    events = DeliveryEvent.objects.using(alias).filter(type=event_type, at__gte=since, email__isnull=False)
    return events.filter(**more)[:CAP].count()


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
    stale = Q(reason=STALE, due_at__gt=now)
    if deserted(alias):  # the next delivery process will set these aside before it begins
        stale |= Q(due_at__lte=now - timedelta(seconds=config().STALE_AFTER_SECONDS))
    overdue = Q(due_at__lte=now, expires_at__gt=now)
    is_due = overdue & ~stale
    groups = (
        _pending(alias)
        .order_by()
        .values("kind", "reason")
        .annotate(
            count=Count("pk"),
            due=Count("pk", filter=is_due),
            # With those that will be set aside: an alarm must not end because nobody came for six hours.
            oldest=Min("due_at", filter=overdue),
            first_expiry=Min("expires_at", filter=Q(expires_at__gt=now)),
            dead=Count("pk", filter=Q(expires_at__lte=now)),
            stale=Count("pk", filter=stale & Q(expires_at__gt=now)),
        )
    )
    return tuple(sorted((Waiting(**group) for group in groups), key=lambda group: -group.count))


def _pending(alias: str) -> QuerySet[OutboundEmail]:
    """Return what is PENDING; of a very large backlog the CAP that go first."""
    rows = OutboundEmail.objects.using(alias)
    pending = rows.filter(state=State.PENDING)
    if pending[:CAP].count() < CAP:
        return pending
    foremost = pending.order_by("lane", "due_at").values("id")[:CAP]
    # One deeper than the ORM puts it: right below IN, MariaDB and MySQL know no LIMIT.
    sql, params = foremost.query.get_compiler(using=alias).as_sql()
    found = f"SELECT foremost.id FROM ({sql}) AS foremost"  # noqa: S608 - no part of it comes from outside
    return rows.filter(pk__in=RawSQL(found, params))  # noqa: S611


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


def _day(alias: str, since: datetime) -> dict[str, int]:
    counts = {
        event_type.value: happened(alias, event_type, since)
        for event_type in (EventType.ACCEPTED, EventType.DELIVERED, EventType.BOUNCED, EventType.FAILED)
    }
    counts["expired"] = happened(alias, EventType.WITHDRAWN, since, email__reason="expired")
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


def _killers(alias: str, since: datetime) -> tuple[Killer, ...]:
    """Return e-mails with two lost workers or more, of the newest rescues; those a retry began anew are not told."""
    events = DeliveryEvent.objects.using(alias).filter(type=EventType.RESCUED, at__gte=since)
    newest = list(events.order_by("-at").values_list("email_id", "at", "worker")[:SAMPLE])
    times = Counter(pk for pk, _at, _worker in newest)
    latest = {pk: (at, worker) for pk, at, worker in reversed(newest)}
    twice = [pk for pk, n in times.items() if n >= SUSPECT_LOSSES]
    if not twice:
        return ()
    rows = OutboundEmail.objects.using(alias).filter(pk__in=twice, losses__gte=SUSPECT_LOSSES)
    rows = rows.exclude(state__in=[State.ACCEPTED, State.CANCELLED])
    return tuple(
        Killer(
            short_id=email.short_id,
            kind=email.kind,
            state=email.state,
            losses=email.losses,
            last=latest[email.pk][0],
            worker=latest[email.pk][1],
        )
        for email in rows.order_by("-losses", "pk")[:10]
    )
