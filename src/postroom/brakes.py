"""
What holds mail back on purpose: the switch of a person, and the guard after a restored backup.

Owns the one row of ``Pause`` and the reason STALE. Hides how a claim is kept from taking what it
must not: the switch is asked for by the statement that claims, and what is stale is not due.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import router, transaction
from django.db.models import F, Q

from postroom import doorbell, signals
from postroom.conf import config
from postroom.ledger import facts_of, record
from postroom.models import (
    DeliveryEvent,
    EventType,
    OutboundEmail,
    OutboundEmailQuerySet,
    Pause,
    State,
    WorkerHeartbeat,
)
from postroom.statements import claim_rows, clock

MAY_SWITCH = "postroom.change_pause"
"""Users with this permission may stop all sending, and let it go on."""

STALE = "stale"
"""Reason of an e-mail that waits for a person's word: it looks like one that was sent long ago."""

AT_ONCE = 1000
"""E-mails set aside or released in one transaction."""


def pause(*, actor: str, reason: str = "", using: str | None = None) -> Pause:
    """
    Stop all sending until ``resume``: no delivery process claims anything more.

    What is in flight finishes. Whoever pauses a second time gets the first pause.
    """
    using = using or router.db_for_write(OutboundEmail)
    row, new = Pause.objects.using(using).get_or_create(
        pk=1, defaults={"actor": actor[:150], "reason": reason[:200]}
    )
    if new:
        signals.logger.warning("paused by=%r reason=%r", row.actor, row.reason)
    return row


def resume(*, actor: str, using: str | None = None) -> bool:
    """End the pause, and wake the delivery processes; False where there was none."""
    using = using or router.db_for_write(OutboundEmail)
    ended, _ = Pause.objects.using(using).all().delete()
    if ended:
        signals.logger.warning("resumed by=%r", actor)
        doorbell.ring_after_commit(using)
    return bool(ended)


def paused(using: str | None = None) -> Pause | None:
    """Return the pause in force: since when, by whom and why; None while mail flows."""
    return Pause.objects.using(using or router.db_for_write(OutboundEmail)).first()


def set_aside_stale(*, worker: str, using: str | None = None) -> int:
    """
    Keep from going out what a restored backup would send a second time; return how many.

    A delivery process calls this before it writes its heartbeat. Where somebody delivered within
    STALE_AFTER_SECONDS (see ``deserted``) nothing happens: a backlog, however long, is alive. Else
    what is overdue by more than that gets the reason STALE and becomes due when it expires: then
    it is settled unsent, unless ``release_stale`` comes first.
    """
    using = using or router.db_for_write(OutboundEmail)
    if not deserted(using):
        return 0
    stale = OutboundEmail.objects.using(using).due(clock(using) - _stale_after())
    # An attempt in doubt whose key is that old is not repeated anyway; it becomes UNCERTAIN at once.
    sendable = Q(uncertain_since__isnull=True) | Q(key_used_at__isnull=True)
    stale = stale.filter(sendable, expires_at__gt=clock(using))
    aside = _move(
        stale,
        {"reason": STALE, "due_at": F("expires_at")},
        using,
        type=EventType.SET_ASIDE,
        detail=f"by {worker}: due for hours, and nobody had delivered",
    )
    if aside:
        signals.logger.warning(
            "set_aside emails=%s worker=%s: due for hours, and nobody had delivered. A restored backup? "
            "To send them: manage.py postroom_worker --release-stale",
            aside,
            worker,
        )
    return aside


def release_stale(*, actor: str, using: str | None = None) -> int:
    """Make due what ``set_aside_stale`` set aside, and wake the delivery processes; return how many."""
    using = using or router.db_for_write(OutboundEmail)
    stale = OutboundEmail.objects.using(using).filter(state=State.PENDING, reason=STALE)
    released = _move(
        stale.filter(due_at__gt=clock(using)),
        {"reason": "", "due_at": clock(using)},
        using,
        type=EventType.RELEASED,
        actor=actor[:150],
    )
    if released:
        signals.logger.warning("released emails=%s by=%r", released, actor)
        doorbell.ring_after_commit(using)
    return released


def deserted(using: str | None = None) -> bool:
    """
    Whether e-mails were delivered from this database once, but not within STALE_AFTER_SECONDS.

    Delivered: a delivery process wrote its heartbeat, or claimed something. So a backlog that
    a dead provider or a pause has left is no desert, while a restored backup is one: what was
    written in its last hours may have gone out since, and the backup does not know it. Nor is the
    database of a site whose very first worker comes late: nobody can have sent those.
    """
    using = using or router.db_for_write(OutboundEmail)
    since = clock(using) - _stale_after()
    beats = WorkerHeartbeat.objects.using(using)
    claims = DeliveryEvent.objects.using(using).filter(type=EventType.CLAIMED)
    if beats.filter(seen_at__gte=since).exists() or claims.filter(at__gte=since).exists():
        return False
    return beats.exists() or claims.exists()


def _stale_after() -> timedelta:
    return timedelta(seconds=config().STALE_AFTER_SECONDS)


def _move(rows: OutboundEmailQuerySet, values: dict[str, Any], using: str, **event: Any) -> int:
    """Write *values* into all of *rows*, each with its event, some at a time; return how many."""
    moved = 0
    while True:
        with transaction.atomic(using=using):
            emails = claim_rows(rows.order_by("lane", "due_at")[:AT_ONCE], values)
            record([event | facts_of(email) for email in emails], emails, using)
        if not emails:
            return moved
        moved += len(emails)
