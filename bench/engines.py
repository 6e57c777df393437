"""postroom and its peers behind one face: fill the outbox, start a sender, ask what is left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from bench.environments import environment, python_of
from bench.peers import PEERS, Peer
from bench.stage import ROOT, Provider, Stage
from bench.talk import Child

LABELS = {
    "postroom": "postroom",
    "post_office": "django-post-office",
    "mailer": "django-mailer",
    "reliable_outbox": "django-reliable-outbox",
    "celery_task": "the original's Celery task",
}
NAMES = tuple(LABELS)


@dataclass(slots=True, kw_only=True)
class Engine:
    """One of them on a database of its own."""

    name: str
    stage: Stage
    env: dict[str, str]
    command: list[str]
    once: bool
    hand: Child
    parts: ExitStack = field(default_factory=ExitStack)
    started: int = 0

    def fill(self, count: int, start: int = 0) -> None:
        """Put letters into its outbox, as fast as it takes them."""
        self.hand.ask("bulk" if self.name == "postroom" else "enqueue", count=count, start=start, wait=300)

    def put(self, count: int, start: int = 0) -> float:
        """Put letters into its outbox one at a time; return letters a second."""
        return count / float(self.hand.ask("enqueue", count=count, start=start)["seconds"])

    def left(self) -> int:
        """Return how many letters it says it has not sent."""
        if self.name == "postroom":
            return int(self.hand.ask("settled", seconds=0)["left"])
        return int(self.hand.ask("left")["count"])

    @contextmanager
    def sender(self, *more: str, host: str = "one") -> Iterator[subprocess.Popen[bytes]]:
        """Run its sender until the block ends. Two *hosts* share no lock file."""
        lock = str(
            self.stage.var
            / f"lock-{self.stage.run}-{self.env['BENCH_DATABASE_URL'].rpartition('/')[2]}-{host}"
        )
        with self.stage.process(
            [*self.command, *more], name=self.name, env={**self.env, "BENCH_LOCK": lock}
        ) as process:
            yield process


@contextmanager
def engine(name: str, stage: Stage, provider: Provider, **more: str) -> Iterator[Engine]:
    """Set *name* up on an empty database."""
    with ExitStack() as parts:
        made = (
            _postroom(stage, provider, parts, more)
            if name == "postroom"
            else _peer(PEERS[name], stage, provider, parts)
        )
        yield made


def _postroom(stage: Stage, provider: Provider, parts: ExitStack, more: dict[str, str]) -> Engine:
    env = stage.environment(provider, stage.database(), POSTROOM_LEASE_SECONDS="5", **more)
    command = [sys.executable, "manage.py", "postroom_worker"]
    hand = parts.enter_context(stage.hand(env))
    return Engine(name="postroom", stage=stage, env=env, command=command, once=False, hand=hand)


def _peer(peer: Peer, stage: Stage, provider: Provider, parts: ExitStack) -> Engine:
    python = environment(peer.name, peer.requirements, stage.var, python_of(peer.oldest_python))
    stage.peers |= {f"{LABELS[peer.name]} ({requirement})" for requirement in peer.requirements[3:4]}
    env = stage.environment(provider, stage.empty_database())
    del env["DJANGO_SETTINGS_MODULE"], env["DATABASE_URL"]
    env["PYTHONPATH"] = str(ROOT)
    env["BENCH_LOCK"] = "unused"
    if peer.broker:
        env["BENCH_BROKER_URL"] = parts.enter_context(stage.redis())
    module = [str(python), "-m", f"bench.peers.{peer.name}"]
    hand = parts.enter_context(stage.child([*module, "serve"], name=peer.name, env=env))
    hand.ask("migrate")
    return Engine(
        name=peer.name, stage=stage, env=env, command=[*module, *peer.sender], once=peer.once, hand=hand
    )
