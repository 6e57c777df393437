"""Rows in any state, for tests that only read."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.utils import timezone

from postroom.models import SETTLED, OutboundEmail, State


def row(
    state: State = State.PENDING, *, ago: timedelta = timedelta(seconds=1), **fields: Any
) -> OutboundEmail:
    """An e-mail in *state* that was written, due and settled *ago*, with what its constraints ask for."""
    then = timezone.now() - ago
    values: dict[str, Any] = {
        "kind": "shop.order_confirmation",
        "state": state,
        "created_at": then,
        "due_at": then,
        "expires_at": then + timedelta(days=7),
        "settled_at": then if state in SETTLED else None,
    }
    if state == State.ACCEPTED:
        values |= {"accepted_at": then, "attempt": 1}
    if state == State.UNCERTAIN:
        values |= {"uncertain_since": then, "attempt": 1}
    if state == State.SENDING:
        values |= {"claim_id": uuid.uuid4(), "lease_expires_at": then + timedelta(days=1), "attempt": 1}
    return OutboundEmail(**values | fields)
