"""
Lines of JSON between the bench and its children, over their standard streams.

A child that loses its parent reads the end of its input and ends. Whatever else it prints goes
to its log.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

Handler = Callable[..., Mapping[str, Any] | None]


class ChildFailed(RuntimeError):
    """A child said no, said nothing in time, or is gone; the message ends with its last words."""


def serve(handlers: Mapping[str, Handler]) -> None:
    """Answer one line by one line until the input ends. Each handler takes what stands beside ``do``."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        wish = json.loads(line)
        try:
            answer = handlers[wish.pop("do")](**wish) or {}
        except Exception as error:  # noqa: BLE001 - said to the parent, which raises it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


class Child:
    """One process that serves. Leads a process group of its own, so that all of it can be ended."""

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], log: Path, start: float = 60
    ) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as words:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                env=dict(env),
                start_new_session=True,
            )
        self.first = self._read(start)
        """What it said when it was ready."""

    @property
    def pid(self) -> int:
        """The process, and its group."""
        return self.process.pid

    def ask(self, do: str, *, wait: float = 120, **wish: Any) -> dict[str, Any]:
        """Say *do* and return the answer; raises ChildFailed."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **wish}).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self._fail(f"{do}: it is gone")
        answer = self._read(wait)
        if "error" in answer:
            self._fail(f"{do}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End it, as its own input ends; kill it where it does not listen."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, wait: float) -> dict[str, Any]:
        assert self.process.stdout is not None
        deadline = time.monotonic() + wait
        # One answer, one line, read whole: nothing of a second one can wait in the buffer.
        ready, _, _ = select.select([self.process.stdout], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            self._fail(f"no answer in {wait:g} s")
        line = self.process.stdout.readline()
        if not line:
            self._fail("it ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _fail(self, what: str) -> None:
        words = self.log.read_text(errors="replace")[-1500:]
        raise ChildFailed(f"{self.log.stem}: {what}\n{words}")
