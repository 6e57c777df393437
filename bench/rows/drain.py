"""
The worker against the practical limit: one Anymail backend, kept open, in a plain loop.

Both run all the time; a round is a bunch of letters, taken in turn. Rate and CPU are taken by the
provider between its call number WARM and the last, so that neither connecting nor waking counts.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench import profile
from bench.figures import abba, bootstrap, paired_ratio
from bench.results import Figure, figure
from bench.rows import Options
from bench.stage import Provider, Stage
from bench.talk import Child, ChildFailed

WARM = 100
CONCURRENCY = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """One round of one side."""

    rate: float
    cpu_ms: float


@dataclass(slots=True, kw_only=True)
class Drain:
    """A hot worker, the provider, and a hand that fills the outbox."""

    provider: Provider
    hand: Child
    worker: subprocess.Popen[bytes]
    sent: int = 0

    @property
    def pid(self) -> int:
        """The worker's process, and its group."""
        return self.worker.pid

    def round(self, count: int, delay: float = 0.0) -> Pace:
        """Fill the outbox with *count* letters and watch the worker; every one of them must be accepted."""
        self.provider.reset(delay=delay, watch=[self.pid], marks=[WARM, count])
        self.hand.ask("bulk", count=count, start=self.sent)
        self.sent += count
        facts = self.provider.wait(count, seconds=120, of=self.worker)
        ended = self.hand.ask("settled")
        if ended["left"] or ended["states"].get("accepted") != self.sent:
            raise ChildFailed(f"of {self.sent} letters {ended['states']}")
        if facts["twice"] or facts["distinct"] != count:
            raise ChildFailed(f"the provider counted {facts['distinct']} of {count}, {facts['twice']} twice")
        return pace(facts, count)


def pace(facts: dict[str, Any], count: int) -> Pace:
    """Return rate and CPU a mail between the two marks."""
    begin, end = facts["marks"]
    return Pace(
        rate=(count - WARM) / (end["at"] - begin["at"]),
        cpu_ms=(end["cpu"] - begin["cpu"]) / (count - WARM) * 1000,
    )


@contextmanager
def hot_worker(stage: Stage, provider: Provider, concurrency: int = CONCURRENCY) -> Iterator[Drain]:
    """Run a worker on a database of its own."""
    env = stage.environment(provider, stage.database(), POSTROOM_DOORBELL="notify")
    with stage.worker(env, "--concurrency", str(concurrency)) as worker, stage.hand(env) as hand:
        yield Drain(provider=provider, hand=hand, worker=worker)


def ask(stage: Stage, options: Options) -> list[Figure]:
    """Answer with the two ratios, and the figures they are made of."""
    count = 800
    with stage.provider() as provider, hot_worker(stage, provider) as drain:
        loop_env = stage.environment(provider)
        with stage.child([sys.executable, "-m", "bench.loop"], name="loop", env=loop_env) as loop:

            def plain() -> Pace:
                provider.reset(watch=[loop.pid], marks=[WARM, count])
                loop.ask("send", count=count)
                return pace(provider.wait(count), count)

            drain.round(count)
            plain()
            with profile.of(drain.pid, stage, wanted=options.profile):
                ours, theirs = abba(lambda: drain.round(count), plain, options.pairs(30, 4))
        written = drain.hand.ask("events")["types"]
    complete = all(written.get(kind) == drain.sent for kind in ("claimed", "accepted"))
    return _figures(ours, theirs, complete)


def _figures(ours: list[Pace], theirs: list[Pace], complete: bool) -> list[Figure]:
    rates = [p.rate for p in ours], [p.rate for p in theirs]
    costs = [p.cpu_ms for p in ours], [p.cpu_ms for p in theirs]
    note = "two events a mail, all written" if complete else "events are missing"
    return [
        figure("rate_ratio", "rate ÷ loop's", paired_ratio(*rates), target=1.5, better="more", note=note),
        figure("cpu_ratio", "CPU a mail ÷ loop's", paired_ratio(*costs), target=0.75, better="less"),
        figure("rate", "postroom_worker", bootstrap(rates[0]), rates[0], unit="mails/s"),
        figure("loop_rate", "Anymail in a loop", bootstrap(rates[1]), rates[1], unit="mails/s"),
        figure("cpu", "CPU of the worker", bootstrap(costs[0]), costs[0], unit="ms a mail"),
        figure("loop_cpu", "CPU of the loop", bootstrap(costs[1]), costs[1], unit="ms a mail"),
    ]
