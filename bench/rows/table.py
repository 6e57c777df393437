"""Whether the past costs anything: claim and settle with many finished rows against 10,000 of them."""

from __future__ import annotations

from bench.figures import abba, bootstrap, paired_ratio
from bench.results import Figure, figure
from bench.rows import Options
from bench.stage import Stage

FEW = 10_000
COUNT = 400


def ask(stage: Stage, options: Options) -> list[Figure]:
    """Answer with the ratio of the two times."""
    many = min(options.rows, 100_000) if options.quick else options.rows
    small, large = (stage.environment(database=stage.database()) for _ in range(2))
    with stage.hand(small) as little, stage.hand(large) as big:
        for hand, rows in ((little, FEW), (big, many)):
            hand.ask("grow", rows=rows, state="accepted", wait=600)
        for hand in (little, big):
            hand.ask("claim_and_settle", count=COUNT)
        ours, theirs = abba(
            lambda: float(big.ask("claim_and_settle", count=COUNT)["ms"]),
            lambda: float(little.ask("claim_and_settle", count=COUNT)["ms"]),
            options.pairs(40, 8),
        )
    return [
        figure(
            "ratio",
            f"with {many:,} finished rows ÷ with {FEW:,}",
            paired_ratio(ours, theirs),
            target=1.2,
            better="less",
        ),
        figure("many", f"claim and settle, {many:,} rows", bootstrap(ours), ours, unit="ms a mail"),
        figure("few", f"claim and settle, {FEW:,} rows", bootstrap(theirs), theirs, unit="ms a mail"),
    ]
