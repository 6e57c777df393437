"""
E-mails that are promised while something else happens.

Who promises notes what he was told: *acknowledged* is what was committed, *attempted* that of which
nobody knows, because the connection broke in the commit.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from django.db import Error, connections, transaction

from postroom import outbox
from postroom.models import OnUncertain
from tests.journeys.stage import ALIAS


@dataclass(kw_only=True)
class Feed:
    """
    Promises e-mails, evenly, in a thread of its own, and remembers which were acknowledged.

    *letters* in *seconds* and, at the same pace, more until it is *over*: what happens meanwhile may
    take longer than was thought, and should not happen to an empty outbox.
    """

    letters: int
    seconds: float
    seed: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    acknowledged: set[str] = field(default_factory=set)
    attempted: set[str] = field(default_factory=set)
    worst_seconds: float = 0
    """The longest that anybody waited for an enqueue."""

    def run(self) -> None:
        """Promise all that was planned, and go on until it is over."""
        draw = random.Random(self.seed + 1)
        began = time.monotonic()
        for number in count():
            time.sleep(max(0.0, began + self.seconds * number / self.letters - time.monotonic()))
            if number >= self.letters and self.over.is_set():
                break
            self._promise(number, draw)
        connections[ALIAS].close()

    def _promise(self, number: int, draw: random.Random) -> None:
        lane, fate = draw.choice(["urgent", "normal", "bulk"]), draw.random()
        repeat = OnUncertain.REPEAT if draw.random() < 0.5 else OnUncertain.HOLD
        name, began = "", time.monotonic()
        try:
            with transaction.atomic(using=ALIAS):
                args = {"number": number}
                email = outbox.enqueue("journey.hello", args, lane=lane, on_uncertain=repeat, using=ALIAS)
                name = str(email.uuid)
                if fate < 0.05:  # promised to nobody: its transaction is rolled back
                    transaction.set_rollback(True, using=ALIAS)
        except Error:
            self.attempted.add(name)
            connections[ALIAS].close()
        else:
            if fate >= 0.05:
                self.acknowledged.add(name)
        self.worst_seconds = max(self.worst_seconds, time.monotonic() - began)


@contextmanager
def beside(work: Any, over: threading.Event | None = None) -> Iterator[None]:
    """Run *work* in a thread beside the block; wait for its end."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        if over:
            over.set()
        thread.join()
    if raised:
        raise raised[0]
