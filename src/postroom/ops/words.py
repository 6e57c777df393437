"""
Numbers, times and names as an operator reads them, and what must not be read at all.

Owns the masking: an address is shown as ``a***@example.com``, an argument only where it cannot be
an address, a link or a secret.
"""

from __future__ import annotations

import getpass
import os
import socket
import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from django.db import connections
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from postroom.models import OutboundEmail

DROP_IN_KIND: Final = "postroom.message"
"""E-mails that arrived as a finished message: their arguments *are* the message, links included."""


def masked(address: str) -> str:
    """Return ``a***@example.com`` for an address: enough to recognise one's own, not to learn another's."""
    name, at, domain = address.rpartition("@")
    return f"{name[:1]}***@{domain}" if at else ("***" if address else "")


def person(actor: str) -> str:
    """Return who did something by hand; where people log in with their addresses, masked."""
    return masked(actor) if "." in actor.rpartition("@")[2] and "@" in actor else actor or "?"


def this_person() -> str:
    """Return who runs this process, as the history names the hand behind a command: ``anna@web-2``."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may run under a number that has no name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname().partition('.')[0]}"[:150]


def shown_args(email: OutboundEmail) -> list[tuple[str, str]]:
    """
    Return the composer's arguments as they may be shown: numbers, truths, ids and dates.

    Any other text could be an address, a link or a secret and is told by its length only. Of a
    drop-in message nothing is shown.
    """
    if email.kind == DROP_IN_KIND or not isinstance(email.args, dict):
        return []
    return [(name, _shown(value)) for name, value in sorted(email.args.items())]


def _shown(value: Any) -> str:
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)
    if not isinstance(value, str):
        return _("(list of {n})").format(n=len(value))
    for reads in (uuid.UUID, datetime.fromisoformat):
        try:
            reads(value)
        except ValueError:
            continue
        return value
    return ngettext("(text of {n} character)", "(text of {n} characters)", len(value)).format(n=len(value))


def number(n: int, *, cap: int | None = None) -> str:
    """Return ``1,204``; with *cap* reached ``100,000+``, because nobody counted on."""
    return f"{n:,}+" if cap is not None and n >= cap else f"{n:,}"


def duration(seconds: float) -> str:
    """Return a length of time in at most two units: ``0.4 s``, ``41 s``, ``5 min 50 s``, ``16 min``, ``3 h 10 min``."""
    seconds = max(seconds, 0.0)
    if seconds < 10:
        return _("{n} s").format(n=f"{seconds:.1f}".removesuffix(".0"))
    whole = round(seconds)
    if whole < 60:
        return _("{n} s").format(n=whole)
    if whole < 600:
        return _two(whole, 60, _("{n} min"), _("{n} s"))
    if whole < 3600:
        return _("{n} min").format(n=whole // 60)
    if whole < 48 * 3600:
        return _two(whole // 60, 60, _("{n} h"), _("{n} min"))
    return ngettext("{n} day", "{n} days", whole // 86400).format(n=whole // 86400)


def _two(whole: int, step: int, big: str, small: str) -> str:
    first, rest = divmod(whole, step)
    return big.format(n=first) + (" " + small.format(n=rest) if rest else "")


def ago(instant: datetime, now: datetime | None = None) -> str:
    """Return ``4 s ago``."""
    return _("{duration} ago").format(duration=duration(((now or timezone.now()) - instant).total_seconds()))


def clock(instant: datetime, now: datetime | None = None) -> str:
    """Return the time of day in the active zone, with the date unless it is today's."""
    local = timezone.localtime(instant)
    same_day = local.date() == timezone.localtime(now).date()
    return f"{local:%H:%M:%S}" if same_day else f"{local:%Y-%m-%d %H:%M:%S}"


def median(values: Iterable[float]) -> float:
    """Return the middle value, the lower of two; 0 of nothing."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2] if ordered else 0.0


def database_label(alias: str) -> str:
    """Return which database *alias* is, without user and password; the first line of a worker says the same."""
    parts = connections[alias].settings_dict
    name = str(parts.get("NAME") or "").rsplit("/", 1)[-1]
    host = str(parts.get("HOST") or "")
    return f"{connections[alias].vendor} {name}{'@' + host if host else ''}"
