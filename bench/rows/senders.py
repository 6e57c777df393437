"""Three senders at once, as on three hosts: no lock file is shared."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from bench.engines import LABELS, NAMES, engine
from bench.results import Figure
from bench.rows import Options
from bench.rows.kill import until_quiet
from bench.stage import Provider, Stage

LETTERS = 300


def ask(stage: Stage, options: Options) -> list[Figure]:
    """Answer with the duplicates of each engine."""
    found: list[Figure] = []
    with stage.provider() as provider:
        for name in NAMES:
            twice, missing = _run(name, stage, provider)
            goal: dict[str, Any] = {"target": 0.0, "better": "less"} if name == "postroom" else {}
            note = f"{missing} not sent" if missing else ""
            found.append(
                Figure(name=name, label=f"{LABELS[name]}: came twice", value=twice, note=note, **goal)
            )
    return found


def _run(name: str, stage: Stage, provider: Provider) -> tuple[int, int]:
    with engine(name, stage, provider) as one:
        one.fill(LETTERS)
        provider.reset(delay=0.01, keys=False)
        with ExitStack() as parts:
            processes = [parts.enter_context(one.sender(host=str(host))) for host in range(3)]
            if one.once:
                for process in processes:
                    process.wait(timeout=120)
            else:
                until_quiet(provider, 8, lambda: provider.facts()["distinct"] >= LETTERS and not one.left())
        facts = provider.facts()
        return facts["twice"], LETTERS - facts["distinct"]
