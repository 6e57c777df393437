"""
Sentences that several situations share: how many wait, who they are, whether any is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from postroom.ops.diagnosis import Section
from postroom.ops.facts import CAP, Facts
from postroom.ops.words import clock, duration, number


def backlog(facts: Facts) -> str:
    """How many wait, for how long, and whether any is lost."""
    n = facts.due + facts.later + facts.stale
    if not n:
        told = _("0 e-mails wait.")
    elif facts.lag_seconds:
        text = ngettext("{n} e-mail waits, for {time} by now.", "{n} e-mails wait, the oldest for {time}.", n)
        told = text.format(n=number(n, cap=CAP), time=duration(facts.lag_seconds))
        if facts.later:
            parts = _("{due} due now, {later} due later.")
            due, later = number(facts.due, cap=CAP), number(facts.later, cap=CAP)
            told = f"{told} {parts.format(due=due, later=later)}"
    else:
        told = _until_then(facts, n).format(n=number(n, cap=CAP))
    if facts.stale:
        text = ngettext(
            "{n} of them waits for a person's word.", "{n} of them wait for a person's word.", facts.stale
        )
        told = f"{told} {text.format(n=number(facts.stale, cap=CAP))}"
    return f"{told} {_losses(facts)}"


def _until_then(facts: Facts, n: int) -> str:
    """What was tried and is to be tried again does not wait because somebody planned it so."""
    if any(group.reason and group.count > group.dead + group.stale for group in facts.waiting):
        return ngettext(
            "{n} e-mail waits for its next attempt.", "{n} e-mails wait for their next attempt.", n
        )
    return ngettext("{n} e-mail waits for its time.", "{n} e-mails wait for their time.", n)


def people(facts: Facts) -> list[str]:
    """Who waits for what, and what will be too late first."""
    kinds: Counter[str] = Counter()
    for group in facts.waiting:
        kinds[group.kind] += group.count - group.dead
    waiting = [(kind, n) for kind, n in kinds.most_common() if n > 0]
    if not waiting:
        return []
    named = " · ".join(f"{number(n, cap=CAP)} {kind}" for kind, n in waiting[:4])
    rest = len(waiting) - 4
    lines = [
        named + (" · " + ngettext("{n} kind more", "{n} kinds more", rest).format(n=rest) if rest > 0 else "")
    ]
    first = min(
        (g for g in facts.waiting if g.first_expiry), key=lambda g: g.first_expiry or facts.now, default=None
    )
    if first and first.first_expiry and first.first_expiry - facts.now < timedelta(hours=24):
        text = _("The first to expire is one of {kind}, at {at}; it will then not be sent.")
        lines.append(text.format(kind=first.kind, at=clock(first.first_expiry, facts.now)))
    if facts.dead:
        text = ngettext(
            "{n} has expired meanwhile and will not be sent.",
            "{n} have expired meanwhile and will not be sent.",
            facts.dead,
        )
        lines.append(text.format(n=number(facts.dead, cap=CAP)))
    return lines


def sections(*parts: tuple[str, Sequence[str]]) -> tuple[Section, ...]:
    """Return the parts that have something to say."""
    return tuple(Section(label=label, lines=tuple(lines)) for label, lines in parts if lines)


def stale_ones(facts: Facts) -> str:
    """What has been due for so long that it waits for a person's word."""
    return ngettext(
        "{n} e-mail has been due for hours, as in a restored backup. It is sent only after:"
        " python manage.py postroom_worker --release-stale",
        "{n} e-mails have been due for hours, as in a restored backup. They are sent only after:"
        " python manage.py postroom_worker --release-stale",
        facts.stale,
    ).format(n=number(facts.stale, cap=CAP))


def _losses(facts: Facts) -> str:
    """Say that none is lost where it is so; else what became of the others."""
    failed, expired, uncertain = facts.day["failed"], facts.day["expired"] + facts.dead, facts.uncertain
    sentences = []
    if failed:
        text = ngettext("{n} failed in the last 24 hours.", "{n} failed in the last 24 hours.", failed)
        sentences.append(text.format(n=number(failed, cap=CAP)))
    if expired:
        text = ngettext("{n} expired unsent.", "{n} expired unsent.", expired)
        sentences.append(text.format(n=number(expired, cap=CAP)))
    if uncertain:
        text = ngettext("{n} is uncertain.", "{n} are uncertain.", uncertain)
        sentences.append(text.format(n=number(uncertain, cap=CAP)))
    return " ".join(sentences) or _("None is lost.")
