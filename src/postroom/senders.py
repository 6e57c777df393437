"""
Two ways to have many sends in flight behind one seam: threads, and one asyncio loop.

Whoever sends is told ``start(prepared)``, which returns at once, and ``wait(ears, seconds)``, which
returns as soon as the worker may have something to do; what has ended comes out of ``finished()``.
The threads serve every mail backend. The loop serves Anymail's HTTP providers without a thread for
each send; which one a worker gets, ``senders_for`` decides.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from typing import Protocol

from postroom import carrier, delivery, mailers
from postroom.delivery import Prepared
from postroom.ears import DATA_VERSION_SECONDS, Ears
from postroom.ledger import Result
from postroom.models import OutboundEmail

logger = logging.getLogger("postroom")

SETTLE_AT_ONCE = 200
"""Most results written in one transaction: about 10 ms of write lock on SQLite."""

THREADS_AT_MOST = 200
"""More threads than this are more than any SMTP server wants connections, and contend for one lock."""

LINGER_SECONDS = 0.025
"""How long a result may wait for others to be settled with: one transaction for all of them."""


class Senders(Protocol):
    """Sends messages beside the worker's loop and reports how they ended."""

    def start(self, prepared: Prepared) -> None:
        """Send soon. The caller sees to it that there are never more than ``size`` in flight."""

    def abandon(self, email: OutboundEmail) -> None:
        """Give up waiting for the send of *email*: its slot is free, what it says later is still reported."""

    def finished(self) -> list[Result]:
        """Return what has ended since the last call, at most SETTLE_AT_ONCE of it."""

    def wait(self, ears: Ears, seconds: float, *, rings: bool = True) -> None:
        """Return when enough has ended, somebody rang, *ears* were woken, or after *seconds*."""

    def stop(self) -> None:
        """End. What is still in flight is given up."""


def senders_for(mailer: mailers.Mailer, size: int, ears: Ears) -> Senders:
    """Return what sends through *mailer*, up to *size* at once."""
    if mailer.carriable and carrier.is_available():
        return LoopSenders(size)
    return ThreadSenders(size, ears)


def too_many(backend_class: type, size: int) -> str:
    """Return why so many sends at once are too many for a mail backend of this class; empty: they are not."""
    http = mailers.speaks_http(backend_class)
    if size <= THREADS_AT_MOST or (http and carrier.is_available()):
        return ""
    name = f"{backend_class.__module__}.{backend_class.__qualname__}"
    return f"{size} sends at once are {size} threads, each with a connection of its own, for {name}."


def fewer(backend_class: type) -> str:
    """Return what to do about ``too_many``."""
    if mailers.speaks_http(backend_class):
        return 'pip install "django-postroom[brevo]": with pycurl and greenlet one thread sends them all.'
    return f"{THREADS_AT_MOST} or fewer; most SMTP servers take 10 to 50 connections. More processes share the work."


class ThreadSenders:
    """
    One thread a send in flight, begun when it is first needed.

    A send that outlives its time is replaced by one more thread; it reports late, and its own thread ends.
    """

    def __init__(self, size: int, ears: Ears) -> None:
        self._size, self._ears = size, ears
        self._work: queue.SimpleQueue[Prepared | None] = queue.SimpleQueue()
        self._done: deque[Result] = deque()
        self._threads = 0
        self._in_flight: set[tuple[int, int]] = set()
        """Attempts that a thread is at. Who takes one out, thread or ``abandon``, was first: only one of them can."""

    def start(self, prepared: Prepared) -> None:
        """Send soon, in another thread; at most ``size`` at once."""
        self._work.put(prepared)
        if self._threads < self._size:
            self._add_thread()

    def abandon(self, email: OutboundEmail) -> None:
        """Begin one more thread in the place of the one that hangs with *email*."""
        if self._take_out(email):
            self._add_thread()

    def finished(self) -> list[Result]:
        """Return what has ended since the last call, at most SETTLE_AT_ONCE of it."""
        return _take(self._done)

    def wait(self, ears: Ears, seconds: float, *, rings: bool = True) -> None:
        """Return when something has ended, somebody rang, or after *seconds*."""
        if not self._done:
            ears.wait(seconds, rings=rings)

    def stop(self) -> None:
        """Let the threads end when they have nothing in hand; those that hang die with the process."""
        for _ in range(self._threads):
            self._work.put(None)

    def _add_thread(self) -> None:
        self._threads += 1
        threading.Thread(target=self._run, name=f"postroom-sender-{self._threads}", daemon=True).start()

    def _run(self) -> None:
        is_replaced = False
        while not is_replaced and (prepared := self._work.get()) is not None:
            self._in_flight.add((prepared.email.pk, prepared.email.attempt))
            result = delivery.send(prepared)
            # A receiver of post_send may have used the database in this thread.
            delivery.close_connections()
            self._done.append(result)
            self._ears.wake()
            is_replaced = not self._take_out(prepared.email)
        mailers.close_all()

    def _take_out(self, email: OutboundEmail) -> bool:
        try:
            self._in_flight.remove((email.pk, email.attempt))
        except KeyError:
            return False
        return True


class LoopSenders:
    """
    One asyncio loop, which turns only while ``wait`` is called, in the worker's own thread.

    What it saves is threads and their memory: 3,600 sends in flight over TLS take 536 MiB and two
    database connections (docs/benchmarks.md, 2026-11).
    """

    def __init__(self, size: int) -> None:
        self._loop = carrier.new_loop(size)
        self._carrier = carrier.Carrier(size)
        self._done: deque[Result] = deque()
        self._oldest_done = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        mailers.carry_with(self._carrier)

    def start(self, prepared: Prepared) -> None:
        """Send soon: at the next ``wait``."""
        task = self._loop.create_task(self._send(prepared))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def abandon(self, email: OutboundEmail) -> None:
        """Nothing to do: a send that hangs holds neither a thread nor a slot."""

    def finished(self) -> list[Result]:
        """Return what has ended since the last call, at most SETTLE_AT_ONCE of it."""
        return _take(self._done)

    def wait(self, ears: Ears, seconds: float, *, rings: bool = True) -> None:
        """
        Let the loop turn until there is a batch to settle, somebody rang, or *seconds* are over.

        A batch is SETTLE_AT_ONCE results, or fewer when the first has waited for LINGER_SECONDS or
        nothing else is in flight.
        """
        if not self._tasks:
            if self._carrier.is_stale:
                self._loop.run_until_complete(self._carrier.close())
            if not self._done:
                ears.wait(seconds, rings=rings)
            return
        sources = ears.sources(rings=rings)
        for source in sources:
            self._loop.add_reader(source, self._loop.stop)
        try:
            self._turn_until(time.monotonic() + seconds, ears, rings=rings)
        finally:
            for source in sources:
                self._loop.remove_reader(source)
            ears.heard()

    def stop(self) -> None:
        """Give up what is in flight and close every connection."""
        for task in self._tasks:
            task.cancel()
        closing = self._loop.create_task(self._close())
        closing.add_done_callback(lambda _: self._loop.stop())
        while not closing.done():  # a timer of the last result may stop the loop once more
            self._loop.run_forever()
        self._loop.close()
        mailers.carry_with(None)

    def _turn_until(self, deadline: float, ears: Ears, *, rings: bool) -> None:
        """Turn the loop, at least once; on SQLite it is left now and then to ask for others' commits."""
        while True:
            left = max(deadline - time.monotonic(), 0)
            end = self._loop.call_later(min(left, DATA_VERSION_SECONDS), self._loop.stop)
            self._loop.run_forever()
            ended_early = end.when() > self._loop.time()
            end.cancel()
            if ended_early or self._is_ripe() or time.monotonic() >= deadline:
                return
            if rings and ears.somebody_committed():
                return

    def _is_ripe(self) -> bool:
        """Whether what has ended should be settled now."""
        if not self._done:
            return False
        waited = time.monotonic() - self._oldest_done
        return waited >= LINGER_SECONDS or len(self._done) >= SETTLE_AT_ONCE or not self._tasks

    async def _send(self, prepared: Prepared) -> None:
        result = await carrier.run(delivery.send, prepared)
        if not self._done:
            self._oldest_done = time.monotonic()
            self._loop.call_later(LINGER_SECONDS, self._loop.stop)
        self._done.append(result)
        if len(self._done) >= SETTLE_AT_ONCE or len(self._tasks) == 1:
            self._loop.stop()

    async def _close(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._carrier.close()


def _take(done: deque[Result]) -> list[Result]:
    return [done.popleft() for _ in range(min(len(done), SETTLE_AT_ONCE))]
