"""
Situations of one kind of e-mail: it fails while the others go out (D60), or no worker knows it (D62).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from postroom.failures import redact
from postroom.ops.diagnosis import Diagnosis, Level
from postroom.ops.facts import CAP, SAMPLE, Facts, Outcome
from postroom.ops.phrases import sections
from postroom.ops.words import clock, number

KIND_WINDOW: Final = timedelta(hours=2)
"""Composers that fail are tried again hourly, so an hour without a failure proves nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ill:
    """A kind of e-mail that only fails."""

    kind: str
    failures: tuple[Outcome, ...]
    """Newest first."""

    waiting: int
    failed: int


def failing_kind(facts: Facts) -> Diagnosis | None:
    """D60: one kind cannot be written or is refused each time, while the others go out."""
    ill = [one for one in _ill_kinds(facts) if not _waits_for_code(one)]
    if not ill:
        return None
    worst = max(ill, key=lambda one: one.waiting + one.failed)
    return Diagnosis(
        code="D60",
        level=Level.LATE,
        headline=_kind_headline(facts, ill, worst),
        summary=(_kind_toll(facts, worst), _other_kinds(facts, ill)),
        sections=sections(
            (_("Why"), [_same_of_all(worst, facts.now)]),
            (_("People"), _nothing_went_out(worst)),
            (
                _("Do"),
                [
                    _("mend what the line above names, or roll back; then restart the workers."),
                    *_kind_retry(worst, facts.now),
                ],
            ),
            (_("Then"), _kind_heals(worst)),
            (_("Not"), _kind_warnings(worst)),
            (_("Also"), [_kind_toll(facts, one) for one in ill if one is not worst][:3]),
        ),
    )


def unknown_kind(facts: Facts) -> Diagnosis | None:
    """D62: e-mails of a kind wait that the code of no running worker has: a deploy is half done, or undone."""
    unknown = [one for one in _ill_kinds(facts) if _waits_for_code(one)]
    if not unknown:
        return None
    worst = max(unknown, key=lambda one: one.waiting)
    kinds = ", ".join(one.kind for one in unknown)
    return Diagnosis(
        code="D62",
        level=Level.LATE,
        headline=ngettext(
            "{n} e-mail of kind {kind} waits for newer code.",
            "{n} e-mails of kind {kind} wait for newer code.",
            worst.waiting,
        ).format(n=number(worst.waiting, cap=CAP), kind=worst.kind),
        summary=(_kind_toll(facts, worst), _other_kinds(facts, unknown)),
        sections=sections(
            (
                _("Why"),
                [
                    _(
                        "No worker that tried had a composer of that name. First at {first}, last at {last}."
                    ).format(
                        first=clock(worst.failures[-1].at, facts.now),
                        last=clock(worst.failures[0].at, facts.now),
                    ),
                    _(
                        "Whoever saved them had: the web runs newer code than the workers, or was rolled back."
                    ),
                ],
            ),
            (_("People"), _nothing_went_out(worst)),
            (
                _("Do"),
                [_("restart all workers with code that has a composer for {kinds}.").format(kinds=kinds)],
            ),
            (_("Then"), _kind_heals(worst)),
            (_("Not"), [_("do not cancel them: they would be lost.")]),
        ),
    )


def _ill_kinds(facts: Facts) -> list[_Ill]:
    return [one for kind in _failing_kinds(facts) if (one := _illness(facts, kind))]


_MESSAGE_CLASSES: Final = ("compose", "permanent_message")


def _failing_kinds(facts: Facts) -> list[str]:
    return list(dict.fromkeys(o.kind for o in _message_failures(facts)))


def _message_failures(facts: Facts) -> list[Outcome]:
    since = facts.now - KIND_WINDOW
    return [o for o in facts.setbacks if o.error_class in _MESSAGE_CLASSES and o.at >= since]


def _illness(facts: Facts, kind: str) -> _Ill | None:
    """Return what is known of a kind that failed, unless one of its e-mails went out since it began."""
    failures = tuple(o for o in _message_failures(facts) if o.kind == kind)
    if any(o.kind == kind and o.at >= failures[-1].at for o in facts.accepted):
        return None
    waiting = sum(g.count for g in facts.waiting if g.kind == kind and g.reason in _MESSAGE_CLASSES)
    failed = len({o.email_id for o in failures if o.type == "failed"})
    return _Ill(kind=kind, failures=failures, waiting=waiting, failed=failed) if waiting or failed else None


def _kind_headline(facts: Facts, ill: Sequence[_Ill], worst: _Ill) -> str:
    others = any(o.kind not in {one.kind for one in ill} for o in facts.accepted)
    if len(ill) > 1:
        text = _("{n} kinds of e-mail fail, the others go out.") if others else _("{n} kinds of e-mail fail.")
        return text.format(n=len(ill))
    text = (
        _("One kind of e-mail fails, all others go out: {kind}.")
        if others
        else _("One kind of e-mail fails: {kind}.")
    )
    return text.format(kind=worst.kind)


def _kind_toll(facts: Facts, one: _Ill) -> str:
    return _("{kind}: {failed} failed and {waiting} waiting since {since}, 0 accepted since then.").format(
        kind=one.kind,
        failed=number(one.failed, cap=SAMPLE),
        waiting=number(one.waiting),
        since=clock(one.failures[-1].at, facts.now),
    )


def _other_kinds(facts: Facts, ill: Sequence[_Ill]) -> str:
    names = {one.kind for one in ill}
    accepted = sum(o.kind not in names for o in facts.accepted)
    failed = sum(o.kind not in names and o.type == "failed" for o in facts.setbacks)
    return _("Other kinds in the last 24 hours: {accepted} accepted, {failed} failed.").format(
        accepted=number(accepted, cap=SAMPLE), failed=number(failed, cap=SAMPLE)
    )


def _same_of_all(one: _Ill, now: datetime) -> str:
    """Return the commonest failure with how many of all look the same."""
    prints = Counter(o.fingerprint or o.detail for o in one.failures)
    commonest, n = prints.most_common(1)[0]
    example = next(o for o in one.failures if commonest in (o.fingerprint, o.detail))
    return _("{detail}, on {n} of {all} tries. First at {first}, last at {last}.").format(
        detail=redact(example.detail or example.error_class, limit=240),
        n=number(n, cap=SAMPLE),
        all=number(len(one.failures), cap=SAMPLE),
        first=clock(one.failures[-1].at, now),
        last=clock(one.failures[0].at, now),
    )


def _nothing_went_out(one: _Ill) -> list[str]:
    people = one.waiting + one.failed
    text = ngettext(
        "{n} e-mail of this kind has not gone out. Nothing of it has, so sending it later is safe.",
        "{n} e-mails of this kind have not gone out. Nothing of them has, so sending them later is safe.",
        people,
    )
    return [text.format(n=number(people))]


def _waits_for_code(one: _Ill) -> bool:
    return one.waiting > 0 and one.failures[0].detail.startswith("UnknownKind")


def _kind_retry(one: _Ill, now: datetime) -> list[str]:
    """Return the command for those that failed for good, with a beginning that takes in the first of them."""
    if not one.failed:
        return []
    since = timezone.localtime(one.failures[-1].at)
    when = f"{since:%H:%M}" if now - since < timedelta(hours=23) else f"{since:%Y-%m-%dT%H:%M}"
    return [
        f"python manage.py postroom_retry --kind {one.kind} --since {when} --dry-run",
        _("then the same without --dry-run."),
    ]


def _kind_warnings(one: _Ill) -> list[str]:
    lines = []
    if one.failed:
        lines.append(_("do not retry before it is mended: they would fail again."))
    if one.waiting:
        lines.append(_("do not cancel them: they would be lost."))
    return lines


def _kind_heals(one: _Ill) -> list[str]:
    lines = []
    if one.waiting:
        lines.append(
            _(
                "Those that wait are tried again by themselves, at the latest an hour later, until they expire."
            )
        )
    if one.failed:
        lines.append(_("Those that failed stay failed until a person retries them."))
    return lines
