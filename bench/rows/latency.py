"""What a slow provider costs: the same worker at 60 ms and at 0 ms, in turn."""

from __future__ import annotations

from bench.figures import abba, bootstrap, paired_ratio
from bench.results import Figure, figure
from bench.rows import Options
from bench.rows.drain import hot_worker
from bench.stage import Stage


def ask(stage: Stage, options: Options) -> list[Figure]:
    """Answer with the ratio and both rates."""
    count = 800
    with stage.provider() as provider, hot_worker(stage, provider) as drain:
        drain.round(count, 0.06)
        slow, fast = abba(lambda: drain.round(count, 0.06), lambda: drain.round(count), options.pairs(20, 3))
    rates = [p.rate for p in slow], [p.rate for p in fast]
    return [
        figure("ratio", "rate at 60 ms ÷ rate at 0 ms", paired_ratio(*rates), target=0.9, better="more"),
        figure("slow", "60 ms", bootstrap(rates[0]), rates[0], unit="mails/s"),
        figure("fast", "0 ms", bootstrap(rates[1]), rates[1], unit="mails/s"),
    ]
