"""
Delivery in numbers, for scripts and for those who draw curves; what they mean is said by ``diagnose()``.

The keys of ``as_json`` are a contract (docs/operations.md): new ones may come, none changes its meaning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from postroom.conf import config
from postroom.failures import redact
from postroom.models import EventType
from postroom.ops.facts import CAP, Facts, Outcome
from postroom.ops.questions import bounded, database, happened, look
from postroom.ops.words import clock, duration, median, number, person

HOUR: Final = timedelta(hours=1)

_COUNTED: Final = {
    "accepted": EventType.ACCEPTED,
    "failed": EventType.FAILED,
    "uncertain": EventType.DOUBTED,
    "rescued": EventType.RESCUED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Facts, and what happened in the last hour."""

    facts: Facts
    hour: dict[str, int]
    """``accepted failed uncertain rescued expired``: events, counted up to ``CAP``."""

    by_mailer: dict[str, int]
    """Accepted in the last hour."""


def count(using: str | None = None) -> Numbers:
    """Return the numbers of this moment; raises DatabaseError, SettingsError."""
    config()  # wrong settings first: without a database they would be taken for its fault
    alias = using or database()
    facts = look(alias)
    since = facts.now - HOUR
    with bounded(alias):
        hour = {name: happened(alias, type_, since) for name, type_ in _COUNTED.items()}
        hour["expired"] = happened(alias, EventType.WITHDRAWN, since, email__reason="expired")
        by_mailer = {
            mailer.alias: happened(alias, EventType.ACCEPTED, since, mailer=mailer.alias)
            for mailer in facts.mailers
        }
    return Numbers(facts=facts, hour=hour, by_mailer=by_mailer)


def as_json(numbers: Numbers) -> dict[str, Any]:
    """Return the numbers under their documented keys; instants are ISO 8601, lengths of time seconds."""
    facts = numbers.facts
    return {
        "at": facts.now.isoformat(),
        "database": facts.database,
        "database_ms": round(facts.database_ms, 1),
        "paused": _pause_as_json(facts),
        "waiting": facts.due,
        "later": facts.later,
        "stale": facts.stale,
        "in_hand": facts.in_hand,
        "uncertain": facts.uncertain,
        "lag_seconds": round(facts.lag_seconds, 1),
        "last_hour": numbers.hour,
        "accepted_last_minute": facts.accepted_1m,
        "latency_seconds": _spread(facts.latencies),
        "kinds": [
            {"kind": kind, "waiting": due, "later": later} for kind, (due, later) in _by_kind(facts).items()
        ],
        "mailers": [
            {
                "mailer": alias,
                "accepted": accepted,
                "answer_seconds": _spread(_answers(facts.accepted, alias, facts)),
            }
            for alias, accepted in numbers.by_mailer.items()
        ],
        "workers": _workers_as_json(facts),
    }


def as_lines(numbers: Numbers) -> list[str]:
    """Return the numbers as lines of a terminal."""
    facts = numbers.facts
    return [
        _line(
            "outbox",
            f"waiting {number(facts.due, cap=CAP)}",
            f"in hand {number(facts.in_hand)}",
            f"oldest {duration(facts.lag_seconds)}" if facts.lag_seconds else "",
            f"due later {number(facts.later, cap=CAP)}",
            f"stale {number(facts.stale, cap=CAP)}" if facts.stale else "",
            f"uncertain {number(facts.uncertain, cap=CAP)}" if facts.uncertain else "",
            _paused(facts),
        ),
        _line(
            "last hour",
            *(f"{name} {number(numbers.hour[name], cap=CAP)}" for name in _SHOWN),
            f"per minute {number(round(numbers.hour['accepted'] / 60))} now {number(facts.accepted_1m, cap=CAP)}",
        ),
        _line("by kind", *_kind_texts(facts)),
        *_mailer_lines(numbers),
        _line("workers", f"{_turning(facts)} turning", *_worker_texts(facts)),
    ]


_SHOWN: Final = ("accepted", "failed", "expired", "uncertain")


def _line(label: str, *texts: str) -> str:
    return f"{label:<10}" + "   ".join(filter(None, texts))


def _paused(facts: Facts) -> str:
    return f"PAUSED since {clock(facts.pause.paused_at, facts.now)}" if facts.pause else ""


def _pause_as_json(facts: Facts) -> dict[str, str] | None:
    if facts.pause is None:
        return None
    return {
        "since": facts.pause.paused_at.isoformat(),
        "by": person(facts.pause.actor),
        "reason": redact(facts.pause.reason, limit=200),
    }


def _by_kind(facts: Facts) -> dict[str, tuple[int, int]]:
    due: Counter[str] = Counter()
    later: Counter[str] = Counter()
    for group in facts.waiting:
        due[group.kind] += group.due
        later[group.kind] += group.count - group.due - group.dead - group.stale
    most = sorted({*due, *later}, key=lambda kind: (-due[kind], -later[kind], kind))
    return {kind: (due[kind], later[kind]) for kind in most if due[kind] or later[kind]}


def _kind_texts(facts: Facts) -> list[str]:
    kinds = list(_by_kind(facts).items())
    texts = [
        f"{kind} {number(due, cap=CAP)} waiting" + (f" {number(later, cap=CAP)} later" if later else "")
        for kind, (due, later) in kinds[:8]
    ]
    if len(kinds) > 8:
        texts.append(f"and {len(kinds) - 8} kinds more")
    return texts or ["none waits"]


def _mailer_lines(numbers: Numbers) -> list[str]:
    facts = numbers.facts
    lines: list[str] = []
    for alias, accepted in numbers.by_mailer.items():
        answers = _answers(facts.accepted, alias, facts)
        speed = (f"typical {duration(median(answers))}", f"worst {duration(max(answers))}") if answers else ()
        lines.append(
            _line(
                "" if lines else "by mailer",
                f"{alias}  accepted {number(accepted, cap=CAP)}",
                *speed,
            )
        )
    return lines


def _answers(accepted: Sequence[Outcome], mailer: str, facts: Facts) -> list[float]:
    """How long the mailer took, of the last hour's newest acceptances."""
    since = facts.now - HOUR
    return [
        o.duration_ms / 1000
        for o in accepted
        if o.mailer == mailer and o.at >= since and o.duration_ms is not None
    ]


def _spread(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    return {"typical": round(median(seconds), 3), "worst": round(max(seconds), 3)}


def _turning(facts: Facts) -> int:
    return sum(worker.state == "turning" for worker in facts.workers)


def _worker_texts(facts: Facts) -> list[str]:
    texts = {"stuck": "stuck since", "silent": "lost", "stopped": "stopped"}
    told = []
    for worker in facts.workers:
        if worker.state in texts:
            beat = worker.beat
            at = {"stuck": beat.last_turn_at or beat.started_at, "stopped": beat.stopped_at}.get(worker.state)
            told.append(f"({beat.name} {texts[worker.state]} {clock(at or beat.seen_at, facts.now)})")
    return told[:3]


def _workers_as_json(facts: Facts) -> list[dict[str, Any]]:
    return [
        {
            "name": worker.beat.name,
            "state": worker.state,
            "seen_at": worker.beat.seen_at.isoformat(),
            "in_hand": worker.beat.in_hand,
            "concurrency": worker.beat.concurrency,
            "version": worker.beat.version,
        }
        for worker in facts.workers
    ]
