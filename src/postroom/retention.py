"""
How old e-mails leave: settled ones, in batches whose transactions are short.

What is not settled stays, however old it is. Shared by ``postroom_prune`` and the Celery task.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from django.db import router, transaction
from django.utils import timezone

from postroom.models import DeliveryEvent, OutboundEmail, OutboundEmailQuerySet, WorkerHeartbeat

PRUNE_AT_ONCE = 500
"""E-mails deleted in one transaction: tens of milliseconds of write lock on SQLite."""

REST_SECONDS, REST_TIMES = 0.05, 2
"""Between two batches: at least so long, and so many times as long as the last one took."""

HEARTBEAT_DAYS = 7
"""How long a delivery process that is gone is remembered; the last one of all for ever."""


def prune(*, before: datetime, limit: int = PRUNE_AT_ONCE, using: str | None = None) -> int:
    """
    Delete at most *limit* e-mails that were settled before that instant, with their history.

    Returns how many; 0 means that none is left. Then delivery processes that are long gone are
    forgotten, too. Walks the index of ``created_at``.
    """
    using = using or router.db_for_write(OutboundEmail)
    old = prunable(before=before, using=using).order_by("created_at")
    with transaction.atomic(using=using):
        # Locked where rows can be: a person may be retrying one of them at this moment.
        pks = list(old.select_for_update().values_list("pk", flat=True)[:limit])
        if pks:
            # The events by one statement; with the e-mails each row would be fetched first.
            DeliveryEvent.objects.using(using).filter(email__in=pks).delete()
            # Not by SQL: rows of other apps point here, too, and their on_delete is Django's to do.
            OutboundEmail.objects.using(using).filter(pk__in=pks).delete()
    if not pks:
        _forget_processes(using)
    return len(pks)


def forget_reports(*, before: datetime, limit: int = PRUNE_AT_ONCE, using: str | None = None) -> int:
    """
    Delete at most *limit* reports that came before that instant and found no e-mail; return how many.

    There may be more of them than of anything else: a provider also tells of what others send through
    the same account. They lie in the order in which they came, so that the oldest need no search.
    """
    using = using or router.db_for_write(OutboundEmail)
    reports = DeliveryEvent.objects.using(using).filter(email__isnull=True)
    oldest = reports.order_by("pk").values_list("pk", "at")[:limit]
    deleted, _ = reports.filter(pk__in=[pk for pk, at in oldest if at < before]).delete()
    return deleted


def prune_all(
    *, before: datetime, limit: int = PRUNE_AT_ONCE, seconds: float = math.inf, using: str | None = None
) -> int:
    """
    Delete batch after batch until none is left, then reports without an e-mail, or for so many *seconds*.

    Returns how many e-mails.

    Rests in between, longer than it wrote: on SQLite others wait for the one lock by trying now and
    then, and whoever takes it again at once keeps them out. The slower the machine, the longer the rest.
    """
    deadline = time.monotonic() + seconds
    emails = sum(_rested(lambda: prune(before=before, limit=limit, using=using), deadline))
    sum(_rested(lambda: forget_reports(before=before, limit=limit, using=using), deadline))
    return emails


def _rested(delete: Callable[[], int], deadline: float) -> Iterator[int]:
    began = time.monotonic()
    while began < deadline and (some := delete()):
        yield some
        time.sleep(max(REST_SECONDS, REST_TIMES * (time.monotonic() - began)))
        began = time.monotonic()


def prunable(*, before: datetime, using: str) -> OutboundEmailQuerySet:
    """
    The e-mails that were settled before that instant: only what is settled has one, the table sees to it.

    Not asked for by state, too: SQLite would then take the index of claims, read all that was ever
    settled and sort it, for each batch and under the write lock (0.15 s with 200,000, 2026-11).
    """
    return OutboundEmail.objects.using(using).filter(created_at__lt=before, settled_at__lt=before)


def _forget_processes(using: str) -> None:
    beats = WorkerHeartbeat.objects.using(using)
    newest = beats.order_by("-seen_at").values_list("pk", flat=True).first()
    gone = beats.filter(seen_at__lt=timezone.now() - timedelta(days=HEARTBEAT_DAYS))
    gone.exclude(pk=newest).delete()
