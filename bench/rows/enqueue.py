"""What it costs to put a letter into the outbox: one at a time beside the peers, and many at once."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from bench.engines import LABELS, engine
from bench.figures import bootstrap, paired_ratio
from bench.results import Figure, figure
from bench.rows import Options
from bench.stage import Stage

SIDES = ("postroom", "post_office", "mailer", "reliable_outbox")
MANY = 10_000


def ask(stage: Stage, options: Options) -> list[Figure]:
    """Answer with the ratio to the best peer of each round, and the rates."""
    rounds, count = options.pairs(30, 6), 200
    rates: dict[str, list[float]] = {name: [] for name in SIDES}
    with ExitStack() as parts, stage.provider() as provider:
        engines = {name: parts.enter_context(engine(name, stage, provider)) for name in SIDES}
        for number in range(rounds + 1):
            for name in SIDES if number % 2 else reversed(SIDES):
                rate = engines[name].put(count)
                if number:
                    rates[name].append(rate)
        best = [max(rates[name][i] for name in SIDES[1:]) for i in range(rounds)]
        times = 3 if options.quick else 7
        hand = engines["postroom"].hand
        bulk = [hand.ask("bulk", count=MANY) for _ in range(times)]
        atomic = [MANY / hand.ask("enqueue", count=MANY, atomic=True)["seconds"] for _ in range(times)]
    found = [
        figure(
            "ratio",
            "one at a time ÷ the best peer of the round",
            paired_ratio(rates["postroom"], best),
            target=1.0,
            better="more",
        )
    ]
    found += [
        figure(name, LABELS[name], bootstrap(rates[name]), rates[name], unit="letters/s") for name in SIDES
    ]
    label = f"{MANY:,} one at a time in one transaction"
    found.append(figure("atomic", label, bootstrap(atomic), atomic, unit="letters/s"))
    return [*found, _bulk(bulk)]


def _bulk(many: list[dict[str, Any]]) -> Figure:
    """Return the rate of bulk_enqueue; a version that lacks it has no such rate, whatever took its place."""
    goal: dict[str, Any] = {"unit": "rows/s", "target": 10_000, "better": "more"}
    label = f"bulk_enqueue of {MANY:,}"
    if not all(answer["bulk"] for answer in many):
        return Figure(name="bulk", label=label, value=None, note="this version has no bulk_enqueue", **goal)
    rates = [MANY / answer["seconds"] for answer in many]
    return figure("bulk", label, bootstrap(rates), rates, **goal)
