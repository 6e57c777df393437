"""
The list of e-mails that an operator looks through: a search in words, a page at a time.

Pages follow the primary key (newest first), so that page 1,000 costs what page 1 does and no
row is shown twice while new ones come in.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.db import connections
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from postroom.models import SETTLED, EventType, OutboundEmail, State
from postroom.ops.questions import bounded, database

PAGE_SIZE: Final = 50

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_REPORTED: Final = {
    EventType.DELIVERED.value,
    EventType.DEFERRED.value,
    EventType.BOUNCED.value,
    EventType.REFUSED.value,
    EventType.COMPLAINED.value,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of the search; ``older`` is the id after which the next one begins, or None."""

    emails: Sequence[OutboundEmail]
    older: uuid.UUID | None = None
    misunderstood: tuple[str, ...] = ()
    """Sentences about words of the search that say nothing to us; such a word is left out."""


def search(text: str, *, before: str = "") -> Page:
    """
    Return the newest e-mails that match all words of *text*: ``to:`` ``kind:`` ``state:`` ``since:``,
    or the beginning of an id.

    ``state:`` knows the states, ``waiting``, ``settled`` and reports such as ``bounced``;
    ``since:`` a length of time (``90m``, ``3h``, ``2d``). Raises DatabaseError where it takes too long.
    """
    condition, misunderstood = Q(), []
    for word in text.split():
        meaning = _meaning(word)
        if isinstance(meaning, str):
            misunderstood.append(meaning)
        else:
            condition &= meaning
    alias = database()
    with bounded(alias):
        rows = OutboundEmail.objects.using(alias).filter(condition & _before(alias, before))
        emails = list(rows.order_by("-pk")[: PAGE_SIZE + 1])
    older = emails[PAGE_SIZE - 1].uuid if len(emails) > PAGE_SIZE else None
    return Page(emails=emails[:PAGE_SIZE], older=older, misunderstood=tuple(misunderstood))


def id_begins_with(digits: str, using: str) -> Q:
    """Return the condition for ids that begin with these 1 to 32 hexadecimal *digits*; raises ValueError for others."""
    first, last = uuid.UUID(digits.ljust(32, "0")), uuid.UUID(digits.ljust(32, "f"))
    connection = connections[using]
    if connection.vendor != "mysql" or not connection.features.has_native_uuid_field or first == last:
        # A range of the unique index.
        return Q(uuid__gte=first, uuid__lte=last)
    # MariaDB orders UUIDs from their last group on (mariadb.com/docs, UUID data type, 2026-11): there
    # a range is something else, and the text is what begins with the digits.
    groups = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return Q(uuid__startswith="-".join(group for group in groups if group))


def _before(alias: str, before: str) -> Q:
    """Rows older than the one with this id; a wrong id means from the beginning."""
    try:
        last = OutboundEmail.objects.using(alias).filter(uuid=uuid.UUID(before)).values_list("pk", flat=True)
    except ValueError:
        return Q()
    pk = last.first()
    return Q(pk__lt=pk) if pk else Q()


def _meaning(word: str) -> Q | str:
    """Return the condition of one word, or a sentence that says what is not understood."""
    name, colon, value = word.partition(":")
    if not colon:
        return _id(word)
    match name.lower():
        case "to" if value:
            return Q(recipient__icontains=value)
        case "kind" if value:
            return Q(kind__icontains=value)
        case "state" if value:
            return _state(value.lower())
        case "since" if value:
            return _since(value)
    return _(
        "“{word}” is not understood. There are to: kind: state: since: and the beginning of an id."
    ).format(word=word)


def _id(word: str) -> Q | str:
    digits = word.replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{1,32}", digits):
        return _("“{word}” is not the beginning of an id. For an address write to:{word}").format(word=word)
    return id_begins_with(digits, database())


def _state(value: str) -> Q | str:
    if value in _REPORTED:
        return Q(report=value)
    if value in State.values:
        return Q(state=value)
    if value == "waiting":
        return Q(state__in=[State.PENDING, State.SENDING])
    if value == "settled":
        return Q(state__in=SETTLED)
    known = ", ".join([*State.values, "waiting", "settled", *sorted(_REPORTED)])
    return _("There is no state “{value}”. There are: {known}.").format(value=value, known=known)


def _since(value: str) -> Q | str:
    match = re.fullmatch(r"(\d{1,5})([mhd])", value.lower())
    if not match:
        return _("“since:{value}” is not a length of time. Write since:90m, since:3h or since:2d.").format(
            value=value
        )
    length = timedelta(**{_UNITS[match[2]]: int(match[1])})
    return Q(created_at__gte=timezone.now() - length)
