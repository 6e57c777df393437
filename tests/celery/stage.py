"""
The shop with Celery: ``celery -A example …`` as it is typed, a web process that enqueues, and who was first.

Everybody is a process of its own. The provider's log is the judge of what was sent; the events tell
whether a *drain* sent it, called by a ring, or the *step* of a worker, called by nobody.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db.models import Max
from django.utils import timezone

from postroom.models import DeliveryEvent, EventType, OutboundEmail, State, WorkerHeartbeat
from tests import servers
from tests.chaos.checker import judge, read
from tests.journeys.shop import close, shop_environment
from tests.journeys.stage import ALIAS, ROOT, Process, Stage, eventually, set_stage, start

CELERY = Path(sys.executable).parent / "celery"
CONNECTS = Path(__file__).parent / "connects"
STEP = "-celery"
"""How the name of a step ends; a drain has the bare name of its process."""

ASLEEP = """
from datetime import timedelta
from celery.beat import PersistentScheduler
from example.celery import app
scheduler = PersistentScheduler(app, schedule_filename=app.conf.beat_schedule_filename)
for entry in scheduler.schedule.values():
    entry.last_run_at -= timedelta(hours=2)
scheduler.close()
"""
"""What a beat writes down that was stopped two hours ago."""

PROMPT_SECONDS = 10.0
"""
More than any enqueue takes on a machine where nine processes share two cores, less than Celery's own
publish takes where a broker hangs. What waits for less than that is found by what it has *touched*.
"""


@dataclass(kw_only=True)
class Web:
    """A process of the site's that enqueues, with its bell: ``feed.py``, asked line by line."""

    popen: subprocess.Popen[str]
    uuids: list[str] = field(default_factory=list)
    """The e-mails whose transaction committed."""

    seconds: list[float] = field(default_factory=list)
    """How long each enqueue took, with its commit."""

    touched: set[str] = field(default_factory=set)
    """What of a broker's libraries and which sockets the enqueueing thread has used: should be empty."""

    def begin(self, count: int, *, pause: float = 0.0) -> None:
        """Begin to enqueue *count* e-mails with *pause* seconds between; ``finish()`` waits for the last."""
        assert self.popen.stdin
        self.popen.stdin.write(f"{count} {pause}\n")
        self.popen.stdin.flush()

    def finish(self) -> list[str]:
        """Return the UUIDs of the e-mails that were begun last."""
        assert self.popen.stdout
        answer = json.loads(self.popen.stdout.readline())
        self.uuids += answer["emails"]
        self.seconds += answer["seconds"]
        self.touched |= set(answer["touched"])
        return list(answer["emails"])

    def enqueue(self, count: int) -> list[str]:
        """Enqueue *count* e-mails and return their UUIDs."""
        self.begin(count)
        return self.finish()

    def assert_nobody_waited(self) -> None:
        """Assert that no enqueue was slowed by a broker, and that none has even spoken to one."""
        assert max(self.seconds) < PROMPT_SECONDS, sorted(self.seconds)[-5:]
        assert not self.touched, sorted(self.touched)

    def end(self) -> None:
        """Let it end as a process does that has nothing more to do."""
        if self.popen.poll() is None:
            self.popen.communicate(timeout=60)


@dataclass(kw_only=True)
class Office:
    """The shop, its provider, and whoever works there."""

    stage: Stage
    folder: Path
    environment: dict[str, str]
    processes: list[Process] = field(default_factory=list)
    webs: list[Web] = field(default_factory=list)

    def celery(self, words: str, *, broker: str = "", **environment: str) -> Process:
        """Start ``celery -A example WORDS``; it dies with this process."""
        log = self.folder / f"{words.partition(' ')[0]}-{len(self.processes)}.log"
        told = self._told(broker, {"CONNECTS_LOG": str(log.with_suffix(".connects")), **environment})
        process = start(log, [*_followed(str(CELERY), "-A", "example"), *words.split()], told)
        self.processes.append(process)
        return process

    def connects(self, process: Process) -> set[int]:
        """Return the ports to which Python has connected, or tried to, in *process* and its children."""
        log = process.log.with_suffix(".connects")
        lines = log.read_text().splitlines() if log.exists() else []
        return {int(port) for line in lines for port in re.findall(r"^\('[\w.:]+', (\d+)", line)}

    def beat(self, name: str, *, broker: str = "") -> Process:
        """Start ``celery -A example beat --loglevel=info``, on a machine where it was off for two hours."""
        machine = self.folder / name
        shutil.copytree(self._asleep(), machine)
        return self.celery("beat --loglevel=info", broker=broker, VAR_DIR=str(machine))

    def worker(self, words: str = "", *, broker: str = "", ready: bool = True, **environment: str) -> Process:
        """Start ``celery -A example worker --loglevel=info WORDS``; its step works when this returns."""
        process = self.celery(f"worker --loglevel=info {words}", broker=broker, **environment)

        def is_up() -> bool:
            assert process.popen.poll() is None, process.said()
            return (self.heart(process) is not None) and (not ready or " ready." in process.said())

        eventually("the worker is up", is_up)
        return process

    def run(self, words: str, *, broker: str = "", **environment: str) -> tuple[int, str]:
        """Return the exit code of ``celery -A example WORDS`` and what it said."""
        process = self.celery(words, broker=broker, **environment)
        return process.ended(), process.said()

    def heart(self, process: Process) -> WorkerHeartbeat | None:
        """Return the heartbeat of the step in *process*, if there is one."""
        return WorkerHeartbeat.objects.using(ALIAS).filter(pid=process.popen.pid, name__endswith=STEP).first()

    def web(self, *, broker: str = "", **environment: str) -> Web:
        """Start a process that enqueues."""
        with (self.folder / f"web-{len(self.webs)}.log").open("wb") as log:
            popen = subprocess.Popen(
                [sys.executable, "-m", "tests.celery.feed"],
                cwd=ROOT,
                env={**_inherited(), **self._told(broker, environment)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.webs.append(Web(popen=popen))
        return self.webs[-1]

    def times_done(self, process: Process, task: str) -> int:
        """Return how often the worker *process* has done *task*, by its log."""
        return len(re.findall(rf"Task {re.escape(task)}\[[\w-]+\] succeeded", process.said()))

    def stop(self, process: Process) -> None:
        """SIGTERM, as a deployment does it; a good end is part of what is promised."""
        process.signal(signal.SIGTERM)
        assert process.ended() == 0, process.said()

    def accepted(self, uuids: list[str]) -> bool:
        """Whether the outbox knows that the provider took all of these."""
        return self._rows(uuids, State.ACCEPTED) == len(uuids)

    def age(self, uuids: list[str]) -> float:
        """Return how long ago the last of these e-mails was enqueued, in seconds."""
        rows = OutboundEmail.objects.using(ALIAS).filter(uuid__in=uuids)
        last = rows.aggregate(last=Max("created_at"))["last"]
        return float((timezone.now() - last).total_seconds())

    def senders(self, uuids: list[str]) -> list[str]:
        """Return who claimed these e-mails first, by name."""
        claims = DeliveryEvent.objects.using(ALIAS).filter(type=EventType.CLAIMED, attempt=1)
        return list(claims.filter(email__uuid__in=uuids).values_list("worker", flat=True))

    def drained(self, uuids: list[str]) -> list[str]:
        """Return those who claimed some of these because it rang."""
        return [name for name in self.senders(uuids) if not name.endswith(STEP)]

    def stepped(self, uuids: list[str]) -> list[str]:
        """Return those who claimed some of these on their own clock."""
        return [name for name in self.senders(uuids) if name.endswith(STEP)]

    def judge(self) -> None:
        """Assert that every e-mail that anybody enqueued here was sent once, by the provider's log."""
        calls = self.stage.provider.calls()
        promised = [uuid for web in self.webs for uuid in web.uuids]
        judge(read(ALIAS, calls, acknowledged=frozenset(promised))).assert_sound()
        taken = sorted(call["email"] for call in calls if call["accepted"])
        assert taken == sorted(promised)

    def _asleep(self) -> Path:
        """Return a directory with the schedule of a beat that was stopped two hours ago."""
        folder = self.folder / "asleep"
        if not folder.exists():
            told = self._told("", {"VAR_DIR": str(folder)})
            process = start(self.folder / "asleep.log", _followed("-c", ASLEEP), told)
            assert process.ended() == 0, process.said()
        return folder

    def _rows(self, uuids: list[str], *states: str) -> int:
        return OutboundEmail.objects.using(ALIAS).filter(uuid__in=uuids, state__in=states).count()

    def _told(self, broker: str, environment: dict[str, str]) -> dict[str, str]:
        return {**self.environment, "CELERY_BROKER_URL": broker, **environment}


@contextmanager
def open_office(folder: Path, database_url: str) -> Iterator[Office]:
    """Open the shop with nobody in it; end whoever came."""
    with set_stage(folder, database_url) as stage:
        given: dict[str, Any] = shop_environment(folder, servers.free_port()) | {
            "DATABASE_URL": database_url.replace("sqlite:/", "sqlite://"),
            "BREVO_API_URL": stage.provider.url,
            "CELERY_RESULT_BACKEND": "",
            "PYTHONPATH": os.pathsep.join([str(CONNECTS), str(ROOT / "src"), str(ROOT)]),
        }
        office = Office(stage=stage, folder=folder, environment=given)
        try:
            yield office
        finally:
            close(office.processes)
            for web in office.webs:
                if web.popen.poll() is None:
                    web.popen.kill()
                web.popen.communicate()


def _followed(*arguments: str) -> list[str]:
    """Return the command of ``python ARGUMENTS`` that dies with this process."""
    return [sys.executable, "-m", "example.follow", str(os.getpid()), *arguments]


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
