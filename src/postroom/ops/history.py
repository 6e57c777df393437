"""
Workers, mailers and e-mails as lines of the operator's pages. Addresses are masked, contents never shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from postroom.failures import redact
from postroom.models import DeliveryEvent, EventType, OutboundEmail, State
from postroom.ops.facts import Facts, MailerSeen, Worker
from postroom.ops.words import ago, clock, duration, masked, number, shown_args

_TONES: Final = {
    EventType.ACCEPTED: "ok",
    EventType.DELIVERED: "ok",
    EventType.OPENED: "ok",
    EventType.VERIFIED: "ok",
    EventType.RESCHEDULED: "late",
    EventType.DOUBTED: "late",
    EventType.RESCUED: "late",
    EventType.DEFERRED: "late",
    EventType.SOFT_BOUNCED: "late",
    EventType.FAILED: "stopped",
    EventType.BOUNCED: "stopped",
    EventType.REFUSED: "stopped",
    EventType.BROKEN: "stopped",
    EventType.COMPLAINED: "stopped",
}
"""Good, to be watched, bad: by event; everything else is neutral."""

_STATE_TONES: Final = {State.ACCEPTED: "ok", State.UNCERTAIN: "late", State.FAILED: "stopped"}

_REPORTS: Final = {
    EventType.REQUESTED: gettext_lazy("accepted"),
    EventType.DEFERRED: gettext_lazy("deferred"),
    EventType.SOFT_BOUNCED: gettext_lazy("refused for now"),
    EventType.DELIVERED: gettext_lazy("delivered"),
    EventType.OPENED: gettext_lazy("opened"),
    EventType.BOUNCED: gettext_lazy("bounced"),
    EventType.REFUSED: gettext_lazy("refused"),
    EventType.BROKEN: gettext_lazy("provider failed"),
    EventType.COMPLAINED: gettext_lazy("marked as spam"),
    EventType.VERIFIED: gettext_lazy("link used"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailLine:
    """One e-mail in the list."""

    email: OutboundEmail
    to: str
    word: str
    tone: str
    saved: str
    took: str
    """From commit to acceptance, or how long it has been waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """One event of the timeline; *details* are folded away."""

    at: str
    since_start: str
    what: str
    tone: str
    details: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One e-mail with its history."""

    line: EmailLine
    sentence: str
    facts: tuple[tuple[str, str], ...]
    args: tuple[tuple[str, str], ...]
    """What may be shown of the composer's arguments."""

    events: tuple[Happened, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A name, whether it is well, and what is known."""

    name: str
    tone: str
    texts: tuple[str, ...]


def worker_lines(facts: Facts) -> tuple[Row, ...]:
    """Return the living workers, and of the others the newest few."""
    others = [worker for worker in facts.workers if not worker.is_alive]
    return tuple(_worker(worker, facts.now) for worker in [*facts.alive, *others[:3]])


def _worker(worker: Worker, now: datetime) -> Row:
    beat = worker.beat
    if worker.state == "stopped":
        stopped = beat.stopped_at or beat.seen_at
        text = _("said goodbye at {at}").format(at=clock(stopped, now))
        return Row(name=beat.name, tone="", texts=tuple(filter(None, (text, beat.stop_reason))))
    if worker.state == "silent":
        text = _("lost: last heard at {at}, said no goodbye").format(at=clock(beat.seen_at, now))
        held = ngettext("{n} e-mail still in its hands", "{n} e-mails still in its hands", worker.held)
        return Row(name=beat.name, tone="stopped", texts=(text, held.format(n=number(worker.held))))
    turn = beat.last_turn_at or beat.started_at
    return Row(
        name=beat.name,
        tone="ok" if worker.state == "turning" else "stopped",
        texts=(
            _("up {time}").format(time=duration((now - beat.started_at).total_seconds())),
            _("last turn {ago}").format(ago=ago(turn, now)),
            _("{n} of {slots} in hand").format(n=number(beat.in_hand), slots=number(beat.concurrency)),
            *((_("version {version}").format(version=beat.version),) if beat.version else ()),
        ),
    )


def mailer_lines(facts: Facts) -> tuple[Row, ...]:
    """Return each mailer with its last acceptance and its last refusal of the day."""
    return tuple(_mailer(mailer, facts) for mailer in facts.mailers)


def _mailer(mailer: MailerSeen, facts: Facts) -> Row:
    refusal = mailer.last_refusal
    accepted = mailer.last_accepted_at
    if mailer.reports is None:
        reports = _("not configured here")
    elif mailer.reports and facts.last_report_at:
        reports = _("reports: yes, {at}").format(at=clock(facts.last_report_at, facts.now))
    else:
        reports = _("reports: none yet") if mailer.reports else _("tells nothing after acceptance")
    return Row(
        name=mailer.alias,
        tone="late" if mailer.streak else ("ok" if accepted else ""),
        texts=(
            _("last accepted {at}").format(at=clock(accepted, facts.now) if accepted else _("none in 24 h")),
            _("last refusal {at} ({why})").format(at=clock(refusal.at, facts.now), why=refusal.error_class)
            if refusal
            else _("last refusal none"),
            reports,
        ),
    )


def doorbell_line(facts: Facts) -> str:
    """Return what wakes the workers, and how soon."""
    if facts.doorbell == "notify":
        return _("NOTIFY: PostgreSQL wakes the workers at each commit")
    if facts.doorbell != "none":
        return facts.doorbell
    return (
        _("none needed: workers see SQLite change")
        if facts.vendor == "sqlite"
        else _("none: workers look every second")
    )


def line(email: OutboundEmail) -> EmailLine:
    """Return one e-mail for the list."""
    now = timezone.now()
    until = email.accepted_at or email.settled_at or now
    return EmailLine(
        email=email,
        to=masked(email.recipient),
        word=_word(email),
        tone=_tone(email),
        saved=clock(email.created_at, now),
        took=duration((until - email.created_at).total_seconds()),
    )


def _word(email: OutboundEmail) -> str:
    """What became of it, in one or two words: a report says more than the state."""
    if email.report in _REPORTS and email.state == State.ACCEPTED:
        return str(_REPORTS[EventType(email.report)])
    if email.state == State.PENDING and email.uncertain_since:
        return _("in doubt, repeated")
    if email.state == State.PENDING and email.attempt:
        return _("tried again later")
    if email.state == State.CANCELLED and email.reason:
        return _("not sent: {reason}").format(reason=email.reason)
    return email.get_state_display().lower()


def _tone(email: OutboundEmail) -> str:
    if email.state == State.ACCEPTED and email.report:
        return _TONES.get(EventType(email.report), "ok")
    if email.state == State.PENDING and email.attempt:
        return "late"
    return _STATE_TONES.get(State(email.state), "")


def tell(email: OutboundEmail) -> Told:
    """Return everything that may be shown of one e-mail."""
    events = list(email.events.order_by("pk"))
    return Told(
        line=line(email),
        sentence=_sentence(email),
        facts=tuple(_facts(email)),
        args=tuple(shown_args(email)),
        events=(_saved(email), *(_happened(event, email) for event in events)),
    )


def _sentence(email: OutboundEmail) -> str:
    """The state in words, no more than is known."""
    now = timezone.now()
    match State(email.state):
        case State.PENDING if email.uncertain_since:
            text = _(
                "An attempt got no answer. It is repeated at {at} in a way that the provider recognises."
            )
            return (
                text if email.key_used_at else _("An attempt got no answer. It is repeated once, at {at}.")
            ).format(at=clock(email.due_at, now))
        case State.PENDING if email.is_expired(now):
            return _("It expired while it waited. The next worker closes it without sending it.")
        case State.PENDING if email.attempt:
            return _("It has not been accepted yet ({reason}). The next attempt is due at {at}.").format(
                reason=email.reason or "-", at=clock(email.due_at, now)
            )
        case State.PENDING:
            return _("It waits in the outbox; due at {at}.").format(at=clock(email.due_at, now))
        case State.SENDING:
            return _("It is being handed over by {worker}.").format(worker=email.worker)
        case State.ACCEPTED:
            return _accepted(email, now)
        case State.FAILED:
            return _("It was certainly not sent and is given up ({reason}).").format(
                reason=email.reason or "-"
            )
        case State.CANCELLED:
            return _("It was not sent, on purpose: {reason}.").format(reason=email.reason or "-")
    return _(
        "It may have gone out: an attempt got no answer, and no safe repeat is left. A report settles it, or a person."
    )


def _accepted(email: OutboundEmail, now: datetime) -> str:
    told = _("The provider took it at {at}.").format(at=clock(email.accepted_at or now, now))
    if not email.report:
        return told + " " + _("What became of it has not been reported.")
    return (
        told
        + " "
        + _("Strongest report: {report}.").format(report=_REPORTS.get(EventType(email.report), email.report))
    )


def _facts(email: OutboundEmail) -> Iterable[tuple[str, str]]:
    now = timezone.now()
    yield _("Kind"), email.kind
    yield _("To"), masked(email.recipient) or _("not known before it is written")
    if email.recipient_count > 1:
        yield _("Recipients"), number(email.recipient_count)
    yield _("Lane"), email.get_lane_display()
    yield _("Saved"), clock(email.created_at, now)
    yield _("Expires"), clock(email.expires_at, now)
    yield _("Attempts"), number(email.attempt)
    if email.mailer:
        yield _("Mailer"), email.mailer
    if email.message_id:
        yield _("Provider's id"), email.message_id
    if email.losses:
        yield _("Lost workers"), number(email.losses)


def _saved(email: OutboundEmail) -> Happened:
    what = _("Saved in the outbox")
    return Happened(at=clock(email.created_at), since_start="0 s", what=what, tone="", details=())


def _happened(event: DeliveryEvent, email: OutboundEmail) -> Happened:
    label = str(EventType(event.type).label)
    if event.type == EventType.CLAIMED:
        label = _("Attempt {n} by {worker}").format(n=event.attempt, worker=event.worker)
    return Happened(
        at=clock(event.at),
        since_start=duration((event.at - email.created_at).total_seconds()),
        what=label,
        tone=_TONES.get(EventType(event.type), ""),
        details=tuple(_details(event)),
    )


def _details(event: DeliveryEvent) -> Sequence[tuple[str, str]]:
    """The technical side of an event: what is empty is left out."""
    details = [
        (_("Answer"), redact(event.detail)),
        (_("Class"), event.error_class),
        (_("Took"), duration(event.duration_ms / 1000) if event.duration_ms is not None else ""),
        (_("Attempt"), str(event.attempt or "")),
        (_("Worker"), event.worker),
        (_("Mailer"), event.mailer),
        (_("Recipient"), masked(event.recipient)),
        (_("Provider's id"), event.message_id),
        (_("Reported for"), clock(event.occurred_at) if event.occurred_at else ""),
        (_("By"), event.actor),
        (_("Fingerprint"), event.fingerprint),
        (_("State after it"), event.state),
    ]
    return [(name, value) for name, value in details if value]
