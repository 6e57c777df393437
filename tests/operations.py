"""Workers and events as the tables hold them, for tests that look at a night in operation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from postroom.models import DeliveryEvent, EventType, OutboundEmail, State, WorkerHeartbeat
from tests.rows import row

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def beat(
    name: str = "web-2/4711", *, heard: timedelta = SECOND, using: str = "default", **fields: Any
) -> WorkerHeartbeat:
    """A delivery process that was last heard *heard* ago, and had just finished a turn then."""
    then = timezone.now() - heard
    values: dict[str, Any] = {
        "name": name,
        "started_at": then - timedelta(hours=3),
        "seen_at": then,
        "last_turn_at": then,
        "doing": "idle",
        "concurrency": 32,
        "host": name.partition("/")[0],
        "pid": int(name.partition("/")[2]),
        "version": "0.1.0",
    }
    return WorkerHeartbeat.objects.using(using).create(**values | fields)


def saved(
    state: State = State.PENDING, *, ago: timedelta = SECOND, using: str = "default", **fields: Any
) -> OutboundEmail:
    """A row of the outbox, saved."""
    email = row(state, ago=ago, **fields)
    email.save(using=using)
    return email


def happened(
    email: OutboundEmail,
    type_: EventType,
    *,
    ago: timedelta = SECOND,
    mailer: str = "provider",
    **fields: Any,
) -> DeliveryEvent:
    """An event of *email*, written *ago*."""
    at = timezone.now() - ago
    return DeliveryEvent.objects.using(email._state.db).create(
        email=email, type=type_, at=at, mailer=mailer, **fields
    )


def accepted(
    *,
    ago: timedelta = MINUTE,
    took: timedelta = SECOND,
    using: str = "default",
    kind: str = "shop.order_confirmation",
    **fields: Any,
) -> OutboundEmail:
    """An e-mail that was accepted *ago*, *took* after it had been saved."""
    email = saved(State.ACCEPTED, ago=ago + took, using=using, kind=kind, mailer="provider")
    happened(email, EventType.ACCEPTED, ago=ago, **{"duration_ms": 400, **fields})
    return email


def refused(
    error_class: str, detail: str, *, ago: timedelta = SECOND, using: str = "default", **fields: Any
) -> OutboundEmail:
    """An e-mail that waits because its attempt ended that way *ago*."""
    kind = fields.pop("kind", "accounts.verification")
    email = saved(ago=ago + MINUTE, using=using, kind=kind, reason=error_class, attempt=1)
    OutboundEmail.objects.using(using).filter(pk=email.pk).update(due_at=timezone.now() + MINUTE)
    happened(
        email,
        EventType.RESCHEDULED,
        ago=ago,
        error_class=error_class,
        detail=detail,
        fingerprint="abc123",
        **fields,
    )
    return email
