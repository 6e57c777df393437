"""How far a registration is: the state of its e-mail, overlaid with the one fact of its own, *confirmed*."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from postroom import Status, describe
from postroom.accounts.routes import url

if TYPE_CHECKING:
    from postroom.accounts.models import Registration

TYPE = "verification"
"""What the status API calls the e-mail of a registration, whichever of the two it is."""


def of(registration: Registration, *, time_zone: str | None = None) -> Status | None:
    """
    Return what may be told to the browser that registered; None once the outbox has been pruned.

    *time_zone* is the visitor's, as the browser names it.

    *Confirmed* means that this attempt was, not that its address is: who typed somebody else's
    address must not learn what becomes of it.
    """
    if registration.email is None:
        return None
    confirmed_at = registration.consumed_at
    status = describe(
        registration.email,
        address=registration.address,
        time_zone=time_zone,
        verified_at=confirmed_at,
        type=TYPE,
        confirm=True,
    )
    return replace(status, next=url("login")) if confirmed_at is not None else status
