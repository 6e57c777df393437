"""
The arrows that a person draws: cancel, retry, resend. Public as ``postroom.outbox``'s.

Each is one guarded UPDATE and one event a row that names the actor, in one transaction. The guard
looks at the table and not at rows in memory: a page may have been open for an hour. What is done to
many goes in batches, whose transactions are short and leave gaps, so that workers and web go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence, Set
from functools import partial
from itertools import count
from typing import Any

from django.db import router, transaction
from django.db.models import Exists, F, OuterRef
from django.utils import timezone

from postroom import doorbell
from postroom.exceptions import NotAllowed
from postroom.ledger import UNANSWERED, facts_of, record
from postroom.models import DeliveryEvent, EventType, OutboundEmail, OutboundEmailQuerySet, State
from postroom.statements import Given, clock_now

RETRYABLE = (State.FAILED, State.CANCELLED, State.UNCERTAIN)
"""Settled without an acceptance."""

AT_ONCE = 500
"""E-mails changed in one transaction: tens of milliseconds of write lock on SQLite."""

GAP_SECONDS = 0.05
"""Between two batches, so that others get the lock."""


# --- one ----------------------------------------------------------------------------------------


def cancel(email: OutboundEmail, *, reason: str = "by hand", actor: str = "") -> OutboundEmail:
    """Do not send *email*, if it is still PENDING and certainly not sent; raises NotAllowed otherwise."""
    done = _cancel([email], actor=actor, reason=reason, using=_home(email))
    return _checked(
        email, done, "only a pending e-mail of which no attempt may have arrived can be cancelled"
    )


def retry(email: OutboundEmail, *, actor: str = "") -> OutboundEmail:
    """
    Send a FAILED, CANCELLED or UNCERTAIN e-mail after all: PENDING with a new key and a new budget.

    Whoever retries an uncertain one accepts that it may arrive twice. Raises NotAllowed otherwise.
    """
    done = _retry([email], actor=actor, using=_home(email))
    return _checked(email, done, "only a settled, not accepted one can be retried")


def resend(email: OutboundEmail, *, actor: str = "") -> OutboundEmail:
    """Enqueue a new e-mail of the same kind and arguments that names *email* as the one it repeats."""
    using = _home(email)
    (again,) = _resend([email], actor=actor, using=using)
    return OutboundEmail.objects.using(using).get(uuid=again.uuid)


def _home(email: OutboundEmail) -> str:
    return email._state.db or router.db_for_write(OutboundEmail)


def _checked(email: OutboundEmail, done: int, otherwise: str) -> OutboundEmail:
    email.refresh_from_db(using=_home(email))
    if not done:
        raise NotAllowed(f"E-mail {email.short_id} is {email.state}: {otherwise}.")
    return email


# --- many ---------------------------------------------------------------------------------------


def cancel_all(rows: OutboundEmailQuerySet, *, actor: str, reason: str = "by hand") -> Iterator[int]:
    """
    Cancel those of *rows* that ``cancel`` would; yield how many, batch after batch.

    What is skipped stays as it was. Each batch is committed by itself: stop at any time, and repeat.
    """
    return _in_batches(rows, partial(_cancel, actor=actor, reason=reason))


def retry_all(rows: OutboundEmailQuerySet, *, actor: str) -> Iterator[int]:
    """Retry those of *rows* that ``retry`` would, each once; yield how many, batch after batch."""
    return _in_batches(rows, partial(_retry, actor=actor))


def resend_all(rows: OutboundEmailQuerySet, *, actor: str, known: Set[int]) -> Iterator[int]:
    """
    Resend those of *rows* that are settled; yield how many, batch after batch.

    What is still to be sent goes out by itself. *known* are the copies, by primary key, that were there
    when it was decided: an e-mail that has got another one since is left alone.
    """

    def some(emails: Sequence[OutboundEmail], *, using: str) -> int:
        return len(_resend(emails, actor=actor, known=known, using=using))

    return _in_batches(rows.settled(), some)


def _in_batches(rows: OutboundEmailQuerySet, change: Callable[..., int]) -> Iterator[int]:
    """Walk *rows* by primary key, so that one which is back among them at once is met once only."""
    using = rows.db
    last = rows.order_by("-pk").values_list("pk", flat=True).first() or 0
    rows, after = rows.filter(pk__lte=last).order_by("pk"), 0
    for batch in count():
        emails = list(rows.filter(pk__gt=after)[:AT_ONCE])
        if not emails:
            return
        if batch:
            time.sleep(GAP_SECONDS)
        after = emails[-1].pk
        yield change(emails, using=using)


# --- the arrows ---------------------------------------------------------------------------------


def _cancel(emails: Sequence[OutboundEmail], *, actor: str, reason: str, using: str) -> int:
    unanswered = DeliveryEvent.objects.using(using).filter(email=OuterRef("pk"), type__in=UNANSWERED)
    guard = OutboundEmail.objects.using(using).filter(
        ~Exists(unanswered), state=State.PENDING, uncertain_since__isnull=True
    )
    now = timezone.now()
    rows = {email.pk: {"settled_at": now} for email in emails}
    values = {"state": State.CANCELLED, "reason": reason[:64]}
    return _change(rows, guard, values, EventType.CANCELLED, actor=actor, using=using)


def _retry(emails: Sequence[OutboundEmail], *, actor: str, using: str) -> int:
    now = clock_now(using)
    rows = {
        email.pk: {
            "expires_at": now + (email.expires_at - email.created_at)
            if email.is_expired(now)
            else email.expires_at
        }
        for email in emails
    }
    values = {
        "state": State.PENDING,
        "reason": "retried",
        "due_at": now,
        "settled_at": None,
        "strikes": 0,
        "losses": 0,
        "epoch": F("epoch") + 1,
        "key_used_at": None,
        "uncertain_since": None,
    }
    guard = OutboundEmail.objects.using(using).filter(state__in=RETRYABLE)
    done = _change(rows, guard, values, EventType.RETRIED, actor=actor, using=using)
    if done:
        doorbell.ring_after_commit(using)
    return done


def _change(
    rows: dict[int, dict[str, Any]],
    guard: OutboundEmailQuerySet,
    values: dict[str, Any],
    type_: EventType,
    *,
    actor: str,
    using: str,
) -> int:
    """Change those of *rows* that *guard* lets through, and write their events."""
    given = Given(rows, using)
    with transaction.atomic(using=using):
        changed = given.update(guard, values | given.columns())
        emails = list(OutboundEmail.objects.using(using).filter(pk__in=changed).order_by("pk"))
        record(
            [
                {"type": type_, "actor": actor[:150], "detail": email.reason, **facts_of(email)}
                for email in emails
            ],
            emails,
            using,
        )
    return len(changed)


def _resend(
    emails: Sequence[OutboundEmail], *, actor: str, using: str, known: Set[int] | None = None
) -> list[OutboundEmail]:
    now = clock_now(using)
    copies = {
        email.pk: OutboundEmail(
            kind=email.kind,
            args=dict(email.args),
            language=email.language,
            time_zone=email.time_zone,
            lane=email.lane,
            on_uncertain=email.on_uncertain,
            created_at=now,
            due_at=now,
            expires_at=now + (email.expires_at - email.created_at),
            resend_of=email,
        )
        for email in emails
    }
    rows = OutboundEmail.objects.using(using)
    with transaction.atomic(using=using):
        # Changes nothing, and locks them, SQLite too: whoever resends the same at this moment waits here.
        rows.filter(pk__in=list(copies)).update(attempt=F("attempt"))
        if known is not None:
            others = rows.filter(resend_of__in=list(copies)).values_list("resend_of_id", "pk")
            for resent in {old for old, copy in others if copy not in known}:
                del copies[resent]
        rows.bulk_create(copies.values())
        olds = list(rows.filter(pk__in=list(copies)).order_by("pk"))
        events = [
            {
                "type": EventType.RESENT,
                "actor": actor[:150],
                "detail": f"as {copies[email.pk].uuid}",
                **facts_of(email),
            }
            for email in olds
        ]
        record(events, olds, using)
        doorbell.ring_after_commit(using)
    return list(copies.values())
