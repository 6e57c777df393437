"""
Situations of lateness: the provider is slow (D40), or more comes in than goes out (D41).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from postroom.ops.diagnosis import Diagnosis, Level
from postroom.ops.facts import CAP, SAMPLE, Facts, MailerSeen
from postroom.ops.phrases import backlog, people, sections
from postroom.ops.words import duration, median, number

LATE_SECONDS: Final = 15
"""Overdue by this much, the visitor's page says "This takes longer than usual", and so do we."""

SLOW_MS: Final = 10_000
"""An answer that takes this long is slow whatever else is well."""

CROWDED_MS: Final = 2_000
"""An answer that takes this long is slow when it keeps all slots taken."""


def slow_provider(facts: Facts) -> Diagnosis | None:
    """D40: answers take long, and so do those that have not come yet."""
    mailer = max(facts.mailers, key=lambda m: m.typical_ms, default=None)
    if mailer is None:
        return None
    unanswered = [seconds for seconds in facts.in_flight_seconds if seconds * 1000 > SLOW_MS]
    typical = max(mailer.typical_ms / 1000, median(unanswered) if _mostly(unanswered, facts) else 0.0)
    crowded = facts.slots > 0 and facts.in_hand >= 0.9 * facts.slots
    if typical * 1000 < SLOW_MS and not (crowded and typical * 1000 >= CROWDED_MS):
        return None
    return Diagnosis(
        code="D40",
        level=Level.LATE,
        headline=_headline(mailer, typical),
        summary=(backlog(facts),),
        sections=sections(
            (_("Why"), [*_unanswered(unanswered), _capacity(facts, typical, crowded=crowded)]),
            (_("People"), [*people(facts), *_day_so_far(facts)]),
            (_("Do"), _more_slots(facts, typical) if crowded else [_("nothing: there are slots left.")]),
            (
                _("Look"),
                [
                    _("status page of {mailer}; if it tells of an incident, this heals by itself.").format(
                        mailer=mailer.alias
                    )
                ],
            ),
            (
                _("Not"),
                [
                    _(
                        "do not lower SEND_TIMEOUT_SECONDS: impatience makes uncertain e-mails, not faster ones."
                    )
                ],
            ),
        ),
    )


def _headline(mailer: MailerSeen, typical: float) -> str:
    values = {"mailer": mailer.alias, "time": duration(typical), "usual": duration(mailer.usual_ms / 1000)}
    if not mailer.usual_ms:
        return _("{mailer} is slow: typical {time} an answer.").format(**values)
    return _("{mailer} is slow: typical {time} an answer (yesterday at this hour {usual}).").format(**values)


def _mostly(unanswered: Sequence[float], facts: Facts) -> bool:
    """Whether the sends under way say more about now than the answers that came: most of them hang."""
    return bool(unanswered) and 2 * len(unanswered) >= len(facts.in_flight_seconds)


def _unanswered(seconds: Sequence[float]) -> list[str]:
    if not seconds:
        return []
    text = ngettext(
        "{n} send is without an answer, for {time} by now.",
        "{n} sends are without an answer, the oldest for {time}.",
        len(seconds),
    )
    return [text.format(n=number(len(seconds), cap=SAMPLE), time=duration(max(seconds)))]


def _capacity(facts: Facts, typical: float, *, crowded: bool) -> str:
    rates = {
        "slots": number(facts.slots),
        "in_hand": number(facts.in_hand),
        "typical": f"{typical:.1f}".removesuffix(".0"),
        "leave": f"{facts.slots / typical:.1f}",
        "come": f"{facts.created_10m / 600:.1f}",
    }
    if not crowded:
        return _("{in_hand} of {slots} sending slots are taken.").format(**rates)
    return _(
        "{in_hand} of {slots} sending slots are taken, so {slots} / {typical} s = {leave} e-mails a second leave"
        " and {come} come in."
    ).format(**rates)


def _more_slots(facts: Facts, typical: float) -> list[str]:
    """Name a number of slots that carries twice what comes in."""
    needed = max(2 * facts.created_10m / 600 * typical, 4 * facts.slots, 200)
    slots = int(-(-needed // 100) * 100)
    return [
        _(
            "python manage.py postroom_worker --concurrency {n}        (one more process, on {where}; safe)"
        ).format(n=slots, where=_where(facts)),
        _("{n} slots carry {rate} a second.").format(n=number(slots), rate=f"{slots / typical:.0f}"),
    ]


def _where(facts: Facts) -> str:
    """A file of SQLite's must not be opened from two hosts."""
    return _("this host") if facts.vendor == "sqlite" else _("any host")


def _day_so_far(facts: Facts) -> list[str]:
    counts = {"failed": number(facts.day["failed"], cap=CAP), "uncertain": number(facts.uncertain, cap=CAP)}
    return [_("{failed} failed in the last 24 hours, {uncertain} uncertain.").format(**counts)]


def falling_behind(facts: Facts) -> Diagnosis | None:
    """D41: due e-mails wait although workers turn and no mailer is in the way."""
    if facts.lag_seconds <= LATE_SECONDS or not facts.alive:
        return None
    why = _(
        "{in_hand} of {slots} sending slots are taken; {accepted} were accepted in the last minute."
    ).format(
        in_hand=number(facts.in_hand), slots=number(facts.slots), accepted=number(facts.accepted_1m, cap=CAP)
    )
    return Diagnosis(
        code="D41",
        level=Level.LATE,
        headline=_("E-mails wait longer than usual."),
        summary=(backlog(facts),),
        sections=sections(
            (_("Why"), [why]),
            (_("People"), people(facts)),
            (
                _("Do"),
                [
                    _("python manage.py postroom_worker        (one more process, on {where}; safe)").format(
                        where=_where(facts)
                    )
                ],
            ),
        ),
    )
