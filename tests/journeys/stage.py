"""
The stage of a journey: a database, a provider and any number of workers, all real, all its own.

Everything that was started ends with the ``with`` block, by its own process id.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from django.core.management import call_command
from django.db import OperationalError, connections, transaction

from postroom.models import OutboundEmail
from tests import servers
from tests.journeys.site import database

ALIAS = "journey"
"""The database of the journey, as the test itself sees it."""

PATIENCE_SECONDS = 90
ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


def eventually(what: str, look: Callable[[], T], *, seconds: float = PATIENCE_SECONDS) -> T:
    """Return the first true answer of *look*; fail with *what* was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := look():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds} s")


@dataclass(kw_only=True)
class Process:
    """A child process with its log."""

    popen: subprocess.Popen[bytes]
    log: Path

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL it and wait until it is gone."""
        self.popen.kill()
        self.popen.wait(timeout=PATIENCE_SECONDS)

    def ended(self) -> int:
        """Wait for its end and return its exit code."""
        return self.popen.wait(timeout=PATIENCE_SECONDS)

    def said(self) -> str:
        """Return its log."""
        return self.log.read_text(errors="replace")


@dataclass(kw_only=True)
class Provider:
    """The simulator, and what it has to say about a run."""

    process: Process
    port: int

    @property
    def url(self) -> str:
        """The value of ``BREVO_API_URL``."""
        return f"http://127.0.0.1:{self.port}/v3/"

    def mood(self, name: str = "default", **wishes: Any) -> None:
        """Behave like that from now on."""
        data = json.dumps({"mood": name, **wishes}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/_mood", data, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=PATIENCE_SECONDS).close()

    def calls(self) -> list[dict[str, Any]]:
        """Return every call, oldest first."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/_log", timeout=PATIENCE_SECONDS) as answer:
            found: list[dict[str, Any]] = json.load(answer)
            return found

    def accepted(self) -> list[str]:
        """Return the UUID of every e-mail it took, once for each time it took it."""
        return [call["email"] for call in self.calls() if call["accepted"]]


@dataclass(kw_only=True)
class Stage:
    """What a journey has at hand."""

    folder: Path
    database_url: str
    provider: Provider
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)

    def worker(self, *arguments: str, **environment: str) -> Process:
        """Start a worker; when this returns it was up, and one that is to die may be dead already."""
        process = start(
            self.folder / f"worker-{len(self.processes)}.log",
            [sys.executable, "-u", "-m", "django", "postroom_worker", *arguments],
            {**self.environment, **environment},
        )
        self.processes.append(process)
        eventually(
            "it is up", lambda: "SIGTERM stops it" in process.said() or process.popen.poll() is not None
        )
        assert "SIGTERM stops it" in process.said(), process.said()
        return process

    def freeze(self, worker: Process) -> None:
        """SIGSTOP it, but not while it holds a lock: then whoever comes next would wait for it, too."""

        def frozen() -> bool:
            worker.signal(signal.SIGSTOP)
            if _nobody_holds_a_lock():
                return True
            worker.signal(signal.SIGCONT)
            return False

        eventually("the worker is frozen", frozen)

    def emails(self) -> dict[str, OutboundEmail]:
        """Return every row of the outbox by its UUID."""
        return {str(email.uuid): email for email in OutboundEmail.objects.using(ALIAS).all()}

    def all_settled(self) -> bool:
        """Whether no e-mail is left that a worker would touch."""
        return all(email.is_settled for email in self.emails().values())


def _nobody_holds_a_lock() -> bool:
    """Whether every row of the outbox can be changed now; on SQLite, whether anything can."""
    own = connections[ALIAS]
    if own.vendor == "sqlite":
        with closing(sqlite3.connect(own.settings_dict["NAME"], timeout=0.1, isolation_level=None)) as one:
            try:
                one.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            return True
    try:
        with transaction.atomic(using=ALIAS):
            return bool(OutboundEmail.objects.using(ALIAS).select_for_update(nowait=True))
    except OperationalError:
        return False


def start(log: Path, command: list[str], environment: dict[str, str]) -> Process:
    """Start *command* in the checkout, with its output in *log*."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    paths = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**inherited, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return Process(popen=popen, log=log)


def start_provider(folder: Path, *, webhook: str = "", seconds: float = 0.05) -> Provider:
    """Start the simulator on a free port."""
    port = servers.free_port()
    command = [sys.executable, "-m", "example.brevo", "--port", str(port), "--seconds", str(seconds)]
    process = start(folder / "provider.log", [*command, "--webhook", webhook], {})
    eventually("the provider listens", lambda: "listening" in process.said())
    return Provider(process=process, port=port)


@contextmanager
def set_stage(folder: Path, database_url: str) -> Iterator[Stage]:
    """Prepare an empty outbox and a provider; end whatever the journey started."""
    provider = start_provider(folder)
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.journeys.site",
        "JOURNEY_DATABASE": database_url,
        "JOURNEY_PROVIDER": provider.url,
    }
    stage = Stage(folder=folder, database_url=database_url, provider=provider, environment=environment)
    connections.databases[ALIAS] = connections.configure_settings({**_both(), ALIAS: database(database_url)})[
        ALIAS
    ]
    try:
        call_command("migrate", "postroom", database=ALIAS, verbosity=0)
        yield stage
    finally:
        for process in [*stage.processes, provider.process]:
            if process.popen.poll() is None:
                process.signal(signal.SIGCONT)
                process.kill()
        connections[ALIAS].close()
        del connections[ALIAS], connections.databases[ALIAS]


def _both() -> dict[str, Any]:
    return {"default": connections.databases["default"]}
