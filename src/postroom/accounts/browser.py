"""
What this browser's session holds: the receipt for a registration, and a link it has opened.

There is no other secret. The session names attempts by their ids, each until the attempt ends; it
survives the login and is gone with the logout. Nothing here is a password or a token.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from postroom import receipt
from postroom.accounts import progress
from postroom.accounts.models import Registration

if TYPE_CHECKING:
    from django.http import HttpRequest

KEY = "postroom_accounts"
"""Of the session: ``{"registrations": {id: until}, "opened": {"id": …, "until": …}}``."""

KEPT = 10
"""So many registrations a browser, the newest ones."""

OPENED_FOR_SECONDS = 3600
"""How long the page behind a link stays usable without opening the link again."""


def remember(request: HttpRequest, registration: Registration) -> None:
    """Give this browser the receipt: it may see the status, and confirm with one click."""
    held = _held(request)
    # Renewed at the end: the newest comes last.
    held.pop(registration.id.hex, None)
    held[registration.id.hex] = int(registration.expires_at.timestamp())
    _write(request, "registrations", dict(list(held.items())[-KEPT:]))
    if registration.email is not None:
        receipt(request, registration.email, address=registration.address, type=progress.TYPE)


def newest(request: HttpRequest) -> Registration | None:
    """Return the latest attempt that this browser registered, None where there is none or its time is over."""
    held = list(_held(request))
    return _attempt(held[-1]) if held else None


def had_registered(request: HttpRequest) -> bool:
    """Whether this browser has ever registered in this session, however long ago."""
    return bool(request.session.get(KEY, {}).get("registrations"))


def registered(request: HttpRequest, registration: Registration) -> bool:
    """Whether this browser is the one that registered."""
    return registration.id.hex in _held(request)


def remember_link(request: HttpRequest, registration: Registration) -> None:
    """Note that this browser has shown the genuine link of the attempt, so that the link can leave the URL."""
    until = int(time.time()) + OPENED_FOR_SECONDS
    _write(request, "opened", {"id": registration.id.hex, "until": until})
    # Nothing else is written by that request. Where the database takes no writes, it is better met
    # here, where a page can say so, than by the middleware that saves the session after the view.
    request.session.save()


def opened(request: HttpRequest) -> Registration | None:
    """Return the attempt whose link this browser has opened within the hour."""
    link = request.session.get(KEY, {}).get("opened", {})
    return _attempt(link["id"]) if link.get("until", 0) > time.time() else None


def _held(request: HttpRequest) -> dict[str, int]:
    held: dict[str, int] = request.session.get(KEY, {}).get("registrations", {})
    return {identifier: until for identifier, until in held.items() if until > time.time()}


def _write(request: HttpRequest, name: str, value: Any) -> None:
    # Assigned as a whole: a session does not notice changes inside its values.
    request.session[KEY] = {**request.session.get(KEY, {}), name: value}


def _attempt(identifier: str) -> Registration | None:
    found = Registration.objects.select_related("user", "email")
    return found.filter(pk=uuid.UUID(identifier)).first()
