"""Whether somebody who waits at a page waits behind the newsletter."""

from __future__ import annotations

import time

from bench.figures import percentile
from bench.letters import address
from bench.results import Figure
from bench.rows import Options
from bench.stage import Stage, eventually

BULK = 100_000
FIRST = 10_000_000


def ask(stage: Stage, options: Options) -> list[Figure]:
    """Answer with the time from commit to call of urgent mails, at a provider that takes 60 ms."""
    many = 15 if options.quick else 100
    with stage.provider() as provider:
        env = stage.environment(provider, stage.database())
        with stage.hand(env) as hand:
            hand.ask("grow", rows=BULK, state="pending", lane=2, wait=600)
            provider.reset(delay=0.06)
            with stage.worker(env):
                provider.wait(200, 60)
                committed = {}
                for number in range(FIRST, FIRST + many):
                    committed[number] = hand.ask("one", number=number, kind="urgent")["committed_at"]
                    time.sleep(0.1)
                wanted = {address(number) for number in committed}
                eventually(lambda: wanted <= provider.arrivals().keys(), 60, every=0.5)
            arrived = provider.arrivals()
    waits = [arrived[address(number)] - at for number, at in committed.items()]
    return [
        Figure(
            name="urgent", label=f"urgent behind {BULK:,} bulk, 95th percentile of {many}", value=percentile(waits, 0.95),
            unit="s", target=2, better="less", samples=[round(wait, 4) for wait in waits],
        )
    ]  # fmt: skip
