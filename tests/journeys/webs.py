"""Web processes of a journey: they promise e-mails, and what they said is what has to be kept."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass

from tests.journeys.stage import Process, Stage, start


@dataclass(frozen=True, kw_only=True)
class Web:
    """A process that promises e-mails until it has promised enough, or is ended."""

    process: Process

    def promised(self) -> list[str]:
        """Return the UUIDs of the e-mails whose transactions it saw committed, so far."""
        return [line.split()[1] for line in self.process.said().splitlines() if line.startswith("promised ")]

    def finished(self) -> list[str]:
        """Wait for its end, see that nothing went wrong, and return what it promised."""
        assert self.process.ended() == 0, self.process.said()
        return self.promised()

    def ended(self) -> list[str]:
        """Let it promise no more, and return what it promised."""
        assert self.process.popen.poll() is None, self.process.said()
        self.process.signal(signal.SIGTERM)
        return self.finished()

    def times(self) -> list[float]:
        """Return the seconds that each promise took, the longest last."""
        lines = [line.split() for line in self.process.said().splitlines() if line.startswith("promised ")]
        return sorted(float(line[2]) for line in lines)


def start_web(
    stage: Stage, count: int, *, seconds: float = 0, lane: str = "normal", **environment: str
) -> Web:
    """Start a web process that promises *count* e-mails over *seconds*."""
    process = start(
        stage.folder / f"web-{len(stage.processes)}.log",
        [sys.executable, "-u", "-m", "tests.journeys.promising", str(count), str(seconds), lane],
        {**stage.environment, **environment},
    )
    stage.processes.append(process)
    return Web(process=process)


def start_endless_web(stage: Stage, **environment: str) -> Web:
    """
    Start one that promises twenty-five e-mails a second until it is ``ended()``.

    For accidents that need mail on its way: where the machine was slow, a web that had promised all it
    was asked for left them to happen to an outbox that was empty already.
    """
    return start_web(stage, 1_000_000, seconds=40_000, **environment)
