"""The questions. Each module asks one or a few; ``ROWS`` is the order in which they are asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from bench.results import Figure
from bench.stage import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much of everything."""

    quick: bool = False
    rounds: int = 0
    """Pairs of rounds; 0: what the row thinks right."""

    rows: int = 1_000_000
    """Finished rows of the row about the table's size."""

    profile: bool = False

    def pairs(self, full: int, quick: int) -> int:
        """Return how many pairs to run."""
        return self.rounds or (quick if self.quick else full)


LONG = ("in_flight", "backlog", "kill", "senders", "rates")
"""Rows that ``--quick`` leaves out unless they are asked for."""

Question = Callable[[Stage, Options], list[Figure]]

TITLES = {
    "drain": "postroom's worker against one Anymail backend kept open in a plain loop, provider at 0 ms, TLS",
    "latency": "the worker with a provider that takes 60 ms, against itself at 0 ms",
    "in_flight": "one process and a provider that takes 10 s, TLS with the system's authorities",
    "registration": "registration that queues a mail, against the same view with enqueue taken out",
    "addresses": "registration of a new address against a taken one, Argon2",
    "wake_up": "from commit to the provider's call, idle system",
    "enqueue": "putting letters into the outbox",
    "table": "claim and settle with many finished rows in the table, against 10,000",
    "backlog": "a backlog when the worker starts",
    "lanes": "urgent mails behind 100,000 bulk ones",
    "idle": "a worker with nothing to do",
    "kill": "kill -9 at about the 50th of 120 mails, then restart",
    "senders": "three senders at once, 300 mails",
    "rates": "mails a second with a provider that takes 0 ms, 60 ms, 2 s, 10 s",
}


def question(name: str) -> Question:
    """Return the function that answers *name*."""
    found: Question = import_module(f"bench.rows.{name}").ask
    return found
