"""
A provider that is faster than those who call it: ``POST /v3/smtp/email`` as Brevo answers it, over TLS.

One asyncio process, HTTP/1.1 kept alive, one protocol object a connection and no framework. It takes
a message the moment it has read it, answers after the delay that it was told, and keeps count: calls,
most in flight at once, what came twice. The harness talks to it over its standard streams::

    {"do": "reset", "delay": 0.06, "keys": true, "watch": 4711, "marks": [100, 1000]}
    {"do": "wait", "calls": 1000, "seconds": 60}

A *mark* is the number of a call at which it notes the time and the CPU that the watched process
group has used: rate and CPU a mail between two marks leave out everybody's beginning and end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import ssl
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

TO = re.compile(rb'"to":\s*\[\{[^]]*?"email":\s*"([^"]+)"')
KEY = re.compile(rb'"idempotencyKey":\s*"([^"]+)"')
LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
HANGS = -1.0
"""As a delay: take the message and never answer."""

TICKS = os.sysconf("SC_CLK_TCK")


class Books:
    """What was asked of the provider since the last reset."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.keys = False
        self.watch: list[int] = []
        self.marks: list[int] = []
        self.waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.connections = 0
        self.forget()

    def forget(self) -> None:
        """Begin to count anew."""
        self.calls = self.answered = self.refused = self.in_flight = self.peak = self.peak_connections = 0
        self.taken: Counter[bytes] = Counter()
        self.first: dict[bytes, float] = {}
        self.used_keys: set[bytes] = set()
        self.noted: dict[int, dict[str, Any]] = {}
        self.began_at = self.ended_at = 0.0

    def take(self, body: bytes) -> bool:
        """Note one message; False: its key was used before, and it is refused."""
        now = time.monotonic()
        self.calls += 1
        if self.calls == 1:
            self.began_at = now
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        if self.calls in self.marks:
            self.noted[self.calls] = {"at": now, "cpu": cpu_of(self.watch)}
        key = KEY.search(body) if self.keys else None
        if key:
            if key[1] in self.used_keys:
                self.refused += 1
                return False
            self.used_keys.add(key[1])
        to = TO.search(body)
        name = to[1] if to else b"?"
        self.taken[name] += 1
        self.first.setdefault(name, now)
        return True

    def over(self) -> None:
        """One call has been answered."""
        self.in_flight -= 1
        self.answered += 1
        self.ended_at = time.monotonic()
        for calls, future in self.waiting:
            if self.answered >= calls and not future.done():
                future.set_result(None)

    def facts(self) -> dict[str, Any]:
        """Everything that the harness reads."""
        twice = sum(count - 1 for count in self.taken.values())
        return {
            "calls": self.calls,
            "answered": self.answered,
            "refused": self.refused,
            "distinct": len(self.taken),
            "twice": twice,
            "peak": self.peak,
            "in_flight": self.in_flight,
            "connections": self.connections,
            "peak_connections": self.peak_connections,
            "began_at": self.began_at,
            "ended_at": self.ended_at,
            "marks": [self.noted.get(mark) for mark in self.marks],
        }


def cpu_of(groups: list[int]) -> float:
    """Return the CPU seconds that the living processes of *groups* (process groups) have used."""
    if not groups:
        return 0.0
    used = 0
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            fields = Path(f"/proc/{entry.name}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) in groups:
            used += int(fields[11]) + int(fields[12])
    return used / TICKS


class Connection(asyncio.Protocol):
    """One client. Requests that come together are answered in turn, each after its delay."""

    __slots__ = ("_books", "_buffer", "_loop", "_transport")

    def __init__(self, books: Books, loop: asyncio.AbstractEventLoop) -> None:
        self._books, self._loop = books, loop
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note one more."""
        self._transport = transport  # type: ignore[assignment]
        books = self._books
        books.connections += 1
        books.peak_connections = max(books.peak_connections, books.connections)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note one less; what it had in flight is taken all the same."""
        self._books.connections -= 1
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Take every request that is whole."""
        buffer = self._buffer + data if self._buffer else data
        while True:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                break
            length = LENGTH.search(buffer, 0, end + 2)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(buffer) < whole:
                break
            self._request(buffer[:end], buffer[end + 4 : whole])
            buffer = buffer[whole:]
        self._buffer = buffer

    def _request(self, head: bytes, body: bytes) -> None:
        if not head.startswith(b"POST /v3/smtp/email "):
            self._write(404, b'{"code":"not_found","message":"this provider knows one call"}')
            return
        books = self._books
        if books.take(body):
            status, answer = 201, b'{"messageId":"<%d.%d@bench.invalid>"}' % (os.getpid(), books.calls)
        else:
            status, answer = (
                400,
                b'{"code":"duplicate_parameter","message":"idempotencyKey was already used"}',
            )
        if books.delay > 0:
            self._loop.call_later(books.delay, self._answer, status, answer)
        elif books.delay == 0:
            self._answer(status, answer)

    def _answer(self, status: int, body: bytes) -> None:
        self._write(status, body)
        self._books.over()

    def _write(self, status: int, body: bytes) -> None:
        if self._transport is not None:
            self._transport.write(
                b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (status, len(body), body)
            )


class Desk:
    """What the harness may ask."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def reset(
        self,
        delay: float = 0.0,
        keys: bool = False,
        watch: list[int] | None = None,
        marks: list[int] | None = None,
    ) -> dict[str, Any]:
        """Begin to count anew, and behave so from now on."""
        books = self._books
        books.forget()
        books.delay, books.keys, books.watch, books.marks = delay, keys, watch or [], marks or []
        return {}

    async def become(self, **changes: Any) -> dict[str, Any]:
        """Change the behaviour and go on counting."""
        for name, value in changes.items():
            setattr(self._books, name, value)
        return {}

    async def wait(self, calls: int, seconds: float) -> dict[str, Any]:
        """Answer with the facts once so many calls were answered, or the time is over."""
        books = self._books
        if books.answered < calls:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            books.waiting = [(calls, future)]
            try:
                await asyncio.wait_for(future, seconds)
            except TimeoutError:
                pass
            books.waiting = []
        return books.facts()

    async def facts(self) -> dict[str, Any]:
        """Answer with the facts as they are."""
        return self._books.facts()

    async def arrivals(self) -> dict[str, Any]:
        """Answer when each address was first written to (CLOCK_MONOTONIC, which all processes share)."""
        return {"at": {name.decode(): at for name, at in self._books.first.items()}}


async def run(port: int, certificate: str) -> None:
    """Serve until the standard input ends."""
    loop = asyncio.get_running_loop()
    books = Books()
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    server = await loop.create_server(
        lambda: Connection(books, loop), "127.0.0.1", port, ssl=context, backlog=8192
    )
    desk = Desk(books)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    while line := await reader.readline():
        wish = json.loads(line)
        try:
            answer = await getattr(desk, wish.pop("do"))(**wish)
        except Exception as error:  # noqa: BLE001 - said to the harness, which raises it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def main() -> None:
    """Take the port and the certificate from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--certificate", default="", help="PEM file with key and certificate; none: no TLS")
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        import uvloop  # type: ignore[import-not-found, unused-ignore]

        uvloop.run(run(given.port, given.certificate))
    except ImportError:
        asyncio.run(run(given.port, given.certificate))


if __name__ == "__main__":
    main()
