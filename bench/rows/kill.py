"""``kill -9`` in the middle, then a restart: what comes twice, what never comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench.engines import LABELS, NAMES, Engine, engine
from bench.results import Figure
from bench.rows import Options
from bench.stage import Provider, Stage, eventually, kill

LETTERS, AT = 120, 50
DELAY = 0.03
QUIET_SECONDS = 15
"""After so long without a call nothing more is expected of a daemon that still runs."""


def ask(stage: Stage, options: Options) -> list[Figure]:
    """Answer with duplicates, losses and remains of each engine."""
    found: list[Figure] = []
    with stage.provider() as provider:
        for name in NAMES:
            runs = [_run(name, stage, provider) for _ in range(1 if options.quick else 3)]
            ours = name == "postroom"
            label = LABELS[name]
            found.append(_figure(f"{name}_twice", f"{label}: came twice", [run[0] for run in runs], ours))
            found.append(_figure(f"{name}_lost", f"{label}: not sent", [run[1] for run in runs], ours))
            found.append(
                _figure(f"{name}_left", f"{label}: left behind in its tables", [run[2] for run in runs], ours)
            )
    return found


def _figure(name: str, label: str, runs: list[int], ours: bool) -> Figure:
    goal: dict[str, Any] = {"target": 0.0, "better": "less"} if ours else {}
    note = "each run: " + ", ".join(map(str, runs)) if len(runs) > 1 else ""
    return Figure(name=name, label=label, value=max(runs), samples=runs, note=note, **goal)


def _run(name: str, stage: Stage, provider: Provider) -> tuple[int, int, int]:
    with engine(name, stage, provider) as one:
        one.fill(LETTERS)
        provider.reset(delay=DELAY, keys=True)
        with one.sender() as process:
            eventually(lambda: provider.facts()["calls"] >= AT, 60, every=0.005)
            kill(process)
        again(one, provider)
        facts = provider.facts()
        return facts["twice"], LETTERS - facts["distinct"], one.left()


def again(one: Engine, provider: Provider) -> None:
    """Start the sender again and give it time until it has nothing more to say."""
    if not one.once:
        with one.sender():
            until_quiet(
                provider, QUIET_SECONDS, lambda: provider.facts()["distinct"] >= LETTERS and not one.left()
            )
        return
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline and one.left():
        with one.sender() as process:
            process.wait(timeout=60)
        time.sleep(0.5)


def until_quiet(provider: Provider, seconds: float, complete: Callable[[], bool]) -> None:
    calls, since = -1, time.monotonic()
    while not complete() and time.monotonic() - since < seconds:
        now = provider.facts()["calls"]
        if now != calls:
            calls, since = now, time.monotonic()
        time.sleep(0.2)
