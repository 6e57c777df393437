"""
The history of an e-mail: what is written with every change, and what can be read from it.

Owns the events. Decides nothing: which arrow a result takes is written in ``outbox.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import router
from django.db.models import Min
from django.utils import timezone

from postroom import signals
from postroom.failures import Verdict
from postroom.models import EVIDENCE, DeliveryEvent, EventType, OutboundEmail
from postroom.statements import insert

_NOTHING: dict[str, Any] = {
    field.attname: None if field.null else field.get_default()
    for field in DeliveryEvent._meta.concrete_fields
    if not field.primary_key
}
"""An event that says nothing, in the order of its columns."""

UNANSWERED = (EventType.DOUBTED, EventType.RESCUED)
"""Events of an attempt after which the provider may have the e-mail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How one attempt ended. ``email`` is the row as it was claimed: id, attempt and claim are the fence."""

    email: OutboundEmail
    verdict: Verdict | None = None
    """What went wrong; None for an acceptance or a withdrawal."""

    message_id: str = ""
    recipient: str = ""
    recipient_count: int = 1
    duration_ms: int | None = None
    wait: timedelta | None = None
    """How long to wait before the next attempt, where it is planned."""

    reason: str = ""
    """Why it was withdrawn."""

    detail: str = ""


def facts_of(email: OutboundEmail) -> dict[str, Any]:
    """What every event says about the row it belongs to."""
    return {
        "email_id": email.pk,
        "state": email.state,
        "attempt": email.attempt,
        "worker": email.worker,
        "mailer": email.mailer,
    }


def record_results(results: Sequence[Result], changed: set[int], type_: EventType, using: str) -> None:
    """Write the events of those *results* whose rows were *changed*."""
    told = [result for result in results if result.email.pk in changed]
    rows = [
        {
            "type": type_,
            "error_class": result.verdict.failure if result.verdict else "",
            "fingerprint": result.verdict.fingerprint if result.verdict else "",
            "detail": (result.verdict.detail if result.verdict else result.detail or result.reason)[:2000],
            "duration_ms": result.duration_ms,
            "recipient": result.recipient[:254],
            "message_id": result.message_id[:255],
            **facts_of(result.email),
        }
        for result in told
    ]
    record(rows, [result.email for result in told], using)


def record(rows: Sequence[Mapping[str, Any]], emails: Sequence[OutboundEmail], using: str) -> None:
    """
    Write an event for each of *rows* by one INSERT and announce them after the commit.

    *rows* hold what an event says, by the name of its attribute, all the same names; what they do
    not name is empty. *emails* are theirs, as the change left them.
    """
    if not rows:
        return
    now = timezone.now()
    whole = [{**_NOTHING, "at": now, **row} for row in rows]
    keys = insert(DeliveryEvent, whole, using)
    pairs = []
    for pk, row, email in zip(keys, whole, emails, strict=True):
        event = DeliveryEvent.from_db(using, ["id", *row], [pk, *row.values()])
        event._state.fields_cache["email"] = email
        pairs.append((email, event))
    signals.announce(pairs, using)


def weigh(reports: Iterable[DeliveryEvent], recipient_count: int = 1) -> DeliveryEvent | None:
    """
    Return the report that counts: the strongest of each recipient, then that of the worst off.

    The same for every order of the same reports. Worst off: bounced before waiting before delivered.
    """

    def strength(event: DeliveryEvent) -> tuple[int, datetime, str]:
        return EVIDENCE[event.type], event.occurred_at or event.at, event.type

    best: dict[str, DeliveryEvent] = {}
    for event in sorted(reports, key=strength):
        best["" if recipient_count == 1 else event.recipient.lower()] = event
    if not best:
        return None
    strongest = max(best.values(), key=strength)
    if recipient_count == 1 or EVIDENCE[strongest.type] >= EVIDENCE[EventType.BOUNCED]:
        return strongest
    return min(best.values(), key=strength)


def doubts_of(emails: Sequence[OutboundEmail], using: str | None) -> dict[int, datetime]:
    """
    Return since when an attempt stands without an answer, for the e-mails that have one.

    A retry by hand ends the doubt of the row, for it takes a new key; the attempt before it may
    have arrived nevertheless, and only the events remember it.
    """
    since = {email.pk: email.uncertain_since for email in emails if email.uncertain_since}
    retried = [email.pk for email in emails if email.epoch and email.pk not in since]
    if retried:
        using = using or router.db_for_write(OutboundEmail)
        events = DeliveryEvent.objects.using(using).filter(email__in=retried, type__in=UNANSWERED)
        since |= dict(events.values_list("email_id").annotate(Min("at")))
    return since
