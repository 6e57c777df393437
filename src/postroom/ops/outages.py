"""
What is told when the tables cannot be asked or written (D20), or the settings cannot be meant (D05).

Knows the difference between no answer at all, tables that are not there yet and tables that somebody
locks.
"""

from __future__ import annotations

from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from postroom.exceptions import SettingsError
from postroom.failures import redact
from postroom.ops.diagnosis import Diagnosis, Level
from postroom.ops.facts import Facts, Lock
from postroom.ops.locks import holders
from postroom.ops.phrases import backlog, people, sections
from postroom.ops.words import database_label, duration
from postroom.ops.writing import ReadOnly


def missing_migrations(alias: str) -> list[str]:
    """Return ``app.name`` of each migration that database *alias* has not had; raises DatabaseError."""
    executor = MigrationExecutor(connections[alias])
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _backwards in plan]


def database_trouble(alias: str, error: DatabaseError) -> Diagnosis:
    """Tell apart: no answer at all, tables that are not there yet, tables that are locked."""
    try:
        connections[alias].close_if_unusable_or_obsolete()
        missing = [name for name in missing_migrations(alias) if name.startswith("postroom")]
    except DatabaseError as worse:
        return _unreachable(alias, worse)
    if missing:
        return _schema_missing(alias, missing)
    if lock := holders(alias):
        return locked_out(alias, lock)
    return _unanswered(error)


def _unreachable(alias: str, error: DatabaseError) -> Diagnosis:
    asked = _("Asked just now: {database}.").format(database=database_label(alias))
    return _stopped(
        _("The database cannot be reached."),
        _UNCOUNTED,
        (_("Why"), [_saying(error), asked]),
        (_("People"), [_("Pages that write to this database fail too. This is more than mail.")]),
        (_("Do"), [_("Bring the database back, or correct DATABASES in the settings.")]),
        (_("Then"), [_("Workers go on by themselves as soon as it answers.")]),
    )


def _schema_missing(alias: str, missing: list[str]) -> Diagnosis:
    asked = _("The database asked is {database}. Is it the right one?")
    return _stopped(
        _("The tables of the outbox are not up to date."),
        gettext_lazy("Until they are, e-mails can neither be saved nor sent."),
        (_("Why"), [_("Not applied: {names}.").format(names=", ".join(missing))]),
        (_("Do"), ["python manage.py migrate" + ("" if alias == "default" else f" --database {alias}")]),
        (_("Then"), [_("Restart the workers and the web processes.")]),
        (_("Look"), [asked.format(database=database_label(alias))]),
    )


def locked_out(alias: str, lock: Lock) -> Diagnosis:
    """Return what is told when somebody keeps the workers from the tables."""
    asked = _("Asked just now: {database}. Workers cannot write their heartbeats either.")
    return _stopped(
        _("The tables of the outbox are locked by somebody else."),
        gettext_lazy(
            "How many e-mails wait is not counted while the lock stands. What was committed is not lost."
        ),
        (_("Why"), [*lock.why, asked.format(database=database_label(alias))]),
        (
            _("People"),
            [_("Whatever writes the same tables waits too: registrations. This is more than mail.")],
        ),
        (_("Do"), [_("ask whoever it is to end the transaction; else:"), *lock.do]),
        (_("Then"), [_("Workers go on by themselves, within seconds.")]),
        (_("Not"), [_("do not start or restart workers: they would wait as well.")]),
    )


def _unanswered(error: DatabaseError) -> Diagnosis:
    return _stopped(
        _("The tables of the outbox do not answer."),
        _UNCOUNTED,
        (_("Why"), [_saying(error)]),
        (_("People"), [_("Whatever writes the same table waits too: registrations, for example.")]),
        (_("Do"), [_("End the session that holds the lock, or wait for it; then ask again.")]),
        (_("Then"), [_("Workers go on by themselves as soon as the table is free.")]),
    )


def unwritable(alias: str, trouble: ReadOnly) -> Diagnosis:
    """Return what is told when the tables can be read and nothing can be saved."""
    asked = _("Asked just now: {database}.").format(database=database_label(alias))
    return _stopped(
        _("The database cannot be written."),
        gettext_lazy("E-mails can neither be saved nor sent. What was committed is still in the database."),
        (_("Why"), [trouble.why, asked]),
        (_("People"), [_("Pages that write to this database fail too. This is more than mail.")]),
        (_("Do"), [trouble.do]),
        (_("Then"), [_("Connections that were open may stay read only: restart workers and web processes.")]),
    )


def silence(seconds: float) -> Diagnosis:
    """Return what is told when nothing has been answered for *seconds*."""
    return _stopped(
        _("The database does not answer in time."),
        _UNCOUNTED,
        (_("Why"), [_("No answer within {time}; gave up.").format(time=duration(seconds))]),
        (_("People"), [_("Pages that use this database hang too. This is more than mail.")]),
        (_("Do"), [_("Look at the database server, and at the network between it and this host.")]),
        (_("Then"), [_("Workers go on by themselves as soon as it answers.")]),
    )


def settings_trouble(error: SettingsError) -> Diagnosis:
    """Return what is told when POSTROOM cannot be meant."""
    return _stopped(
        _("The settings of postroom cannot be used."),
        gettext_lazy("Nothing can be sent with them. What is in the outbox stays there."),
        (_("Why"), [redact(str(error))]),
        (_("Do"), [_("Correct POSTROOM in the settings, then: python manage.py check")]),
        code="D05",
    )


def unusable_mailer(facts: Facts) -> Diagnosis | None:
    """
    D05: no delivery process runs, and one with these settings could not begin.

    Where one was killed, that is the cause: it had settings with which it could.
    """
    ran_with_others = facts.workers and facts.workers[0].state != "stopped"
    if not facts.mailer_trouble or ran_with_others or facts.is_between_runs:
        return None
    return _stopped(
        _("The settings name no mailer that can send."),
        backlog(facts),
        (
            _("Why"),
            [facts.mailer_trouble, _("A delivery process that reads the same settings ends at once.")],
        ),
        (_("People"), people(facts)),
        (
            _("Do"),
            [
                _("correct SEND_WITH, or what MAILERS says of the mailer, then:"),
                "python manage.py check",
                "python manage.py postroom_worker",
            ],
        ),
        (_("Look"), [_("whether this shell has the settings and the environment of the workers.")]),
        code="D05",
    )


_UNCOUNTED = gettext_lazy(
    "How many e-mails wait cannot be counted. What was committed is still in the database."
)


def _stopped(
    headline: str, summary: str | Promise, *parts: tuple[str, list[str]], code: str = "D20"
) -> Diagnosis:
    return Diagnosis(
        code=code,
        level=Level.STOPPED,
        headline=headline,
        summary=(str(summary),),
        sections=sections(*parts),
    )


def _saying(error: DatabaseError) -> str:
    """The database's own words, cut to what helps and without what is nobody's business."""
    return f"{type(error).__name__}: {redact(str(error), limit=240)}"
