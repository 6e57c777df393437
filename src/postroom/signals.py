"""
What others hear of an e-mail, and the log lines, which are the first to listen.

``email_event`` is sent once for every event, after the transaction that wrote it has committed;
a receiver that raises disturbs nobody. Log lines carry ids, never addresses, subjects or links.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.dispatch import Signal

from postroom.models import DeliveryEvent, EventType, OutboundEmail

logger = logging.getLogger("postroom")

email_event = Signal()
"""Arguments: ``email`` (OutboundEmail as the change left it) and ``event`` (DeliveryEvent)."""

LEVELS: dict[str, int] = {
    EventType.RESCUED: logging.WARNING,
    EventType.DOUBTED: logging.WARNING,
    EventType.BOUNCED: logging.WARNING,
    EventType.REFUSED: logging.WARNING,
    EventType.BROKEN: logging.WARNING,
    EventType.COMPLAINED: logging.WARNING,
    EventType.FAILED: logging.ERROR,
}
"""Everything else is INFO."""


def announce(pairs: Sequence[tuple[OutboundEmail, DeliveryEvent]], using: str) -> None:
    """Send ``email_event`` for each pair once the transaction on *using* has committed."""

    def send() -> None:
        for email, event in pairs:
            email_event.send_robust(sender=OutboundEmail, email=email, event=event)

    transaction.on_commit(send, using=using, robust=True)


def log_event(*, email: OutboundEmail, event: DeliveryEvent, **_: Any) -> None:
    """Write the one log line of an event: ``event key=value``."""
    level = LEVELS.get(event.type, logging.INFO)
    if not logger.isEnabledFor(level):
        return
    logger.log(
        level,
        "%s email=%s kind=%s state=%s attempt=%s worker=%s mailer=%s class=%s ms=%s%s",
        event.type,
        email.uuid,
        email.kind,
        event.state or email.state,
        event.attempt,
        event.worker or "-",
        event.mailer or "-",
        event.error_class or "-",
        "-" if event.duration_ms is None else event.duration_ms,
        f" by={event.actor!r}" if event.actor else "",
        extra={
            "email_id": email.short_id,
            "event": event.type,
            "reason": email.reason,
            "detail": event.detail,
        },
    )


email_event.connect(log_event, dispatch_uid="postroom.log")
