"""
One verdict: is mail going out, and if not, what to do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from django.db import DatabaseError, connections

from postroom.conf import config
from postroom.exceptions import SettingsError
from postroom.ops.diagnosis import Diagnosis, Level
from postroom.ops.outages import database_trouble, settings_trouble, silence, unwritable
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
    """
    Return the state of delivery, or after *seconds* that the database keeps silent.

    Looks from a thread with a connection of its own, because a server that hangs would hold the
    caller; that thread is left behind and ends with the process.
    """
    found: list[Diagnosis] = []
    thread = threading.Thread(target=_look_and_close, args=(using, found.append), daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else silence(seconds)


def _look_and_close(using: str | None, tell: Callable[[Diagnosis], None]) -> None:
    try:
        tell(diagnose(using))
    finally:
        connections.close_all()
