"""
The processes of the shop: started in a session of their own, read line by line, ended for certain.

What a child prints goes into the supervisor's queue and, as it is, into a file. A child hears
no Ctrl-C of the terminal: the supervisor decides who stops when. It dies with the supervisor.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

from example.environment import BASE_DIR


@dataclass(frozen=True, slots=True)
class Line:
    """A child printed this."""

    child: Child
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A child has ended, and everything it printed has been read."""

    child: Child
    code: int


class Child:
    """One process. *arguments* are those of ``python``, *sockets* the descriptors that it inherits, *variables* its own."""

    def __init__(
        self,
        name: str,
        arguments: list[str],
        queue: SimpleQueue[Any],
        log: TextIO,
        sockets: tuple[int, ...] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.last_words: deque[str] = deque(maxlen=3)
        self.started_at = time.monotonic()
        # Called by the main thread only: the kernel counts the thread that started a child as its parent.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "example.follow", str(os.getpid()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            cwd=BASE_DIR,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": _python_path(), **(variables or {})},
            start_new_session=True,
            pass_fds=sockets,
        )
        self.pid = self._process.pid
        self._log = log
        self._reader = threading.Thread(target=self._read, args=(queue,), name=f"read {name}", daemon=True)
        self._reader.start()

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ask it to end (SIGTERM)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """``kill -9``."""
        self._signal(signal.SIGKILL)

    def end(self, seconds: float) -> None:
        """Ask it to end, wait, and kill it where it takes longer than *seconds*."""
        self.stop()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self._reader.join(1)

    def _signal(self, number: signal.Signals) -> None:
        if self.is_running():
            self._process.send_signal(number)

    def _read(self, queue: SimpleQueue[Any]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._log.write(f"{self.name}: {line}")
            self._log.flush()
            if line.strip():
                self.last_words.append(line.rstrip())
            queue.put(Line(self, line.rstrip("\n")))
        queue.put(Ended(self, self._process.wait()))


def how_it_ended(code: int) -> str:
    """Say how a process ended: ``died (SIGKILL)`` or ``ended with code 1``."""
    if code >= 0:
        return f"ended with code {code}"
    return f"died ({signal.Signals(-code).name})"


def _python_path() -> str:
    """Make ``example`` importable, and postroom where it is not installed."""
    paths = [str(BASE_DIR), str(BASE_DIR / "src"), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(path for path in paths if path)


def open_log(path: Path) -> TextIO:
    """Begin the file that keeps what the children print."""
    return path.open("w", encoding="utf-8")
