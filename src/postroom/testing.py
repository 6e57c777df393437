"""
For the tests of sites that use postroom.

The table is the queue, so nothing here needs ``captureOnCommitCallbacks``: ``drain()`` works
inside a ``TestCase``, in its transaction, and delivers into ``django.core.mail.outbox``.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import router
from django.db.models import DateTimeField, F, Model

from postroom.delivery import deliver_one, drain
from postroom.models import DeliveryEvent, OutboundEmail, State

__all__ = ["deliver_one", "drain", "enqueued", "let_time_pass"]


def enqueued(kind: str | None = None) -> list[OutboundEmail]:
    """Return the e-mails that wait to be sent, oldest first, of one *kind* or of all."""
    waiting = OutboundEmail.objects.filter(state=State.PENDING).order_by("pk")
    return list(waiting.filter(kind=kind) if kind else waiting)


def let_time_pass(duration: timedelta, *, using: str | None = None) -> None:
    """
    Make every e-mail and its history *duration* older, in the database that is written.

    What was to be retried by then is due, what expires by then has expired.
    """
    _make_older(OutboundEmail, duration, using)
    _make_older(DeliveryEvent, duration, using)


def _make_older(model: type[Model], duration: timedelta, using: str | None) -> None:
    rows = model._default_manager.using(using or router.db_for_write(OutboundEmail))
    moments = [field.name for field in model._meta.concrete_fields if isinstance(field, DateTimeField)]
    rows.update(**{moment: F(moment) - duration for moment in moments})
