"""Whether the time of the answer tells that an address has an account: a new one against a taken one."""

from __future__ import annotations

import itertools

from bench.figures import abba, bootstrap, paired_difference
from bench.results import Figure, figure
from bench.rows import Options
from bench.rows.registration import shop
from bench.stage import Stage


def ask(stage: Stage, options: Options) -> list[Figure]:
    """Answer with the difference and both times."""
    numbers = itertools.count()
    with shop(stage, delay=0.0) as child:
        child.ask("hash_with", argon2=True)

        def new() -> float:
            return float(child.ask("register", address=f"new{next(numbers)}@example.com")["ms"])

        def taken() -> float:
            return float(child.ask("register", address="new0@example.com")["ms"])

        new(), new(), taken()
        ours, theirs = abba(new, taken, options.pairs(60, 12))
    apart = paired_difference(ours, theirs)
    return [
        Figure(
            name="apart", label="median paired difference, either way", value=abs(apart.value),
            low=min(abs(apart.low), abs(apart.high)) if apart.low * apart.high > 0 else 0.0,
            high=max(abs(apart.low), abs(apart.high)), unit="ms", target=5, better="less",
        ),
        figure("new", "a new address", bootstrap(ours), ours, unit="ms"),
        figure("taken", "a taken one", bootstrap(theirs), theirs, unit="ms"),
    ]  # fmt: skip
