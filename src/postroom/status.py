"""
What a visitor may be told about an e-mail, and which visitor.

Owns the situations: ``describe(email)`` turns any row into a true sentence (the sentences are
``wording.py``). A word never claims more than is known: *accepted* is not *delivered*, and no
answer is *uncertain*, never *failed*.

Owns the receipts as well: a session holds the ids of the e-mails it asked for, and nobody else
learns anything about them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final
from uuid import UUID

from django.db import router
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from postroom import mailers
from postroom.brakes import STALE
from postroom.conf import config
from postroom.models import EventType, OutboundEmail, State
from postroom.wording import ERRORS, SAYS, STEP_STATES, STEPS, Says, clock, fill, wait

LATE_AFTER: Final = timedelta(seconds=15)
"""Overdue by this much, the page no longer says "in a moment"."""

DELAYED_AFTER: Final = timedelta(seconds=60)
"""Overdue by this much, the page says that nobody need wait beside it."""

SLOW_AFTER: Final = timedelta(seconds=30)
"""A send in flight for this long is called slow."""

QUIET_AFTER: Final = timedelta(seconds=30)
"""No report this long after acceptance is normal, and the page says so."""

SOFT_BOUNCE_LASTS: Final = timedelta(hours=72)
"""A refusal for now is shown as a delay for this long; then nobody tries any more."""

KEPT_RECEIPTS: Final = 20
"""So many receipts a session keeps; the oldest give way."""

SESSION_KEY: Final = "postroom"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One station of the way, in the order of the page."""

    name: str
    """``saved``, ``sent``, ``arrived``, ``confirmed``."""

    label: str
    state: str
    """``done``, ``now``, ``todo`` or ``failed``."""

    state_text: str
    """The same in words, so that the state does not hang on a colour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What may be shown to the one who asked for the e-mail. All texts are translated, and true now."""

    word: str
    """``pending``, ``sent``, ``failed`` or ``completed``: the four that callers may rely on."""

    detail: str
    """The situation in one finer word; new ones may come."""

    type: str
    """What the caller calls this e-mail, never its kind: that would tell who has an account."""

    headline: str
    body: str
    created_at: datetime
    sent_at: datetime | None
    """When the provider took responsibility; None before."""

    retry_count: int
    error_code: str | None
    """``not_sent``, ``address_rejected``, ``blocked``, or None."""

    error_message: str | None
    """A sentence of ours, never the provider's text."""

    poll_after: int
    """Seconds after which it is worth asking again."""

    terminal: bool
    """Nothing more will happen by itself: asking again is of no use."""

    steps: tuple[Step, ...]
    verified_at: datetime | None = None
    can_resend_at: datetime | None = None
    next: str | None = None
    """Where to go from here: a path of this site."""

    def as_json(self) -> dict[str, Any]:
        """Return the answer of the status API; instants in UTC."""
        return {
            "status": self.word,
            "detail": self.detail,
            "type": self.type,
            "created_at": _iso(self.created_at),
            "sent_at": _iso(self.sent_at),
            "retry_count": self.retry_count,
            "error_message": self.error_message,
            "error_code": self.error_code,
            "headline": self.headline,
            "body": self.body,
            "can_resend_at": _iso(self.can_resend_at),
            "poll_after": self.poll_after,
            "terminal": self.terminal,
            "next": self.next,
            "steps": [asdict(step) for step in self.steps],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The right of one session to see one e-mail; as a string the id of the e-mail."""

    uuid: UUID
    address: str = ""
    """The address as the visitor typed it, or nothing: the stored one may not be theirs to see."""

    type: str = "email"

    def __str__(self) -> str:
        return str(self.uuid)


_REPORTED: Final[Mapping[str, str]] = {
    EventType.DEFERRED: "deferred",
    EventType.SOFT_BOUNCED: "soft_bounced",
    EventType.DELIVERED: "delivered",
    EventType.OPENED: "delivered",
    EventType.VERIFIED: "delivered",
    EventType.BOUNCED: "bounced",
    EventType.REFUSED: "refused",
    EventType.BROKEN: "broken",
    EventType.COMPLAINED: "complained",
}
"""Which situation the strongest report makes; the use of a link proves that its e-mail arrived."""

_UNAVAILABLE: Final = frozenset({"config", "quota", STALE})
"""Reasons with which no message goes out before a person has done something: "in 20 seconds" would be a lie."""

_NOT_SENT: Final = frozenset({EventType.FAILED, EventType.CANCELLED, EventType.WITHDRAWN})
"""Ends after which it is certain that nothing had gone out."""

_PATIENCE: Final = ((10, 1), (20, 2), (40, 3), (90, 5), (180, 8), (600, 13))
"""While the last change is younger than the first number, ask again after the second (seconds); then 30."""


def describe(
    email: OutboundEmail,
    *,
    address: str = "",
    time_zone: tzinfo | str | None = None,
    verified_at: datetime | None = None,
    type: str | None = None,  # noqa: A002 - the word of the API
    confirm: bool = False,
) -> Status:
    """
    Say what is known about *email* now; total: every row has a description.

    *address* is the one that the visitor typed: only that is shown, and without it no address at
    all, because the stored one may tell that an account exists. *time_zone* is the visitor's (a name
    that is none counts as none); without it times carry the name of their zone.
    *verified_at* says that the address is confirmed, which wins over everything; with *confirm* the
    page waits for that. Reads events from the writing database where the row alone cannot tell.
    """
    now = timezone.now()
    reports = _reports(email)
    situation = "verified" if verified_at else _situation(email, now, reports=reports)
    if situation == "expired" and confirm:
        situation = "expired_link"
    says = SAYS[situation]
    values = _values(email, now, address, time_zone)
    return Status(
        word=says.word,
        detail=says.detail,
        type=type or "email",
        headline=fill(says.headline, says.bare_headline, values),
        body=fill(says.body, says.bare_body, values),
        created_at=email.created_at,
        sent_at=_sent_at(email),
        retry_count=max(email.attempt - 1, 0),
        error_code=says.error_code,
        error_message=str(ERRORS[says.error_code]) if says.error_code else None,
        poll_after=_poll_after(email, situation, now),
        terminal=_is_terminal(email, situation, confirm=confirm),
        steps=_steps(email, says, reports=reports, confirm=confirm or bool(verified_at)),
        verified_at=verified_at,
    )


def receipt(
    request: HttpRequest,
    email: OutboundEmail,
    *,
    address: str = "",
    type: str = "email",  # noqa: A002 - the word of the API
) -> Receipt:
    """
    Let this session see *email* from now on, and return the receipt for the template.

    The session keeps the newest 20; the same e-mail twice counts once. *address* is what the visitor
    typed, *type* what the page calls the e-mail.
    """
    new = Receipt(uuid=email.uuid, address=address, type=type)
    kept = [old for old in _receipts(request) if old.uuid != new.uuid]
    entries = [{"id": str(one.uuid), "address": one.address, "type": one.type} for one in [*kept, new]]
    entries = entries[-KEPT_RECEIPTS:]
    if request.session.get(SESSION_KEY) != entries:  # a page that is looked at again writes nothing
        request.session[SESSION_KEY] = entries
    return new


def held(request: HttpRequest) -> list[UUID]:
    """Return the ids of the e-mails that this session may see, oldest first. Never writes the session."""
    return [one.uuid for one in _receipts(request)]


def receipt_for(request: HttpRequest, uuid: UUID) -> Receipt | None:
    """Return this session's receipt for the e-mail, or None."""
    return next((one for one in _receipts(request) if one.uuid == uuid), None)


def email_for(request: HttpRequest, uuid: UUID) -> OutboundEmail | None:
    """Return the e-mail if this session holds its receipt; otherwise None, whether or not there is one."""
    return email_of(uuid) if uuid in held(request) else None


def email_of(uuid: UUID) -> OutboundEmail | None:
    """Return the e-mail from the database that is written, whoever asks: for code, not for visitors."""
    rows = OutboundEmail.objects.using(router.db_for_write(OutboundEmail))
    return rows.filter(uuid=uuid).first()


def status_url(email: OutboundEmail | Receipt) -> str:
    """Return the path at which the holder of the receipt can ask for the status."""
    return reverse("postroom_status:status", kwargs={"uuid": email.uuid})


def _situation(email: OutboundEmail, now: datetime, *, reports: bool) -> str:
    """Return the key of SAYS. A report wins over the state: it proves that the provider had the e-mail."""
    if email.report in _REPORTED:
        return _after_report(email, now)
    if email.state == State.ACCEPTED or email.report == EventType.REQUESTED:
        return _accepted(email, now, reports=reports)
    match email.state:
        case State.PENDING:
            return _waiting(email, now)
        case State.SENDING:
            return _in_hand(email, now)
        case State.CANCELLED:
            return "expired" if email.reason == "expired" else "withdrawn"
        case State.FAILED:
            return {"expired": "expired", "permanent_recipient": "rejected"}.get(email.reason, "failed")
    return "uncertain"


def _after_report(email: OutboundEmail, now: datetime) -> str:
    since = email.reported_at or _sent_at(email)
    if email.report == EventType.SOFT_BOUNCED and since and now - since >= SOFT_BOUNCE_LASTS:
        return "soft_bounced_for_good"
    return _REPORTED[email.report]


def _accepted(email: OutboundEmail, now: datetime, *, reports: bool) -> str:
    if not reports:
        return "accepted_unreported"
    since = _sent_at(email)
    return "accepted" if since is None or now - since < QUIET_AFTER else "accepted_quiet"


def _waiting(email: OutboundEmail, now: datetime) -> str:
    """Tell apart why a PENDING row waits; what it says about the future must be what will happen."""
    overdue = now - max(email.due_at, email.created_at)
    if email.uncertain_since:
        return "repeating"
    if email.is_expired(now):
        return "expired"
    if overdue >= DELAYED_AFTER or email.reason in _UNAVAILABLE:
        return "delayed"
    if overdue >= LATE_AFTER:
        return "late"
    if email.strikes or email.reason not in ("", "retried"):
        return "composing" if email.reason == "compose" else "retrying"
    if email.attempt and (again := _retried_by_hand(email)):
        return again
    return "scheduled" if -overdue >= LATE_AFTER else "queued"


def _retried_by_hand(email: OutboundEmail) -> str:
    """Return what to say when the last thing that happened was an operator's retry, else nothing."""
    latest = [event_type for event_type, _at in _latest_events(email)]
    if not latest or latest[0] != EventType.RETRIED:
        return ""
    return "again" if _NOT_SENT.issuperset(latest[1:]) else "again_in_doubt"


def _in_hand(email: OutboundEmail, now: datetime) -> str:
    if email.uncertain_since:
        return "repeating"
    claims = [at for event_type, at in _latest_events(email) if event_type == EventType.CLAIMED]
    since = claims[0] if claims else email.due_at
    return "slow" if now - since >= SLOW_AFTER else "sending"


def _latest_events(email: OutboundEmail) -> list[tuple[str, datetime]]:
    """Return type and time of the latest two events of the e-mail itself, newest first."""
    if email._state.adding:
        return []
    events = email.events.using(router.db_for_write(OutboundEmail, instance=email))
    events = events.exclude(type=EventType.RESENT)  # what happened then happened to another e-mail
    return list(events.order_by("-pk").values_list("type", "at")[:2])


def _reports(email: OutboundEmail) -> bool:
    """Whether we are told what became of this e-mail; a mailer that cannot be made tells nothing."""
    if email.report_rank:
        return True
    alias = email.mailer or config().SEND_WITH[0]
    return not mailers.trouble(alias) and bool(mailers.get(alias).reports)


def _sent_at(email: OutboundEmail) -> datetime | None:
    """When the provider took the e-mail: acceptance as we saw it, else the first proof of it."""
    return email.accepted_at or (email.reported_at if email.report else None)


def _poll_after(email: OutboundEmail, situation: str, now: datetime) -> int:
    """Ask often while things move, soon after a retry is due, and in the end twice a minute."""
    ahead = (email.due_at - now).total_seconds()
    if email.state == State.PENDING and ahead > 0:
        return min(math.ceil(ahead) + 1, 5 if ahead < 60 else 30)
    moments = (email.created_at, email.due_at, email.accepted_at, email.reported_at)
    latest = max((moment for moment in moments if moment and moment <= now), default=now)
    age = (now - latest).total_seconds()
    seconds = next((pause for limit, pause in _PATIENCE if age < limit), 30)
    return max(seconds, 5) if situation in ("delivered", "accepted_unreported", "uncertain") else seconds


def _is_terminal(email: OutboundEmail, situation: str, *, confirm: bool) -> bool:
    """Whether no news can come but by a person's act; with *confirm* a used link is news."""
    if situation in ("verified", "bounced", "refused", "broken", "complained", "soft_bounced_for_good"):
        return True
    if situation in ("delivered", "accepted_unreported"):
        return not confirm
    return email.state in (State.FAILED, State.CANCELLED)


def _steps(email: OutboundEmail, says: Says, *, reports: bool, confirm: bool) -> tuple[Step, ...]:
    """Return the stations, of which at most one is *now*; Arrived only where somebody would tell us."""
    names = ["saved", "sent", *(["arrived"] if reports else []), *(["confirmed"] if confirm else [])]
    reached = _reached(email, says)
    stopped = says.word == "failed" or says.detail == "withdrawn"
    steps = []
    for place, name in enumerate(names):
        if name in reached:
            state = "done"
        elif place and names[place - 1] in reached:
            state = "now" if not stopped else ("failed" if says.word == "failed" else "todo")
        else:
            state = "todo"
        steps.append(Step(name=name, label=str(STEPS[name]), state=state, state_text=str(STEP_STATES[state])))
    return tuple(steps)


def _reached(email: OutboundEmail, says: Says) -> set[str]:
    """Return the stations that are behind this e-mail."""
    if says.word == "completed":
        return set(STEPS)
    if says.detail in ("delivered", "complained"):
        return {"saved", "sent", "arrived"}
    return {"saved", "sent"} if says.word == "sent" or _sent_at(email) else {"saved"}


def _values(
    email: OutboundEmail, now: datetime, address: str, time_zone: tzinfo | str | None
) -> dict[str, str]:
    """Return what the sentences may name; empty where it is not known."""
    sent_at = _sent_at(email)
    return {
        "address": address,
        "domain": (address or email.recipient).rpartition("@")[2].lower(),
        "at": clock(sent_at, now, time_zone) if sent_at else "",
        "wait": wait((email.due_at - now).total_seconds()),
    }


def _receipts(request: HttpRequest) -> list[Receipt]:
    return [
        Receipt(uuid=UUID(entry["id"]), address=entry["address"], type=entry["type"])
        for entry in request.session.get(SESSION_KEY, [])
    ]


def _iso(instant: datetime | None) -> str | None:
    """Return the instant as the API writes it: UTC, whole seconds, ``Z``."""
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if instant else None
