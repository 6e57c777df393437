"""A worker that starts before a mountain: when the first mail goes, and how much memory it takes."""

from __future__ import annotations

import time
from statistics import median

from bench.results import Figure
from bench.rows import Options
from bench.stage import Stage, peak_rss


def ask(stage: Stage, options: Options) -> list[Figure]:
    """Answer with the first mail, beside that of a worker with one mail to send, and the peak of memory."""
    many = min(options.rows, 100_000) if options.quick else options.rows
    seconds = 5 if options.quick else 20
    large = stage.environment(database=stage.database())
    small = stage.environment(database=stage.database())
    with stage.provider() as provider, stage.hand(large) as hand, stage.hand(small) as other:
        address = {"BENCH_PROVIDER_URL": stage.url(provider)}
        hand.ask("grow", rows=many, state="pending", wait=900)
        firsts: dict[str, list[float]] = {"large": [], "small": []}
        memory: list[float] = []
        for name in ("small", "large", "large", "small"):
            if name == "small":
                other.ask("enqueue", count=1)
            provider.reset()
            began = time.monotonic()
            with stage.worker({**(large if name == "large" else small), **address}) as worker:
                provider.wait(1, 60)
                firsts[name].append(provider.facts()["began_at"] - began)
                if name == "large":
                    time.sleep(seconds)
                    memory.append(peak_rss(worker.pid))
    delay = median(firsts["large"]) - median(firsts["small"])
    label = f"first of {many:,}, after that of a worker with one to send"
    return [
        Figure(name="first", label=label, value=delay, unit="s", target=1, better="less", samples=[firsts]),
        Figure(
            name="start",
            label="first mail after the start of the process",
            value=median(firsts["large"]),
            unit="s",
        ),
        Figure(
            name="rss",
            label=f"peak memory of the worker, {many:,} waiting",
            value=max(memory),
            unit="MiB",
            target=150,
            better="less",
            samples=memory,
        ),
    ]
