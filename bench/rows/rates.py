"""One sender and a provider that takes longer and longer: postroom and the peers, in turn."""

from __future__ import annotations

from bench.engines import LABELS, NAMES, Engine, engine
from bench.results import Figure
from bench.rows import Options
from bench.stage import Provider, Stage, eventually

DELAYS = {"0 ms": 0.0, "60 ms": 0.06, "2 s": 2.0, "10 s": 10.0}
SLOTS = {"0 ms": 200, "60 ms": 200, "2 s": 2000, "10 s": 3000}
"""--concurrency of postroom's worker. The others run as many as they come with: 5, 1, 4 and 4."""

PERIODS = 2
SECONDS = 8
"""Longest look at an engine with a fast provider."""


def ask(stage: Stage, options: Options) -> list[Figure]:
    """Answer with mails a second."""
    delays = ["0 ms", "60 ms", "2 s"] if options.quick else list(DELAYS)
    found: list[Figure] = []
    with stage.provider() as provider:
        for delay in delays:
            for name in NAMES:
                rate = _rate(name, stage, provider, delay)
                found.append(
                    Figure(
                        name=f"{name}_{delay.replace(' ', '_')}",
                        label=f"{delay}: {LABELS[name]}",
                        value=rate,
                        unit="mails/s",
                    )
                )
    return found


def _rate(name: str, stage: Stage, provider: Provider, delay: str) -> float:
    with engine(name, stage, provider) as one:
        ours = name == "postroom"
        quick = DELAYS[delay] < 1
        letters = (
            (4000 if ours else 2500 if delay == "0 ms" else 700)
            if quick
            else (PERIODS + 1) * (SLOTS[delay] if ours else 12)
        )
        one.fill(letters)
        provider.reset(delay=DELAYS[delay])
        with one.sender(*(["--concurrency", str(SLOTS[delay])] if ours else [])):
            return _until_empty(provider, letters) if quick else _periods(provider, one, DELAYS[delay])


def _until_empty(provider: Provider, letters: int) -> float:
    eventually(lambda: provider.facts()["answered"], 60)
    facts = provider.watch(letters, SECONDS)
    return float(facts["answered"]) / float(facts["ended_at"] - facts["began_at"])


def _periods(provider: Provider, one: Engine, delay: float) -> float:
    """Every slot begins once a period, so whole periods from the first call on are a fair window."""
    eventually(lambda: provider.facts()["calls"], 60)
    began = provider.facts()["began_at"]
    window = PERIODS * delay
    provider.wait_until(began + window)
    return float(provider.facts()["calls"]) / window
