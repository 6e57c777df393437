"""How soon a committed mail is at the provider when nothing else happens."""

from __future__ import annotations

import random
import time

from bench.figures import percentile
from bench.letters import address
from bench.results import Figure
from bench.rows import Options
from bench.stage import Provider, Stage, eventually
from bench.talk import Child

POLL_SECONDS = 1.0


def ask(stage: Stage, options: Options) -> list[Figure]:
    """Answer with the 95th percentile of each bell."""
    many, polled = (10, 5) if options.quick else (60, 25)
    folder = stage.var / "wake_up.sqlite3"
    for left in folder.parent.glob(f"{folder.name}*"):
        left.unlink()
    cases = [
        ("notify", "NOTIFY (PostgreSQL)", stage.database(), "notify", many, 50.0),
        ("data_version", "data_version (SQLite)", f"sqlite:///{folder}", "none", many, 50.0),
        (
            "poll",
            f"poll every {POLL_SECONDS:g} s (PostgreSQL, no bell)",
            stage.database(),
            "none",
            polled,
            1050.0,
        ),
    ]
    return [_case(stage, *case) for case in cases]


def _case(stage: Stage, name: str, label: str, database: str, bell: str, many: int, target: float) -> Figure:
    with stage.provider() as provider:
        env = stage.environment(provider, database, POSTROOM_DOORBELL=bell)
        with stage.hand(env) as hand:
            if database.startswith("sqlite"):
                hand.ask("migrate")
            with stage.worker(env):
                provider.reset()
                hand.ask("one", number=0)
                eventually(lambda: provider.facts()["answered"] == 1)
                waits = [_one(provider, hand, number) for number in range(1, many + 1)]
    return Figure(
        name=name, label=f"{label}, 95th percentile of {many}", value=percentile(waits, 0.95), unit="ms",
        target=target, better="less", samples=[round(wait, 2) for wait in waits],
    )  # fmt: skip


def _one(provider: Provider, hand: Child, number: int) -> float:
    time.sleep(random.uniform(0.15, 0.4))
    committed_at = hand.ask("one", number=number)["committed_at"]
    provider.wait(number + 1, 20)
    return (provider.arrivals()[address(number)] - float(committed_at)) * 1000
