"""
The situation of mail that a person holds back (D11).
"""

from __future__ import annotations

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from postroom.failures import redact
from postroom.ops.diagnosis import Diagnosis, Level
from postroom.ops.facts import Facts
from postroom.ops.phrases import backlog, people, sections
from postroom.ops.words import ago, clock, number, person

KNOWS_THE_SWITCH = (0, 2)
"""Delivery processes of this version ask for the switch; older ones send on."""


def paused_by_somebody(facts: Facts) -> Diagnosis | None:
    """D11: the switch is off. The first line says who, since when and why."""
    pause = facts.pause
    if pause is None:
        return None
    return Diagnosis(
        code="D11",
        level=Level.STOPPED,
        headline=_headline(facts),
        summary=(backlog(facts),),
        sections=sections(
            (
                _("Why"),
                [
                    _("The switch was thrown {ago}. Nothing is claimed while it is off.").format(
                        ago=ago(pause.paused_at, facts.now)
                    ),
                    *_still_in_hand(facts),
                    *_do_not_know(facts),
                ],
            ),
            (_("People"), people(facts)),
            (_("Do"), [_("ask who paused; then:  python manage.py postroom_resume"), *_start_one(facts)]),
            (_("Then"), [_("Workers go on within a second. What has expired meanwhile is not sent.")]),
            (_("Not"), [_("do not cancel what waits: it would be lost.")] if facts.due else []),
        ),
    )


def _start_one(facts: Facts) -> list[str]:
    """To resume is not enough where nobody is there to go on."""
    return (
        []
        if facts.alive or facts.is_between_runs
        else [_("and, since no delivery process is running:  python manage.py postroom_worker")]
    )


def _headline(facts: Facts) -> str:
    assert facts.pause is not None
    told = _("Sending is paused by {who} since {at}").format(
        who=person(facts.pause.actor), at=clock(facts.pause.paused_at, facts.now)
    )
    reason = redact(facts.pause.reason, limit=120)
    return f"{told}: {reason}" if reason else f"{told}."


def _still_in_hand(facts: Facts) -> list[str]:
    if not facts.in_hand:
        return []
    text = ngettext(
        "{n} e-mail was in hand before and is finished.",
        "{n} e-mails were in hand before and are finished.",
        facts.in_hand,
    )
    return [text.format(n=number(facts.in_hand))]


def _do_not_know(facts: Facts) -> list[str]:
    old = [
        worker.beat.name
        for worker in facts.alive
        if worker.beat.version and version_of(worker.beat.version) < KNOWS_THE_SWITCH
    ]
    if not old:
        return []
    text = ngettext(
        "{names} runs code that does not know the switch and sends on: stop it.",
        "{names} run code that does not know the switch and send on: stop them.",
        len(old),
    )
    return [text.format(names=", ".join(old))]


def version_of(text: str) -> tuple[int, ...]:
    """Return ``(0, 2, 0)`` for ``0.2.0`` and for ``0.2.0rc1``; what is no version is older than any."""
    numbers = []
    for part in text.split(".")[:3]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
