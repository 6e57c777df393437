"""
THE state machine of an e-mail. Nothing else writes a state, but for its two lower
rooms: ``byhand.py``, the arrows of a person, and ``reports.py``, what the reports prove.

::

    enqueue --> PENDING --claim--> SENDING --accept--> ACCEPTED       (then reports)
                 ^ ^ ^              | | | '--doubt---> UNCERTAIN --note--> ACCEPTED
                 | | '--reschedule--' | '----fail----> FAILED
                 | '------rescue------'                  |
                 '------------retry by a person----------'
                PENDING --cancel--> CANCELLED <--withdraw-- SENDING

Each verb takes a list, changes its rows by one guarded statement, writes their events by one
INSERT, in one transaction, and returns what it lost: the results whose claim somebody else holds.

Three rules stand above the arrows. **Fence**: a refusal is written only while its claim holds.
**Evidence wins**: an acceptance is always written, and a row that a report has proved is closed
as accepted whatever the attempt says. **Doubt is not refusal**: while ``uncertain_since`` is set
the key stays the same and neither FAILED nor CANCELLED can be reached.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from itertools import islice
from typing import Any

from django.db import router, transaction
from django.db.models import Case, Exists, F, Q, Value, When
from django.db.models.functions import Coalesce, NullIf
from django.utils import timezone
from django.utils.translation import get_language

from postroom import doorbell
from postroom.brakes import pause, paused, release_stale, resume, set_aside_stale
from postroom.byhand import cancel, resend, retry
from postroom.conf import config
from postroom.failures import backoff
from postroom.ledger import Result, doubts_of, facts_of, record, record_results
from postroom.models import (
    SETTLED,
    EventType,
    Lane,
    OnUncertain,
    OutboundEmail,
    OutboundEmailQuerySet,
    Pause,
    State,
)
from postroom.reports import adopt, adopt_left_behind, note
from postroom.statements import (
    Given,
    claim_rows,
    clock,
    clock_for_insert,
    clock_now,
    insert,
)

__all__ = [
    "accept",
    "adopt_left_behind",
    "bulk_enqueue",
    "cancel",
    "claim",
    "doubt",
    "enqueue",
    "fail",
    "note",
    "pause",
    "paused",
    "release_stale",
    "renew",
    "reschedule",
    "rescue",
    "resend",
    "resume",
    "retry",
    "set_aside_stale",
    "withdraw",
]

KEY_WINDOW = timedelta(minutes=25)
"""How long after its first use a key may be used again. Brevo forgets keys after 30 min (docs, 2026-11)."""

KEY_MARGIN = timedelta(minutes=1)
"""A repeat is planned at least this long before the window closes."""

REPEAT_WITHOUT_KEY = timedelta(minutes=10)
"""Wait before the one repeat of an e-mail whose second copy does no harm."""

BULK_ROWS = 5000
"""E-mails in one INSERT of ``bulk_enqueue``: a few megabytes of arguments."""

SUSPECT_LOSSES, POISON_LOSSES = 2, 3
"""An e-mail that lost this many workers is claimed alone, and is given up."""


# --- beginnings ---------------------------------------------------------------------------------


def enqueue(
    kind: str,
    args: Mapping[str, Any] | None = None,
    *,
    lane: Lane | str = Lane.NORMAL,
    expires_in: timedelta | None = None,
    expires_at: datetime | None = None,
    due_at: datetime | None = None,
    on_uncertain: OnUncertain | str = OnUncertain.HOLD,
    resend_of: OutboundEmail | None = None,
    using: str | None = None,
) -> OutboundEmail:
    """
    Promise one e-mail: a single INSERT in the caller's transaction.

    Rolled back, nothing is left of it; committed, it is sent or its history says why not.
    *expires_in* counts from *due_at* where that is still to come. *using* defaults to where the
    router writes ``OutboundEmail``. No network is touched.
    """
    using = using or router.db_for_write(OutboundEmail)
    row = _promise(kind, lane, on_uncertain)
    row |= {"args": dict(args or {}), "uuid": uuid.uuid4(), "resend_of_id": resend_of and resend_of.pk}
    # The clock that will judge it writes it; in memory this process's has to do, unless that is the same.
    written = clock_for_insert(using)
    now = written if isinstance(written, datetime) else timezone.now()
    (pk,) = insert(OutboundEmail, [row], using, **_instants(written, due_at, expires_at, expires_in))
    _ring_after_commit(using)
    return _as_written({"id": pk, **row, **_instants(now, due_at, expires_at, expires_in)}, using)


def bulk_enqueue(
    kind: str,
    args: Iterable[Mapping[str, Any]],
    *,
    lane: Lane | str = Lane.BULK,
    expires_in: timedelta | None = None,
    expires_at: datetime | None = None,
    due_at: datetime | None = None,
    on_uncertain: OnUncertain | str = OnUncertain.HOLD,
    using: str | None = None,
) -> list[uuid.UUID]:
    """
    Promise one e-mail for each of *args*, all or none; return their UUIDs, in that order.

    BULK_ROWS of them are one INSERT. *args* may be a generator: it is read as the rows are written.
    """
    using = using or router.db_for_write(OutboundEmail)
    common = _promise(kind, lane, on_uncertain)
    names: list[uuid.UUID] = []
    waiting = iter(args)
    with transaction.atomic(using=using):
        while batch := list(islice(waiting, BULK_ROWS)):
            rows = [{**common, "args": dict(each), "uuid": uuid.uuid4()} for each in batch]
            now = clock_for_insert(using)
            insert(OutboundEmail, rows, using, **_instants(now, due_at, expires_at, expires_in))
            names += [row["uuid"] for row in rows]
        if names:
            _ring_after_commit(using)
    return names


def _ring_after_commit(using: str) -> None:
    doorbell.ring_after_commit(using)


def _promise(kind: str, lane: Lane | str, on_uncertain: OnUncertain | str) -> dict[str, Any]:
    """What the row of an e-mail says from the beginning, but for its name, its arguments and its instants."""
    return {
        "kind": kind,
        "lane": Lane[lane.upper()] if isinstance(lane, str) else lane,
        "on_uncertain": OnUncertain(on_uncertain),
        "language": get_language() or "",
        "time_zone": timezone.get_current_timezone_name(),
    }


def _as_written(row: Mapping[str, Any], using: str) -> OutboundEmail:
    """Return the e-mail of a *row* that was just written, as if it had been read again."""
    values = [row.get(name, default) for name, default in _blank()]
    return OutboundEmail.from_db(using, [name for name, _ in _blank()], values)


@cache
def _blank() -> list[tuple[str, Any]]:
    """Each column's attribute, and what it is where nothing is said; nothing where a function says it."""
    return [
        (field.attname, None if field.has_default() and callable(field.default) else field.get_default())
        for field in OutboundEmail._meta.concrete_fields
    ]


def _instants(
    now: Any, due_at: datetime | None, expires_at: datetime | None, expires_in: timedelta | None
) -> dict[str, Any]:
    life = expires_in or timedelta(seconds=config().EXPIRES_AFTER_SECONDS)
    # Its life begins when it may go out: else one for next month would have expired before that.
    begins = due_at if due_at and due_at.timestamp() > time.time() else now
    return {"created_at": now, "due_at": due_at or now, "expires_at": expires_at or begins + life}


def claim(
    limit: int,
    *,
    worker: str,
    mailer: str,
    keyed: bool,
    urgent_only: bool = False,
    alone: bool = False,
    overdue: timedelta = timedelta(),
    only: int | None = None,
    using: str | None = None,
) -> list[OutboundEmail]:
    """
    Take up to *limit* due e-mails for *worker*, most urgent and oldest first; none while paused.

    Sets owner, fencing token, lease and attempt + 1; with *keyed* the first use of the
    idempotency key. No other claim gets the same rows while the lease lives. *alone* takes only
    those that have lost a worker twice, *overdue* those that have been due for so long. An e-mail
    in doubt is given to the mailer that had it only.
    """
    using = using or router.db_for_write(OutboundEmail)
    now = clock(using)
    if only is None:
        due = _due(now - overdue if overdue else now, urgent_only=urgent_only, alone=alone, using=using)
    else:
        due = OutboundEmail.objects.using(using).filter(pk=only, state=State.PENDING)
    # Of another mailer only what has expired, itself or its key: that is settled without being sent.
    over = Q(expires_at__lte=now) | Q(key_used_at__lt=now - KEY_WINDOW)
    ours = Q(uncertain_since__isnull=True) | Q(mailer=mailer) | over
    # Asked by the very statement that takes the rows: what it takes after a pause was never there to take.
    due = due.filter(ours, ~Exists(Pause.objects.using(using))).order_by("lane", "due_at")
    in_doubt = Q(uncertain_since__isnull=False)
    taken: dict[str, Any] = {
        "state": State.SENDING,
        "claim_id": uuid.uuid4(),
        "worker": worker,
        "mailer": Case(When(in_doubt, then=F("mailer")), default=Value(mailer)),
        "lease_expires_at": now + timedelta(seconds=config().LEASE_SECONDS),
        "attempt": F("attempt") + 1,
        "key_used_at": Case(
            When(in_doubt, then=F("key_used_at")), default=Coalesce(F("key_used_at"), now) if keyed else None
        ),
    }
    with transaction.atomic(using=using):
        emails = claim_rows(due[:limit], taken)
        record([{"type": EventType.CLAIMED, **facts_of(email)} for email in emails], emails, using)
    return sorted(emails, key=lambda email: (email.lane, email.due_at))


def _due(before: Any, *, urgent_only: bool, alone: bool, using: str) -> OutboundEmailQuerySet:
    due = OutboundEmail.objects.using(using).due(before)
    due = due.filter(losses__gte=SUSPECT_LOSSES) if alone else due.filter(losses__lt=SUSPECT_LOSSES)
    return due.filter(lane=Lane.URGENT) if urgent_only else due


def renew(emails: Sequence[OutboundEmail], *, using: str) -> set[int]:
    """Prolong the leases of *emails* that are still claimed as they say; return their primary keys."""
    if not emails:
        return set()
    lease = clock(using) + timedelta(seconds=config().LEASE_SECONDS)
    held = Given({email.pk: {} for email in emails}, using, claims={e.pk: e.claim_id for e in emails})
    return held.update(OutboundEmail.objects.using(using), {"lease_expires_at": lease})


# --- ends of a claim ----------------------------------------------------------------------------


def accept(results: Sequence[Result], *, using: str | None = None) -> list[Result]:
    """
    Write that the provider took these e-mails, whoever holds their claims now.

    Evidence wins: a late acceptance replaces any other state, and reports that came before it
    are adopted by their message id. Lost are only rows that no longer exist.
    """
    if not results:
        return []
    using = using or router.db_for_write(OutboundEmail)
    now = timezone.now()
    rows = {
        result.email.pk: {
            "message_id": result.message_id[:255],
            "recipient": result.recipient[:254],
            "recipient_count": result.recipient_count,
        }
        for result in results
    }
    given = Given(rows, using)
    new = given.columns()
    values = _settled(State.ACCEPTED, now) | {
        "accepted_at": Coalesce(F("accepted_at"), now),
        "uncertain_since": None,
        "reason": "",
        **new,
        # An acceptance that names no id must not wipe the one that reports will name.
        "message_id": Coalesce(NullIf(new["message_id"], Value("")), F("message_id")),
    }
    with transaction.atomic(using=using):
        changed = given.update(OutboundEmail.objects.using(using), values)
        for result in results:
            _mirror(
                result.email,
                State.ACCEPTED,
                now,
                accepted_at=now,
                uncertain_since=None,
                **rows[result.email.pk],
            )
        record_results(results, changed, EventType.ACCEPTED, using)
    adopt({r.message_id: r.email.pk for r in results if r.message_id and r.email.pk in changed}, using)
    return [result for result in results if result.email.pk not in changed]


def reschedule(results: Sequence[Result], *, using: str | None = None) -> list[Result]:
    """
    Write that these attempts were refused for now: PENDING again after ``wait``, with a new key.

    The key stays the same where an earlier attempt is still in doubt.
    """
    if not results:
        return []
    using = using or router.db_for_write(OutboundEmail)
    now = clock_now(using)
    rows = {}
    for result in results:
        email = result.email
        in_doubt = email.uncertain_since is not None
        rows[email.pk] = {
            "due_at": min(now + (result.wait or timedelta()), max(email.expires_at, now)),
            "strikes": email.strikes + int(result.verdict is not None and result.verdict.strike),
            "epoch": email.epoch if in_doubt else email.epoch + 1,
            "key_used_at": email.key_used_at if in_doubt else None,
            "reason": result.verdict.failure if result.verdict else "",
        }
    return _settle(results, EventType.RESCHEDULED, State.PENDING, now, rows, using)


def fail(results: Sequence[Result], *, using: str | None = None) -> list[Result]:
    """Write that these e-mails were certainly not accepted and are given up; in doubt: UNCERTAIN."""
    return _close(results, EventType.FAILED, State.FAILED, using)


def withdraw(results: Sequence[Result], *, using: str | None = None) -> list[Result]:
    """Write that these e-mails are not sent on purpose, for ``reason``; in doubt: UNCERTAIN."""
    return _close(results, EventType.WITHDRAWN, State.CANCELLED, using)


def doubt(results: Sequence[Result], *, using: str | None = None) -> list[Result]:
    """
    Write that these attempts ended without an answer.

    PENDING where a safe repeat is left (same key inside its window; once after ten minutes where
    a second copy does no harm), else UNCERTAIN until a report, a used link or a person knows more.
    """
    if not results:
        return []
    using = using or router.db_for_write(OutboundEmail)
    now = clock_now(using)
    plans = {result.email.pk: _repeat_at(result.email, result.email.losses, now) for result in results}
    again = [result for result in results if plans[result.email.pk]]
    held = [result for result in results if not plans[result.email.pk]]
    lost = _settle(again, EventType.DOUBTED, State.PENDING, now, _in_doubt(again, plans, now), using)
    return lost + _settle(held, EventType.DOUBTED, State.UNCERTAIN, now, _in_doubt(held, plans, now), using)


def rescue(*, worker: str, limit: int = 100, using: str | None = None) -> list[OutboundEmail]:
    """
    Take back e-mails whose worker let the lease run out, and return them as they are now.

    A row that a report has proved is closed as accepted, not sent again. Every other one is in
    doubt: its worker may have died one instruction after the provider took it.
    """
    using = using or router.db_for_write(OutboundEmail)
    now = clock_now(using)
    with transaction.atomic(using=using):
        abandoned = OutboundEmail.objects.using(using).abandoned(clock(using))
        emails = claim_rows(abandoned[:limit], {"losses": F("losses") + 1})
        for email in emails:
            _settle_rescued(email, now, using)
        events = [
            {"type": EventType.RESCUED, "detail": f"taken back by {worker}", **facts_of(email)}
            for email in emails
        ]
        record(events, emails, using)
    if emails:
        doorbell.ring(using)
    return emails


def _settle_rescued(email: OutboundEmail, now: datetime, using: str) -> None:
    if email.report_rank:
        _mirror(
            email, State.ACCEPTED, now, accepted_at=email.reported_at or now, uncertain_since=None, reason=""
        )
    elif repeat_at := _repeat_at(email, email.losses, now):
        # The lease has run out already: whoever waits has waited long enough.
        due_at = now if email.key_used_at else repeat_at
        since = email.uncertain_since or now
        _mirror(email, State.PENDING, now, due_at=due_at, uncertain_since=since, strikes=email.strikes + 1)
    else:
        since = email.uncertain_since or now
        _mirror(
            email,
            State.UNCERTAIN,
            now,
            uncertain_since=since,
            reason="worker_lost",
            strikes=email.strikes + 1,
        )
    email.save(using=using)


def _repeat_at(email: OutboundEmail, losses: int, now: datetime) -> datetime | None:
    """Return when an attempt that ended in doubt may be repeated safely; None: never."""
    if losses >= POISON_LOSSES or email.strikes + 1 >= config().MAX_STRIKES or email.is_expired(now):
        return None
    if email.key_used_at:
        latest = email.key_used_at + KEY_WINDOW - KEY_MARGIN
        return min(now + backoff(email.strikes + 1), latest) if now < latest else None
    if email.on_uncertain == OnUncertain.REPEAT and email.uncertain_since is None:
        return now + REPEAT_WITHOUT_KEY
    return None


def key_has_expired(email: OutboundEmail) -> bool:
    """Whether a repeat of an attempt in doubt would no longer be recognised by the provider."""
    if email.uncertain_since is None or email.key_used_at is None:
        return False
    return clock_now(email._state.db or router.db_for_write(OutboundEmail)) > email.key_used_at + KEY_WINDOW


def claimed_at(email: OutboundEmail) -> datetime:
    """Return when a claimed *email* was claimed, by the clock that judges due dates and expiries."""
    if email.lease_expires_at is None:
        return timezone.now()
    return email.lease_expires_at - timedelta(seconds=config().LEASE_SECONDS)


# --- how the arrows are written -----------------------------------------------------------------


def _settle(
    results: Sequence[Result],
    type_: EventType,
    state: State,
    now: datetime,
    rows: Mapping[int, Mapping[str, Any]],
    using: str | None,
) -> list[Result]:
    """Write one end of a claim for *results*, with the values in *rows*; proved rows are accepted instead."""
    if not results:
        return []
    using = using or router.db_for_write(OutboundEmail)
    emails = OutboundEmail.objects.using(using)
    # Rows with the values that are theirs, under the very claim of this attempt.
    held = Given(
        {result.email.pk: rows[result.email.pk] for result in results},
        using,
        claims={result.email.pk: result.email.claim_id for result in results},
    )
    with transaction.atomic(using=using):
        changed = held.update(emails.filter(report_rank=0), _settled(state, now) | held.columns())
        # Proved while in hand: the report beats whatever this attempt has to say. The proved come second,
        # so that a report which comes in between is seen by one of the two.
        proved = held.update(
            emails.filter(report_rank__gt=0),
            _settled(State.ACCEPTED, now) | {"accepted_at": now, "uncertain_since": None, "reason": ""},
        )
        for result in results:
            if result.email.pk in proved:
                _mirror(result.email, State.ACCEPTED, now, accepted_at=now, uncertain_since=None)
            elif result.email.pk in changed:
                _mirror(result.email, state, now, **rows[result.email.pk])
        record_results(results, proved, EventType.ACCEPTED, using)
        record_results(results, changed, type_, using)
    return [result for result in results if result.email.pk not in proved | changed]


def _close(results: Sequence[Result], type_: EventType, state: State, using: str | None) -> list[Result]:
    now = timezone.now()
    since = doubts_of([result.email for result in results], using)
    rows = {
        result.email.pk: {
            "reason": (result.reason or (result.verdict.failure if result.verdict else ""))[:64],
            "strikes": result.email.strikes + int(result.verdict is not None and result.verdict.strike),
            "uncertain_since": since.get(result.email.pk),
        }
        for result in results
    }
    sure = [result for result in results if result.email.pk not in since]
    unsure = [result for result in results if result.email.pk in since]
    lost = _settle(sure, type_, state, now, rows, using)
    return lost + _settle(unsure, EventType.DOUBTED, State.UNCERTAIN, now, rows, using)


def _in_doubt(
    results: Sequence[Result], plans: Mapping[int, datetime | None], now: datetime
) -> dict[int, dict[str, Any]]:
    return {
        result.email.pk: {
            "uncertain_since": result.email.uncertain_since or now,
            "strikes": result.email.strikes + int(result.verdict is None or result.verdict.strike),
            "due_at": min(plans[result.email.pk] or result.email.due_at, max(result.email.expires_at, now)),
            "reason": result.verdict.failure if result.verdict else "",
        }
        for result in results
    }


def _settled(state: State, now: datetime) -> dict[str, Any]:
    """The columns that every end of a claim sets."""
    return {
        "state": state,
        "claim_id": None,
        "lease_expires_at": None,
        "settled_at": now if state in SETTLED else None,
    }


def _mirror(email: OutboundEmail, state: State, now: datetime, **values: Any) -> None:
    """Let the row in memory say what the row in the table says now."""
    for name, value in (_settled(state, now) | values).items():
        setattr(email, name, value)
