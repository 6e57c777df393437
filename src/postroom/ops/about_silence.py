"""
Situations in which somebody is silent and mail goes out all the same: the doorbell (D50), the reports
of the provider (D70), the site itself (D80).
"""

from __future__ import annotations

from typing import Final

from django.utils.translation import gettext as _

from postroom.ops.diagnosis import Diagnosis, Level
from postroom.ops.facts import CAP, Facts
from postroom.ops.phrases import backlog, sections
from postroom.ops.words import ago, number

ENOUGH: Final = 20
"""Fewer e-mails prove nothing."""


def silent_bell(facts: Facts) -> Diagnosis | None:
    """D50: the broker of the doorbell does not answer. Workers find e-mails by looking."""
    if not facts.bell_trouble:
        return None
    return Diagnosis(
        code="D50",
        level=Level.OK,
        headline=_("Mail is going out. The doorbell is silent.")
        if facts.accepted_10m
        else _("Ready. The doorbell is silent."),
        summary=(backlog(facts),),
        sections=sections(
            (
                _("Why"),
                [
                    _("{trouble} Asked just now.").format(trouble=facts.bell_trouble),
                    _(
                        "Workers find e-mails by looking: postroom_worker every second, celery worker after 5 s."
                    ),
                ],
            ),
            (
                _("People"),
                [
                    _(
                        "Nobody waits longer than that, and no request is slowed down: after a miss the bell is left alone."
                    )
                ],
            ),
            (
                _("Do"),
                [
                    _(
                        "nothing tonight for mail. Celery's other tasks do stand still: repair the broker for them."
                    )
                ],
            ),
            (
                _("Not"),
                [
                    _(
                        "do not set CELERY_BROKER_URL to something else in a hurry: nothing of ours waits in the broker."
                    )
                ],
            ),
        ),
    )


def silent_reports(facts: Facts) -> Diagnosis | None:
    """D70: the mailer that used to tell what became of e-mails has told nothing for the last many."""
    if facts.accepted_unreported < ENOUGH or facts.last_report_at is None:
        return None
    names = ", ".join(m.alias for m in facts.mailers if m.reports)
    return Diagnosis(
        code="D70",
        level=Level.LATE,
        headline=_("E-mails are accepted, but no report says that one arrived."),
        summary=(
            _("{n} accepted between 10 and 70 minutes ago, 0 reports since; the last came {ago}.").format(
                n=number(facts.accepted_unreported, cap=CAP), ago=ago(facts.last_report_at, facts.now)
            ),
        ),
        sections=sections(
            (
                _("Why"),
                [
                    _(
                        "Either {mailer} cannot reach the webhook (address, secret, firewall), or it holds the e-mails."
                    ).format(mailer=names)
                ],
            ),
            (
                _("People"),
                [_("Pages say that the mail service took the message, and cannot say that it arrived.")],
            ),
            (
                _("Do"),
                [
                    _(
                        "look at the webhook's log at {mailer}: 401 or 403 is the secret, no answer the way to us."
                    ).format(mailer=names),
                    "python manage.py postroom_test you@example.com",
                ],
            ),
            (_("Not"), [_("do not send them again: they were accepted.")]),
        ),
    )


def silent_site(facts: Facts) -> Diagnosis | None:
    """D80: nothing was asked for, while yesterday at this time much was."""
    if facts.asked_3h or facts.asked_3h_yesterday < ENOUGH:
        return None
    return Diagnosis(
        code="D80",
        level=Level.OK,
        headline=_("Nothing was asked for in the last 3 hours: look at the site, not at mail."),
        summary=(
            _("Yesterday it was {n} e-mails in the same 3 hours.").format(
                n=number(facts.asked_3h_yesterday, cap=CAP)
            ),
        ),
        sections=sections(
            (
                _("Why"),
                [
                    _(
                        "No e-mail was saved in this database. Workers turn, and would send what came: {database}."
                    ).format(database=facts.database)
                ],
            ),
            (
                _("Do"),
                [
                    _(
                        "register, or buy something, as a visitor would; look at the log of the web processes."
                    ),
                    _("compare the database above with the one that the site writes to."),
                ],
            ),
        ),
    )
