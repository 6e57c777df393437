"""What a worker costs that has nothing to do."""

from __future__ import annotations

import time

from bench.provider import cpu_of
from bench.results import Figure
from bench.rows import Options
from bench.stage import Stage


def ask(stage: Stage, options: Options) -> list[Figure]:
    """Answer with its share of one processor, on each bell."""
    seconds = 12 if options.quick else 60
    file = stage.var / "idle.sqlite3"
    for left in file.parent.glob(f"{file.name}*"):
        left.unlink()
    with stage.provider() as provider:
        listening = stage.environment(provider, stage.database())
        looking = stage.environment(provider, f"sqlite:///{file}")
        with stage.hand(looking) as hand:
            hand.ask("migrate")
        with stage.worker(listening) as one, stage.worker(looking) as other:
            time.sleep(5)
            before = cpu_of([one.pid]), cpu_of([other.pid])
            time.sleep(seconds)
            used = [
                100 * (cpu_of([w.pid]) - was) / seconds for w, was in zip((one, other), before, strict=True)
            ]
    return [
        Figure(
            name=name,
            label=f"{label}, over {seconds} s",
            value=share,
            unit="% of a core",
            target=0.5,
            better="less",
        )
        for name, label, share in (
            ("notify", "PostgreSQL, NOTIFY", used[0]),
            ("data_version", "SQLite, data_version", used[1]),
        )
    ]
