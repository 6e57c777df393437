"""
One verdict: is mail going out, and if not, what to do.
"""

from __future__ import annotations

from dataclasses import replace

from django.db import DatabaseError

from postroom.conf import config
from postroom.exceptions import SettingsError
from postroom.ops.diagnosis import Diagnosis, Level
from postroom.ops.locks import table_lock
from postroom.ops.outages import database_trouble, locked_out, settings_trouble, silence, unwritable
from postroom.ops.patience import within
from postroom.ops.questions import database, look
from postroom.ops.situations import judge
from postroom.ops.writing import read_only


def diagnose(using: str | None = None) -> Diagnosis:
    """
    Return the state of delivery: the first situation that holds, the others as "also".

    Never raises for a database or a setting that is out of order: that too is a verdict.
    """
    alias = using or database()
    try:
        config()
        # Before all else: who is kept from writing a heartbeat looks dead.
        if lock := table_lock(alias):
            return locked_out(alias, lock)
        judged = judge(look(alias))
        trouble = read_only(alias)
        return _first(unwritable(alias, trouble), judged) if trouble else judged
    except DatabaseError as error:
        return database_trouble(alias, error)
    except SettingsError as error:
        return settings_trouble(error)


def _first(worse: Diagnosis, judged: Diagnosis) -> Diagnosis:
    """Return *worse* with the numbers of *judged*, and with its headline among the others."""
    found = () if judged.level == Level.OK else (f"{judged.code}  {judged.headline}",)
    return replace(worse, also=found + judged.also, at=judged.at, facts=judged.facts)


def diagnose_within(seconds: float, using: str | None = None) -> Diagnosis:
    """Return the state of delivery, or after *seconds* that the database keeps silent."""
    return within(seconds, lambda: diagnose(using)) or silence(seconds)
