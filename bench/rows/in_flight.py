"""A slow provider and one process: how many sends it carries at once, and what they cost."""

from __future__ import annotations

import time
from typing import Any

from bench.results import Figure
from bench.rows import Options
from bench.rows.drain import hot_worker
from bench.stage import Stage, peak_rss
from bench.talk import ChildFailed

DELAY = 10.0


def ask(stage: Stage, options: Options) -> list[Figure]:
    """Answer with the count, the rate, the memory and the database connections."""
    slots = 1000 if options.quick else 4000
    count = 2 * slots
    with stage.provider() as provider, hot_worker(stage, provider, slots) as drain:
        provider.reset(delay=DELAY)
        drain.hand.ask("bulk", count=count, wait=300)
        provider.wait(1, 60)
        connections = 0
        while provider.facts()["answered"] < count // 2 and drain.worker.poll() is None:
            connections = max(connections, _connections(drain.hand))
            time.sleep(1)
        facts = provider.wait(count, seconds=120, of=drain.worker)
        memory = peak_rss(drain.pid)
        ended = drain.hand.ask("settled")
        if ended["states"] != {"accepted": count} or facts["twice"]:
            raise ChildFailed(f"of {count} letters {ended['states']}, {facts['twice']} twice")
    rate = count / (facts["ended_at"] - facts["began_at"])
    goal: dict[str, Any] = {"target": 3000, "better": "more"} if slots > 3000 else {}
    return [
        Figure(name="peak", label=f"most in flight at once, {slots:,} slots", value=facts["peak"], **goal),
        Figure(
            name="rate",
            label="first call to last answer",
            value=rate,
            unit="mails/s",
            target=250 if goal else None,
            better="more",
        ),
        Figure(
            name="connections",
            label="database connections",
            value=connections,
            target=2,
            better="less",
            note="and one that listens" if connections == 3 else "",
        ),
        Figure(name="rss", label="peak memory", value=memory, unit="MiB", target=400, better="less"),
    ]


def _connections(hand: object) -> int:
    sql = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return int(hand.ask("query", sql=sql)["rows"][0][0])  # type: ignore[attr-defined]
