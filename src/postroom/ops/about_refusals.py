"""
Situations of a mailer that takes nothing: it refuses our key (D30), or does not take mail at all (D31).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from postroom.conf import config
from postroom.failure_tables import CONSEQUENCES
from postroom.failures import FailureClass, redact
from postroom.ops.diagnosis import Diagnosis, Level
from postroom.ops.facts import CAP, SAMPLE, Facts, MailerSeen, Outcome
from postroom.ops.phrases import backlog, people, sections
from postroom.ops.words import clock, duration, median, number

FRESH: Final = timedelta(minutes=15)
"""A refusal older than this says nothing about now, unless an e-mail still waits because of it."""

QUICK_MS: Final = 2_000
"""An answer that comes sooner shows that the network is well."""


def refused_key(facts: Facts) -> Diagnosis | None:
    """D30: the provider's last word was about our key or account, not about an e-mail."""
    mailer = _refusing(facts, ("config",))
    if mailer is None or mailer.last_refusal is None:
        return None
    same = [o for o in mailer.streak if o.error_class == "config"]
    ms = median(o.duration_ms for o in same if o.duration_ms is not None)
    network = _("It answers in {ms} ms, so it is not the network.").format(ms=number(int(ms)))
    return Diagnosis(
        code="D30",
        level=Level.STOPPED,
        headline=_about_config(mailer),
        summary=(backlog(facts) + " " + _("None has used up an attempt by it."),),
        sections=sections(
            (_("Why"), [_streak(mailer, same, facts.now), *([network] if 0 < ms < QUICK_MS else [])]),
            (_("People"), people(facts)),
            (_("Do"), [_config_remedy(mailer)]),
            (
                _("Then"),
                [
                    _(
                        "Each is tried again after {time}, so they go out within that time of the restart."
                    ).format(time=_pause_after(FailureClass.CONFIG)),
                    _("Nothing has to be retried by hand."),
                ],
            ),
            (_("Not"), [_("do not cancel or retry them by hand."), *_no_switching(facts)]),
        ),
    )


def _refusing(facts: Facts, classes: Sequence[str]) -> MailerSeen | None:
    """Return the mailer whose last word was a refusal of these classes, and still counts."""
    waits_for_it = any(group.reason in classes for group in facts.waiting)
    for mailer in facts.mailers:
        refusal = mailer.last_refusal
        if not mailer.streak or refusal is None or refusal.error_class not in classes:
            continue
        if waits_for_it or facts.now - refusal.at <= FRESH:
            return mailer
    return None


_KEY_WORDS: Final = ("401", "unauthorized", "key not found", "api key", "authentication", "535", "530")


def _is_about_key(mailer: MailerSeen) -> bool:
    said = mailer.streak[0].detail.lower()
    return any(word in said for word in _KEY_WORDS)


def _about_config(mailer: MailerSeen) -> str:
    if _is_about_key(mailer):
        return _("{mailer} refuses our key.").format(mailer=mailer.alias)
    return _("{mailer} refuses our account or our settings.").format(mailer=mailer.alias)


def _config_remedy(mailer: MailerSeen) -> str:
    if _is_about_key(mailer):
        return _(
            "put a valid key (or password) for {mailer} into the settings and restart the workers."
        ).format(mailer=mailer.alias)
    return _("mend what {mailer} names (sender, domain, account), then restart the workers.").format(
        mailer=mailer.alias
    )


def _streak(mailer: MailerSeen, same: Sequence[Outcome], now: datetime) -> str:
    """What it answered, since when, how often, and when it last took something."""
    text = _("{answer} since {since}, on {n} of {all} tries;")
    told = text.format(
        answer=redact(same[0].detail or same[0].error_class, limit=200),
        since=clock(same[-1].at, now),
        n=number(len(same), cap=SAMPLE),
        all=number(len(mailer.streak), cap=SAMPLE),
    )
    if mailer.last_accepted_at is None:
        return told + " " + _("nothing was accepted in the 24 hours before.")
    return told + " " + _("the last was accepted at {at}.").format(at=clock(mailer.last_accepted_at, now))


def _no_switching(facts: Facts) -> list[str]:
    if not facts.uncertain:
        return []
    return [
        ngettext(
            "do not switch the provider now: {n} e-mail is uncertain and would go out twice.",
            "do not switch the provider now: {n} e-mails are uncertain and would go out twice.",
            facts.uncertain,
        ).format(n=number(facts.uncertain, cap=CAP))
    ]


def _pause_after(failure: FailureClass) -> str:
    """The longest wait before the next attempt, unless the provider asked for another one."""
    return duration(CONSEQUENCES[failure].wait or config().BACKOFF_CAP_SECONDS)


_TROUBLE: Final = ("transient", "uncertain", "rate_limited", "quota")


def refused_service(facts: Facts) -> Diagnosis | None:
    """D31: the mailer takes nothing, for another reason than the key: network, limits, quota."""
    mailer = _refusing(facts, _TROUBLE)
    if mailer is None or len(mailer.streak) < 3:
        return None
    top = Counter(o.error_class for o in mailer.streak).most_common(1)[0][0]
    same = [o for o in mailer.streak if o.error_class == top]
    return Diagnosis(
        code="D31",
        level=Level.LATE,
        headline=_about_service(mailer.alias, top),
        summary=(backlog(facts),),
        sections=sections(
            (_("Why"), [_streak(mailer, same, facts.now)]),
            (_("People"), people(facts)),
            (_("Do"), [_service_remedy(mailer.alias, top)]),
            (
                _("Then"),
                [
                    _(
                        "E-mails are tried again by themselves, with pauses of up to {time}; nothing has to be retried"
                        " by hand."
                    ).format(time=_pause_after(FailureClass(top)))
                ],
            ),
            (_("Not"), _no_switching(facts)),
        ),
    )


def _about_service(mailer: str, error_class: str) -> str:
    texts = {
        "quota": _("{mailer} says that our quota is used up."),
        "rate_limited": _("{mailer} asks us to slow down and takes nothing."),
    }
    return texts.get(error_class, _("{mailer} does not take mail.")).format(mailer=mailer)


def _service_remedy(mailer: str, error_class: str) -> str:
    if error_class == "quota":
        return _("raise the quota at {mailer}, or wait until it is renewed.").format(mailer=mailer)
    return _("look at the status page of {mailer}, and at the network between it and the workers.").format(
        mailer=mailer
    )
