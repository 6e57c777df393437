"""
What providers, and used links, say about e-mails: kept in any order, given to its e-mail, and weighed.

Owns how reports find their e-mails and what they prove together; ``outbox.note`` is the one for a single
report. The number of statements does not grow with a list: a provider that sends 500 reports in one call
waits for its answer, and comes again without one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connections, router, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from postroom import signals
from postroom.ledger import weigh
from postroom.models import EVIDENCE, DeliveryEvent, EventType, OutboundEmail, State
from postroom.statements import Given, insert, lock_before_events, locked

AT_ONCE = 500
"""Reports in one transaction."""

TRIES = 3
"""Two calls that bring the same reports at once: whoever is second looks again."""

LOOKED_OVER = 5000
"""So many of the newest events are looked over for reports that were left behind."""

_COLUMNS = [field.attname for field in DeliveryEvent._meta.concrete_fields if not field.primary_key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a provider says about one e-mail."""

    type: EventType
    dedupe_key: str
    """The same for two copies of a report."""

    uuid: UUID | None = None
    """Our name of the e-mail, where the provider gives it back."""

    message_id: str = ""
    occurred_at: datetime | None = None
    recipient: str = ""
    detail: str = ""


def note(
    email: OutboundEmail | None,
    type: EventType | str,  # noqa: A002 - the word of the event
    *,
    occurred_at: datetime | None = None,
    recipient: str = "",
    message_id: str = "",
    detail: str = "",
    dedupe_key: str | None = None,
    mailer: str = "",
    using: str | None = None,
) -> bool:
    """
    Write down what a provider, or a used link, says about an e-mail. Safe in any order, and twice.

    Without *email* the row is looked up by *message_id*; a report nobody can place is kept and
    adopted when the acceptance brings that id. Returns False for a report known already.
    Proof that the provider had it settles any row, but one that a worker has in hand, as ACCEPTED.
    """
    using = using or (email and email._state.db) or router.db_for_write(OutboundEmail)
    if email is None and message_id:
        email = _by_message_id([message_id], using).get(message_id)
    event = DeliveryEvent(
        email=email,
        type=EventType(type),
        occurred_at=occurred_at or timezone.now(),
        recipient=recipient[:254],
        message_id=message_id[:255],
        detail=detail[:2000],
        dedupe_key=dedupe_key,
        mailer=mailer,
        attempt=email.attempt if email else 0,
    )
    try:
        _store([event], using, wait=True)
    except IntegrityError:
        if dedupe_key and DeliveryEvent.objects.using(using).filter(dedupe_key=dedupe_key).exists():
            return False
        raise
    return True


def note_all(reports: Sequence[Report], *, using: str | None = None) -> int:
    """
    Write down what a provider says; safe in any order, and twice. Return how many were not known yet.

    Each report finds its e-mail by *uuid*, else by *message_id*; one that nobody can place is kept
    until an acceptance brings that id. What together they prove is written once an e-mail.
    """
    using = using or router.db_for_write(OutboundEmail)
    first: dict[str, Report] = {}
    for report in reports:
        first.setdefault(report.dedupe_key, report)
    # Those that prove something first: all events of one call say the state that they lead to together.
    each = sorted(first.values(), key=lambda report: report.type not in EVIDENCE)
    return sum(_note(each[n : n + AT_ONCE], using) for n in range(0, len(each), AT_ONCE))


def _note(reports: Sequence[Report], using: str) -> int:
    for tries_left in reversed(range(TRIES)):
        known = DeliveryEvent.objects.using(using).filter(dedupe_key__in=[r.dedupe_key for r in reports])
        keys = set(known.values_list("dedupe_key", flat=True))
        new = [report for report in reports if report.dedupe_key not in keys]
        try:
            _write(new, using)
        except IntegrityError:
            # Somebody else was faster with one of them, or an e-mail was pruned just now.
            if not tries_left:
                raise
        else:
            break
    return len(new)


def _write(reports: Sequence[Report], using: str) -> None:
    events = [_event(report, email) for report, email in _placed(reports, using)]
    left: dict[int, list[DeliveryEvent]] = defaultdict(list)
    for event in _store(events, using, wait=False):
        left[event.email_id or 0].append(event)
    for some in left.values():
        _store(some, using, wait=True)


def _store(events: Sequence[DeliveryEvent], using: str, *, wait: bool) -> list[DeliveryEvent]:
    """
    Write *events* and what they prove, in one transaction; return those left out.

    A worker may be writing the ends of a hundred attempts at this moment, in an order of its own.
    Whoever waits for one e-mail while he holds another could wait for ever: so without *wait*
    e-mails that somebody else has locked are left out, and with it all *events* are about one.
    """
    if not events:
        return []
    pks = {event.email_id for event in events if event.email_id is not None}
    with transaction.atomic(using=using):
        left = _left_out(events, pks, using, wait=wait)
        absent = {id(event) for event in left}
        mine = [event for event in events if id(event) not in absent]
        if not mine:
            return left
        # The INSERT first: on SQLite it takes the write lock before anything is read.
        rows = [{name: getattr(event, name) for name in _COLUMNS} for event in mine]
        for event, pk in zip(mine, insert(DeliveryEvent, rows, using), strict=True):
            event.pk, event._state.db, event._state.adding = pk, using, False
        emails = weigh_all({event.email_id for event in mine if event.email_id is not None}, using)
        placed = [event for event in mine if event.email_id in emails]
        _stamp(placed, emails, using)
        signals.announce([(emails[event.email_id], event) for event in placed if event.email_id], using)
        if late := {event.message_id for event in mine if event.email_id is None and event.message_id}:
            # No partial: Django 5.2 wants the name of what failed, and raises where there is none.
            transaction.on_commit(lambda: _adopt_late(late, using), using=using, robust=True)
    return left


def _left_out(
    events: Sequence[DeliveryEvent], pks: set[int], using: str, *, wait: bool
) -> list[DeliveryEvent]:
    """Lock the e-mails, where rows can be locked, and return the events about those that were not to be had."""
    features = connections[using].features
    if wait or not features.has_select_for_update_skip_locked:
        lock_before_events(pks, using)
        return []
    rows = OutboundEmail.objects.using(using).filter(pk__in=pks).order_by("pk")
    rows = rows.select_for_update(skip_locked=True, no_key=features.has_select_for_no_key_update)
    held = set(rows.values_list("pk", flat=True))
    return [event for event in events if event.email_id is not None and event.email_id not in held]


def _placed(reports: Sequence[Report], using: str) -> list[tuple[Report, OutboundEmail | None]]:
    """Find the e-mails: by our name, else by the id in the row, else by that of an earlier acceptance."""
    rows = OutboundEmail.objects.using(using).only("uuid", "attempt", "mailer", "message_id")
    named = {email.uuid: email for email in rows.filter(uuid__in={r.uuid for r in reports if r.uuid})}
    ids = {r.message_id for r in reports if r.message_id and r.uuid not in named}
    by_id = _by_message_id(ids, using)
    return [(report, named.get(report.uuid) or by_id.get(report.message_id)) for report in reports]  # type: ignore[arg-type]


def _by_message_id(ids: Iterable[str], using: str) -> dict[str, OutboundEmail]:
    wanted = set(ids)
    if not wanted:
        return {}
    rows = OutboundEmail.objects.using(using)
    found = {email.message_id: email for email in rows.filter(message_id__in=wanted).order_by("-pk")}
    if missing := wanted - set(found):
        accepted = DeliveryEvent.objects.using(using).filter(type=EventType.ACCEPTED, message_id__in=missing)
        for event in accepted.filter(email__isnull=False).select_related("email").order_by("-pk"):
            if event.email:
                found[event.message_id] = event.email
    return found


def _event(report: Report, email: OutboundEmail | None) -> DeliveryEvent:
    return DeliveryEvent(
        email_id=email.pk if email else None,
        type=report.type,
        occurred_at=report.occurred_at or timezone.now(),
        recipient=report.recipient[:254],
        message_id=report.message_id[:255],
        detail=report.detail[:2000],
        dedupe_key=report.dedupe_key,
        mailer=email.mailer if email and report.uuid else "",
        attempt=email.attempt if email else 0,
    )


def weigh_all(pks: Iterable[int], using: str) -> dict[int, OutboundEmail]:
    """Lock these e-mails, read all reports about them, and write what they prove together."""
    rows = OutboundEmail.objects.using(using)
    emails = {email.pk: email for email in locked(rows.filter(pk__in=set(pks)).order_by("pk"))}
    said: dict[int, list[DeliveryEvent]] = defaultdict(list)
    # What was said before the first attempt was about another e-mail. Adopted reports have no state.
    counts = Q(attempt__gt=0) | Q(state="")
    begun = [email.pk for email in emails.values() if email.attempt]
    for event in DeliveryEvent.objects.using(using).filter(counts, email__in=begun, type__in=list(EVIDENCE)):
        said[event.email_id or 0].append(event)
    reported: dict[int, dict[str, Any]] = {}
    for pk, events in said.items():
        if strongest := weigh(events, emails[pk].recipient_count):
            reported[pk] = {
                "report": strongest.type,
                "report_rank": EVIDENCE[strongest.type],
                "reported_at": strongest.occurred_at,
            }
    proved = {pk for pk in reported if emails[pk].state not in (State.ACCEPTED, State.SENDING)}
    now = timezone.now()
    accepted = {
        "state": State.ACCEPTED,
        "accepted_at": now,
        "settled_at": now,
        "uncertain_since": None,
        "reason": "",
    }
    for chosen, values in ((set(reported) - proved, {}), (proved, accepted)):
        given = Given({pk: reported[pk] for pk in chosen}, using)
        given.update(rows, values | given.columns())
        for pk in chosen:
            for name, value in (values | reported[pk]).items():
                setattr(emails[pk], name, value)
    return emails


def _stamp(events: Sequence[DeliveryEvent], emails: Mapping[int, OutboundEmail], using: str) -> None:
    """Write into the events the state that their e-mails have now, one statement for each that occurs."""
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for event in events:
        email = emails[event.email_id or 0]
        event.state, event.attempt = email.state, email.attempt
        groups[email.state, email.attempt].append(event.pk)
    for (state, attempt), pks in groups.items():
        DeliveryEvent.objects.using(using).filter(pk__in=pks).update(state=state, attempt=attempt)


def adopt(by_id: Mapping[str, int], using: str) -> None:
    """
    Give reports that nobody could place to the e-mails (by primary key) whose message ids they name.

    Both sides look after they have committed, the acceptance here and a report in ``_store``: so when
    the two happen at once, at least one of them sees the other. Inside a transaction it looks at once,
    too: what is there already must not wait for a look that a killed worker never takes.
    """
    if by_id:
        _adopt(by_id, using)
        if transaction.get_connection(using).in_atomic_block:
            transaction.on_commit(lambda: _adopt(by_id, using), using=using, robust=True)


def _adopt_late(message_ids: Iterable[str], using: str) -> None:
    _adopt({name: email.pk for name, email in _by_message_id(message_ids, using).items()}, using)


def adopt_left_behind(using: str) -> None:
    """
    Do what a process that was killed between its commit and its second look would have done.

    Of the newest events only, by their keys: that takes milliseconds, however many reports are about
    e-mails that others send through the same account. A delivery process comes by twice a minute.
    """
    events = DeliveryEvent.objects.using(using)
    newest = events.order_by("-pk").values_list("pk", flat=True).first() or 0
    left = events.filter(pk__gt=newest - LOOKED_OVER, email__isnull=True, message_id__gt="")
    _adopt_late(set(left.values_list("message_id", flat=True)), using)


def _adopt(by_id: Mapping[str, int], using: str) -> None:
    waiting = DeliveryEvent.objects.using(using).filter(email__isnull=True, message_id__in=list(by_id))
    # MariaDB finds what differs in capitals, too.
    for message_id in set(waiting.values_list("message_id", flat=True)) & by_id.keys():
        with transaction.atomic(using=using):
            _adopt_one(message_id, by_id[message_id], waiting, using)


def _adopt_one(message_id: str, pk: int, waiting: QuerySet[DeliveryEvent], using: str) -> None:
    """Give an e-mail the reports that wait for it; of two who do so at once only one finds them."""
    list(locked(OutboundEmail.objects.using(using).filter(pk=pk)))
    events = [event for event in waiting.order_by("pk") if event.message_id == message_id]
    waiting.filter(pk__in=[event.pk for event in events]).update(email_id=pk)
    for email in weigh_all([pk], using).values():
        for event in events:
            event.email = email
        signals.announce([(email, event) for event in events], using)
