"""
The brokers that tests need: real ones, and those that are there and do not answer.

Each has ports of its own and lives as long as its ``with`` block. Knows nothing of pytest or Django.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers import (
    Leash,
    ServerFailed,
    ServerMissing,
    account_for_servers,
    free_port,
    leashed,
    private_directory,
)

START_SECONDS = 90
"""How long a broker may take until it answers; RabbitMQ needs 15 on a loaded machine."""

HOST = "127.0.0.1"


@dataclass(kw_only=True)
class Redis:
    """A Redis that can be broken in the ways in which one breaks."""

    port: int
    directory: Path
    _life: ExitStack = field(default_factory=ExitStack)
    _pid: int = 0

    @property
    def url(self) -> str:
        """The value of ``CELERY_BROKER_URL``."""
        return f"redis://{HOST}:{self.port}/0"

    def start(self) -> None:
        """Start it, empty; it answers when this returns."""
        command = [
            "redis-server",
            "--port",
            str(self.port),
            "--bind",
            HOST,
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        leash = self._life.enter_context(leashed(command, self.directory, None, signal="KILL"))
        leash.let_go()
        _wait("Redis", self._answers, leash)
        self._pid = int(self.ask("info", "server")["process_id"])

    def kill(self) -> None:
        """SIGKILL it; the port is free when this returns."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._pid = 0
        self._life.close()

    def freeze(self) -> None:
        """Let it hang: the kernel still accepts connections for it, and nobody answers."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on where it stood."""
        if self._pid:
            os.kill(self._pid, signal.SIGCONT)

    def ask(self, command: str, *arguments: Any) -> Any:
        """Return its answer to one command, by the method's name in redis-py."""
        import redis

        with redis.Redis(host=HOST, port=self.port, socket_timeout=START_SECONDS) as client:
            return getattr(client, command)(*arguments)

    def _answers(self) -> bool:
        import redis

        with suppress(redis.RedisError):
            return bool(self.ask("ping"))
        return False


@contextmanager
def redis() -> Iterator[Redis]:
    """Run a Redis of one's own that keeps nothing; raises ServerMissing, ServerFailed."""
    if not shutil.which("redis-server"):
        raise ServerMissing("There is no Redis server on this machine: apt install redis-server")
    with private_directory(None) as directory:
        server = Redis(port=free_port(), directory=directory)
        try:
            server.start()
            yield server
        finally:
            server.kill()


def rabbitmq_server() -> Path | None:
    """Return RabbitMQ's own script: Debian's wrapper around it knows one directory and one node only."""
    for candidate in (Path("/usr/lib/rabbitmq/bin/rabbitmq-server"), shutil.which("rabbitmq-server")):
        if candidate and Path(candidate).exists():
            return Path(candidate)
    return None


@contextmanager
def rabbitmq() -> Iterator[str]:
    """
    Run a RabbitMQ of one's own and give its URL; raises ServerMissing, ServerFailed.

    Its name, its three ports, its cookie and its tables are its own, and so is the daemon that tells
    Erlang's nodes of each other: one that RabbitMQ began itself would outlive it.
    """
    program = rabbitmq_server()
    if program is None:
        raise ServerMissing("There is no RabbitMQ server on this machine: apt install rabbitmq-server")
    owner = account_for_servers("rabbitmq")
    with private_directory(owner) as directory, ExitStack() as life:
        port, names = free_port(), free_port()
        environment = _rabbitmq_environment(directory, port, names)

        def begin(name: str, *command: str) -> Leash:
            leash = life.enter_context(
                leashed(command, directory, owner, signal="KILL", name=name, env=environment)
            )
            leash.let_go()
            return leash

        _wait("epmd", lambda: _accepts(names), begin("epmd.log", "epmd", "-port", str(names)))
        _wait("RabbitMQ", lambda: _speaks_amqp(port), begin("rabbitmq.log", str(program)))
        yield f"amqp://guest:guest@{HOST}:{port}//"


def _rabbitmq_environment(directory: Path, port: int, names: int) -> dict[str, str]:
    nowhere = str(directory / "none")
    return {
        "PATH": f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin",
        "HOME": str(directory),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": HOST,
        "RABBITMQ_NODENAME": f"postroom-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": HOST,
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "logs"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        # Whatever this machine's own RabbitMQ is told.
        "RABBITMQ_CONF_ENV_FILE": nowhere,
        "RABBITMQ_CONFIG_FILE": nowhere,
        "RABBITMQ_ADVANCED_CONFIG_FILE": nowhere,
        # The script becomes Erlang instead of waiting for it, so that a signal meets Erlang.
        "RABBITMQ_ALLOW_INPUT": "1",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -kernel inet_dist_use_interface {127,0,0,1}",
    }


@contextmanager
def nobody() -> Iterator[str]:
    """Give the URL of a Redis that refuses: nobody listens there."""
    yield _as_url(free_port())


@contextmanager
def black_hole() -> Iterator[str]:
    """Give the URL of a Redis that accepts every connection and never says a word."""
    with socket.create_server((HOST, 0), backlog=200) as silent:
        yield _as_url(silent.getsockname()[1])


@contextmanager
def syn_drop() -> Iterator[str]:
    """
    Give the URL of a Redis behind a wall that drops what comes: connecting to it takes for ever.

    A queue of connections that is full does the same as such a wall: Linux drops the SYN, and the
    caller sends it again and again. Source: tcp(7), tcp_abort_on_overflow.
    """
    with ExitStack() as held:
        wall = held.enter_context(socket.socket())
        wall.bind((HOST, 0))
        wall.listen(0)
        for _ in range(8):
            one = held.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(wall.getsockname())
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if not probe.connect_ex(wall.getsockname()):
                raise ServerFailed("A full queue of connections still takes one more on this machine.")
        yield _as_url(wall.getsockname()[1])


def _as_url(port: int) -> str:
    return f"redis://{HOST}:{port}/0"


def _wait(name: str, is_up: Callable[[], bool], leash: Leash) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_up():
        if leash.has_ended() or time.monotonic() > deadline:
            words = leash.log.read_text(errors="replace")[-500:]
            raise ServerFailed(f"{name} did not start. Its last words: {words}")
        time.sleep(0.05)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return not probe.connect_ex((HOST, port))


def _speaks_amqp(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port), timeout=5) as probe:
        probe.sendall(b"AMQP\x00\x00\x09\x01")
        return len(probe.recv(1)) == 1
    return False
