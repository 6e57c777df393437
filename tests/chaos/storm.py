"""
A storm: workers are killed at random moments while e-mails come in and the provider has its moods.

Real workers (forked ready-made, see ``forks``), a real database, the provider's simulator. A seed
draws every choice: whom to kill or freeze and when, what the provider does, which e-mails are
promised, which of their transactions are rolled back, which reports come. The same seed makes the same choices;
the machine decides how they fall together, so a seed that found something is a good one, not a proof.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.db import DatabaseError, connections

from postroom import outbox
from postroom.models import UNSETTLED, OutboundEmail
from tests.chaos.checker import Judgement, judge, read
from tests.journeys.feed import Feed, beside
from tests.journeys.stage import ALIAS, ROOT, Stage, eventually

SETTLE_WITHIN_SECONDS = 120
FREEZE_SECONDS = 2.5
"""Longer than the lease: whoever thaws has lost what he had in hand."""

MOODS: tuple[tuple[int, str, dict[str, Any]], ...] = (
    (50, "no-reports", {"seconds": 0.3}),
    (14, "takes-it-and-drops", {"seconds": 0.15, "report": ""}),
    (10, "429", {"seconds": 0.05, "reset": 1}),
    (10, "5xx", {"seconds": 0.05}),
    (8, "truncated", {"seconds": 0.1, "report": ""}),
    (4, "html", {"seconds": 0.05}),
    (4, "hangs", {"next": 3}),
)
"""(weight, mood, at most so: seconds are drawn)."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the storm shall be."""

    kills: int
    workers: int = 8
    mails: int = 0
    """Promised while the kills go on, and more at the same pace until the last; 0: twenty a kill."""

    seed: int = 0
    keyed: bool = True
    interval_seconds: float = 0.5
    """Between two kills, in the mean."""

    @property
    def letters(self) -> int:
        """How many e-mails are promised at least."""
        return self.mails or self.kills * 20


@dataclass(kw_only=True)
class Outcome:
    """What the storm was, and what is left of it."""

    plan: Plan
    judgement: Judgement
    kills: int
    freezes: int
    storm_seconds: float
    settle_seconds: float
    """From the last kill to the last e-mail settled; where the storm's own seconds end, these begin."""


class Workers:
    """The workers that are alive, behind the process that forks them."""

    def __init__(self, stage: Stage) -> None:
        self._folder = stage.folder
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.forks"],
            env=_environment(stage),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._count = 0
        self.alive: list[int] = []
        self._logs: dict[int, Path] = {}
        self.frozen: dict[int, float] = {}
        """Until when (monotonic)."""

        self.deserters: list[str] = []
        self._read()

    @property
    def pid(self) -> int:
        """Of the forking process."""
        return self._popen.pid

    def start(self) -> None:
        """Fork one more."""
        self._count += 1
        log = self._folder / f"storm-{self._count}.log"
        answer = self._ask(f"start {log}")
        self.alive.append(answer["pid"])
        self._logs[answer["pid"]] = log

    def kill(self, pid: int) -> None:
        """SIGKILL it."""
        self.alive.remove(pid)
        self.frozen.pop(pid, None)
        self._ask(f"kill {pid}")

    def freeze(self, pid: int) -> None:
        """SIGSTOP it for longer than a lease."""
        self._ask(f"freeze {pid}")
        self.frozen[pid] = time.monotonic() + FREEZE_SECONDS

    def thaw(self, *, all_of_them: bool = False) -> None:
        """SIGCONT those whose time has come."""
        for pid, until in list(self.frozen.items()):
            if all_of_them or until < time.monotonic():
                del self.frozen[pid]
                self._ask(f"thaw {pid}")

    def stop(self) -> list[int]:
        """SIGTERM them one after the other; return their exit codes."""
        self.thaw(all_of_them=True)
        for pid in self.alive:
            # The last one was forked a moment ago, and what is not up yet ends by any signal.
            log = self._logs[pid]
            eventually(f"{log} is up", lambda log=log: "SIGTERM stops it" in log.read_text(errors="replace"))
        codes = [self._ask(f"stop {pid}")["status"] for pid in self.alive]
        self.alive.clear()
        return codes

    def close(self) -> None:
        """End the forking process, and with it whatever it forked."""
        if self._popen.poll() is None:
            self._popen.communicate("quit\n", timeout=30)

    def said(self) -> dict[str, str]:
        """Every log by its name."""
        logs = self._folder.glob("storm-*.log")
        return {log.name: log.read_text(errors="replace") for log in logs}

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._popen.stdin is not None
        self._popen.stdin.write(line + "\n")
        self._popen.stdin.flush()
        answer = self._read()
        self.deserters += answer["ended"]
        return answer

    def _read(self) -> dict[str, Any]:
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        assert line, "the process that forks has died"
        answer: dict[str, Any] = json.loads(line)
        return answer


def _environment(stage: Stage) -> dict[str, str]:
    return {**os.environ, **stage.environment, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}


@dataclass(kw_only=True)
class Reports:
    """Tells the outbox what became of half of what the provider took, some of it twice, some early."""

    stage: Stage
    seed: int
    over: threading.Event = field(default_factory=threading.Event)
    _told: int = 0

    def run(self) -> None:
        """Report until the storm is over."""
        draw = random.Random(self.seed + 2)
        while not self.over.wait(0.2):
            calls = self.stage.provider.calls()
            for call in calls[self._told :]:
                if self.over.is_set():
                    break
                if call["accepted"] and draw.random() < 0.5:
                    kind = draw.choice(["delivered"] * 4 + ["bounced", "deferred"])
                    named = draw.random() < 0.5
                    self._tell(call, kind, named=named)
                    if draw.random() < 0.2:
                        self._tell(call, kind, named=named)
            self._told = len(calls)
        connections[ALIAS].close()

    def _tell(self, call: dict[str, Any], kind: str, *, named: bool) -> None:
        """As a provider does that gives back our name of the e-mail, or else only its own id."""
        try:
            outbox.note(
                OutboundEmail.objects.using(ALIAS).filter(uuid=call["email"]).first() if named else None,
                kind,
                occurred_at=datetime.now(UTC),
                message_id=call["message_id"],
                dedupe_key=f"{call['number']}-{kind}",
                using=ALIAS,
            )
        except DatabaseError:  # the provider would try again
            connections[ALIAS].close()


def rage(stage: Stage, plan: Plan) -> Outcome:
    """Let the storm go over *stage* and judge what is left."""
    stage.environment |= {
        "DJANGO_SETTINGS_MODULE": "tests.chaos.site",
        "JOURNEY_KEYS": "on" if plan.keyed else "off",
    }
    workers = Workers(stage)
    feed = Feed(letters=plan.letters, seed=plan.seed, seconds=plan.kills * plan.interval_seconds)
    reports = Reports(stage=stage, seed=plan.seed)
    try:
        for _ in range(plan.workers):
            workers.start()
        began = time.monotonic()
        with beside(reports.run, reports.over), beside(feed.run, feed.over):
            # From the last kill, to which the feed goes on: what is in hand then has to be settled.
            freezes, last_kill = _kill(stage, plan, workers)
            stage.provider.mood("no-reports", seconds=0)
        eventually("everything is settled", _all_settled, seconds=SETTLE_WITHIN_SECONDS)
        settled = time.monotonic()
        codes = workers.stop()
        judgement = _judge(stage, plan, workers, feed)
    finally:
        workers.close()
    for code in codes:
        if code != 0:
            judgement.complain(f"a worker answered SIGTERM with exit code {code}")
    return Outcome(
        plan=plan,
        judgement=judgement,
        kills=plan.kills,
        freezes=freezes,
        storm_seconds=last_kill - began,
        settle_seconds=settled - last_kill,
    )


def _kill(stage: Stage, plan: Plan, workers: Workers) -> tuple[int, float]:
    """Kill as often as planned, and freeze one now and then; return how often, and when the last kill began."""
    draw = random.Random(plan.seed)
    freezes, killed_at = 0, time.monotonic()
    for _ in range(plan.kills):
        time.sleep(draw.uniform(0.2, 1.8) * plan.interval_seconds)
        workers.thaw()
        if draw.random() < 0.6:
            _change_mood(stage, draw)
        if draw.random() < 0.12 and len(workers.frozen) < 2:
            # Never the last one, and not two of three: somebody has to work.
            awake = [pid for pid in workers.alive if pid not in workers.frozen]
            if len(awake) > 2:
                workers.freeze(draw.choice(awake))
                freezes += 1
        killed_at = time.monotonic()
        workers.kill(draw.choice(workers.alive))
        workers.start()
    workers.thaw(all_of_them=True)
    return freezes, killed_at


def _change_mood(stage: Stage, draw: random.Random) -> None:
    _, name, wishes = draw.choices(MOODS, [weight for weight, *_ in MOODS])[0]
    seconds = {"seconds": draw.uniform(0, wishes["seconds"])} if "seconds" in wishes else {}
    stage.provider.mood(name, **{**wishes, **seconds})


def _all_settled() -> bool:
    return not OutboundEmail.objects.using(ALIAS).filter(state__in=UNSETTLED).exists()


def _judge(stage: Stage, plan: Plan, workers: Workers, feed: Feed) -> Judgement:
    run = read(
        ALIAS,
        stage.provider.calls(),
        acknowledged=frozenset(feed.acknowledged),
        attempted=frozenset(feed.attempted),
        logs={**workers.said(), "provider": stage.provider.process.said()},
        keyed=plan.keyed,
    )
    judgement = judge(run)
    for deserter in workers.deserters:
        judgement.complain(f"worker: {deserter}")
    return judgement
