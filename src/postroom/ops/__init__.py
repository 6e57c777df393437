"""
How delivery is doing: numbers, and one verdict in words.

``diagnose()`` is the one source for ``postroom_doctor``, the operator page and whatever else wants to
know; the numbers beside it are for those who draw curves. Hides which tables and indexes are asked
(``questions.py``), what the answers mean (``situations.py`` and what it lists), and how it is told.
Everything reads the database that is written: a replica would tell an older story.
"""

from postroom.ops.diagnosis import Diagnosis, Level, Section
from postroom.ops.outages import missing_migrations
from postroom.ops.questions import (
    depth,
    failures_by_reason,
    lag_seconds,
    mailers_seen,
    throughput_per_minute,
    workers,
)
from postroom.ops.verdict import diagnose, diagnose_within

__all__ = [
    "Diagnosis",
    "Level",
    "Section",
    "depth",
    "diagnose",
    "diagnose_within",
    "failures_by_reason",
    "lag_seconds",
    "mailers_seen",
    "missing_migrations",
    "throughput_per_minute",
    "workers",
]
