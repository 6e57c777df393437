"""
What the events tell about the mailers: when each took something last, what it refused, and its reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from postroom import mailers
from postroom.conf import config
from postroom.models import DeliveryEvent, EventType
from postroom.ops.facts import CAP, RECENT, SAMPLE, MailerSeen, Outcome
from postroom.ops.words import median

REPORTED_WITHIN: Final = timedelta(minutes=10)
"""A provider that reports has reported by then; what was accepted in the hour before is what is judged by."""

NOT_QUICK_MS: Final = 2_000
"""From here on it is worth asking what was usual."""

_NOT_THE_MAILER: Final = ("compose", "permanent_message", "permanent_recipient", "expired", "worker_lost")
"""Classes that say nothing about whether the mailer works."""

_REPORTS: Final = (EventType.REQUESTED, EventType.DELIVERED, EventType.DEFERRED, EventType.BOUNCED)


def trouble() -> str:
    """Return why a delivery process with the settings of this one could not even begin; empty where it could."""
    return next(filter(None, map(mailers.trouble, config().SEND_WITH)), "")


def accepted_unreported(
    alias: str, now: datetime, known: Sequence[MailerSeen], last_report_at: datetime | None
) -> int:
    """Return how many were accepted between 10 and 70 minutes ago, if no report has come since; else 0."""
    until = now - REPORTED_WITHIN
    since = until - timedelta(hours=1)
    names = [mailer.alias for mailer in known if mailer.reports]
    if not names or last_report_at is None or last_report_at >= since:
        return 0
    accepted = DeliveryEvent.objects.using(alias).filter(type=EventType.ACCEPTED, email__isnull=False)
    return accepted.filter(at__range=(since, until), mailer__in=names)[:CAP].count()


def seen(
    using: str, now: datetime, accepted: Sequence[Outcome], setbacks: Sequence[Outcome]
) -> tuple[MailerSeen, ...]:
    """Return the configured mailers, and others that the newest events name."""
    aliases = dict.fromkeys([*config().SEND_WITH, *(o.mailer for o in (*accepted, *setbacks) if o.mailer)])
    return tuple(_mailer(using, now, alias, accepted, setbacks) for alias in aliases)


def _mailer(
    using: str, now: datetime, alias: str, accepted: Sequence[Outcome], setbacks: Sequence[Outcome]
) -> MailerSeen:
    mine = [o for o in accepted if o.mailer == alias]
    against = [o for o in setbacks if o.mailer == alias and o.error_class not in _NOT_THE_MAILER]
    last = mine[0].at if mine else None
    answers = [o.duration_ms for o in mine if o.at >= now - RECENT and o.duration_ms is not None]
    typical_ms = median(answers)
    return MailerSeen(
        alias=alias,
        reports=_reports(alias),
        last_accepted_at=last,
        last_refusal=against[0] if against else None,
        streak=tuple(o for o in against if last is None or o.at > last),
        typical_ms=typical_ms,
        usual_ms=_usual_ms(using, alias, now) if typical_ms >= NOT_QUICK_MS else 0.0,
    )


def _usual_ms(alias: str, mailer: str, now: datetime) -> float:
    """Return the median answer of *mailer* in the same hour yesterday; 0 where it is not known."""
    events = DeliveryEvent.objects.using(alias).filter(
        type=EventType.ACCEPTED,
        at__range=(now - timedelta(hours=24, minutes=30), now - timedelta(hours=23, minutes=30)),
        mailer=mailer,
        duration_ms__isnull=False,
    )
    return median(ms or 0 for ms in events.order_by("-at").values_list("duration_ms", flat=True)[:SAMPLE])


def _reports(alias: str) -> bool | None:
    return None if mailers.trouble(alias) else mailers.get(alias).reports


def last_report(alias: str) -> datetime | None:
    """Return when the newest report came in: one look at the end of the index for each kind of report."""
    events = DeliveryEvent.objects.using(alias)
    newest = [events.filter(type=t).order_by("-at").values_list("at", flat=True).first() for t in _REPORTS]
    return max((at for at in newest if at), default=None)
