"""
What can be the matter with delivery, in the order in which it is asked.

A situation is a function from facts to a finding or None. Each names its evidence: no worker is
not a stuck worker, and "None is lost" is said only where it is so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from postroom.ops.about_kinds import failing_kind, unknown_kind
from postroom.ops.about_pause import paused_by_somebody
from postroom.ops.about_refusals import refused_key, refused_service
from postroom.ops.about_silence import silent_bell, silent_reports, silent_site
from postroom.ops.about_speed import falling_behind, slow_provider
from postroom.ops.about_workers import locked_rows, no_worker, stuck_worker, worker_killer
from postroom.ops.diagnosis import Diagnosis, Level
from postroom.ops.facts import CAP, Facts
from postroom.ops.outages import unusable_mailer
from postroom.ops.phrases import stale_ones
from postroom.ops.words import ago, duration, median, number

SITUATIONS: Final[tuple[Callable[[Facts], Diagnosis | None], ...]] = (
    unusable_mailer,
    paused_by_somebody,
    no_worker,
    stuck_worker,
    locked_rows,
    refused_key,
    slow_provider,
    refused_service,
    worker_killer,
    unknown_kind,
    failing_kind,
    falling_behind,
    silent_reports,
    silent_bell,
    silent_site,
)
"""In the order of the questions: the first that holds is the verdict."""


def judge(facts: Facts) -> Diagnosis:
    """Return the first situation that holds, with the headlines of the others."""
    found = [finding for situation in SITUATIONS if (finding := situation(facts))]
    if not found:
        return replace(_healthy(facts), also=_remarks(facts), at=facts.now, facts=facts)
    also = tuple(f"{finding.code}  {finding.headline}" for finding in found[1:])
    return replace(found[0], also=also + _remarks(facts), at=facts.now, facts=facts)


def _healthy(facts: Facts) -> Diagnosis:
    return Diagnosis(
        code="OK",
        level=Level.OK,
        headline=_("Mail is going out.")
        if facts.accepted_10m
        else _("Ready. Nothing had to go out just now."),
        summary=(_figures(facts), _parts(facts)),
    )


def _figures(facts: Facts) -> str:
    texts = [
        _("{n} waiting").format(n=number(facts.due, cap=CAP)),
        _("{n} in hand").format(n=number(facts.in_hand)),
        _("{n} accepted in the last 10 min").format(n=number(facts.accepted_10m, cap=CAP)),
    ]
    if facts.later:
        texts.insert(1, _("{n} for later").format(n=number(facts.later, cap=CAP)))
    if seconds := facts.latencies:
        times = {"typical": duration(median(seconds)), "worst": duration(max(seconds))}
        texts.append(_("from commit to accepted: typical {typical}, worst {worst}").format(**times))
    return " · ".join(texts)


def _parts(facts: Facts) -> str:
    turning = sum(worker.state == "turning" for worker in facts.alive)
    texts = [
        _("database {ms} ms").format(ms=f"{facts.database_ms:.0f}"),
        _("between two runs of postroom_worker --until-empty, the last ended {ago}").format(
            ago=ago(facts.workers[0].beat.stopped_at or facts.now, facts.now)
        )
        if facts.is_between_runs
        else ngettext("{n} worker turning", "{n} workers turning", turning).format(n=turning),
        *(
            _("{mailer} accepting").format(mailer=m.alias)
            for m in facts.mailers
            if m.last_accepted_at and not m.streak
        ),
        doorbell_in_words(facts),
    ]
    if facts.last_report_at:
        texts.append(_("last delivery report {ago}").format(ago=ago(facts.last_report_at, facts.now)))
    return " · ".join(texts)


def doorbell_in_words(facts: Facts) -> str:
    """Return what wakes the workers."""
    if facts.doorbell != "none":
        return _("doorbell {name}").format(name=facts.doorbell)
    return (
        _("no doorbell needed: workers see SQLite change") if facts.vendor == "sqlite" else _("no doorbell")
    )


def _remarks(facts: Facts) -> tuple[str, ...]:
    """What deserves a look on a good day too."""
    found = []
    if facts.uncertain:
        found.append(
            ngettext(
                "{n} e-mail is uncertain: it may have gone out and is not repeated by itself.",
                "{n} e-mails are uncertain: they may have gone out and are not repeated by themselves.",
                facts.uncertain,
            ).format(n=number(facts.uncertain, cap=CAP))
        )
    if facts.mailer_trouble and not unusable_mailer(facts):
        text = _("With the settings of this process no delivery process could begin: {trouble}")
        found.append(text.format(trouble=facts.mailer_trouble))
    if facts.stale and facts.alive:
        found.append(stale_ones(facts))
    if len({worker.beat.fingerprint for worker in facts.alive if worker.beat.fingerprint}) > 1:
        found.append(
            _("Workers differ in SECRET_KEY or SITE_URL: links that one writes do not work at the other.")
        )
    if len(versions := sorted({worker.beat.version for worker in facts.alive if worker.beat.version})) > 1:
        old = [w.beat.name for w in facts.alive if w.beat.version and w.beat.version != versions[-1]]
        found.append(
            _(
                "Workers run different versions of postroom ({versions}): restart {names} after a deploy."
            ).format(versions=", ".join(versions), names=", ".join(old[:5]))
        )
    return tuple(found)
