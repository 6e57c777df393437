"""
Everything that a row is played on: servers, the provider, certificates, children, and their logs.

One ``Stage`` a run. Servers begin when a row first needs them and end with the run; each row gets
databases of its own.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.talk import Child, ChildFailed
from tests.servers import PostgreSQL, free_port, postgresql

ROOT = Path(__file__).resolve().parent.parent
SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


class Provider:
    """The provider's process, by the lines it understands."""

    def __init__(self, child: Child, port: int) -> None:
        self._child, self.port = child, port

    @property
    def pid(self) -> int:
        """Its process."""
        return self._child.pid

    def reset(self, **wish: Any) -> None:
        """Begin to count anew: ``delay`` seconds, ``keys`` honoured, ``watch`` groups at ``marks``."""
        self._child.ask("reset", **wish)

    def become(self, **changes: Any) -> None:
        """Change the behaviour and go on counting."""
        self._child.ask("become", **changes)

    def wait(
        self, calls: int, seconds: float = 120, of: subprocess.Popen[bytes] | None = None
    ) -> dict[str, Any]:
        """Return the facts once *calls* were answered; raises ChildFailed: not in time, or process *of* is gone."""
        deadline = time.monotonic() + seconds
        while True:
            left = max(deadline - time.monotonic(), 0)
            facts = self._child.ask("wait", wait=60, calls=calls, seconds=min(left, 5))
            if facts["answered"] >= calls or not left or (of and of.poll() is not None):
                break
        if facts["answered"] < calls:
            raise ChildFailed(f"the provider answered {facts['answered']} of {calls} calls in {seconds:g} s")
        return facts

    def watch(self, calls: int, seconds: float) -> dict[str, Any]:
        """Return the facts once *calls* were answered or the time is over, whichever comes first."""
        return self._child.ask("wait", wait=seconds + 30, calls=calls, seconds=seconds)

    def wait_until(self, instant: float) -> None:
        """Wait for an instant of the clock that all processes share."""
        time.sleep(max(instant - time.monotonic(), 0))

    def facts(self) -> dict[str, Any]:
        """Return the facts as they are."""
        return self._child.ask("facts")

    def arrivals(self) -> dict[str, float]:
        """Return when each address was first written to, on the clock that all processes share."""
        return self._child.ask("arrivals")["at"]  # type: ignore[no-any-return]


class Stage:
    """Owns what a run starts, and ends all of it."""

    def __init__(self, var: Path, *, quick: bool = False) -> None:
        self.var, self.quick = var, quick
        # Of this run alone: databases and children of every run have the same names, and a sender that
        # was killed in one would leave its lock to the next.
        self.run = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        self.logs = var / "logs" / self.run
        self.logs.mkdir(parents=True, exist_ok=True)
        self._open = ExitStack()
        self._numbers = itertools.count(1)
        self.peers: set[str] = set()
        """Names and versions of the peers that took part."""

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    @cached_property
    def postgresql(self) -> PostgreSQL:
        """A server of our own; it waits for no disk (fsync off), the same for every side."""
        return self._open.enter_context(postgresql())

    @cached_property
    def certificate(self) -> Path:
        """Key and certificate of the provider, made for this run."""
        pem = self.var / "provider.pem"
        key, cert = self.var / "provider.key", self.var / "provider.crt"
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ]
        command += [
            "-days",
            "30",
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1,DNS:localhost",
        ]
        command += [
            "-addext",
            "keyUsage=critical,digitalSignature,keyCertSign",
            "-keyout",
            str(key),
            "-out",
            str(cert),
        ]
        subprocess.run(command, check=True, capture_output=True)
        pem.write_text(key.read_text() + cert.read_text())
        pem.chmod(0o600)
        return pem

    @cached_property
    def bundle(self) -> Path:
        """The system's authorities and ours: what a process in production loads."""
        path = self.var / "authorities.pem"
        _ = self.certificate
        system = next((Path(name) for name in SYSTEM_BUNDLES if Path(name).exists()), None)
        authorities = system.read_text() if system else ""
        path.write_text(authorities + (self.var / "provider.crt").read_text())
        return path

    @contextmanager
    def provider(self, *, tls: bool = True) -> Iterator[Provider]:
        """Run a provider until the block ends."""
        command = [sys.executable, "-m", "bench.provider"]
        command += ["--certificate", str(self.certificate)] if tls else []
        with self.child(command, name="provider") as child:
            yield Provider(child, child.first["port"])

    def url(self, provider: Provider) -> str:
        """Return the address of the provider's API."""
        return f"https://127.0.0.1:{provider.port}/v3/"

    def environment(
        self, provider: Provider | None = None, database: str = "", **more: str
    ) -> dict[str, str]:
        """Return the environment of a child: nothing of the caller's but its PATH and HOME."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        given = {
            **kept,
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
            "PYTHONDONTWRITEBYTECODE": "",
            "REQUESTS_CA_BUNDLE": str(self.bundle),
            "SSL_CERT_FILE": str(self.bundle),
            "DJANGO_SETTINGS_MODULE": "bench.site.settings",
            "VAR_DIR": str(self.var / "site"),
        }
        if database:
            given |= {"DATABASE_URL": database, "BENCH_DATABASE_URL": database}
        if provider:
            given["BENCH_PROVIDER_URL"] = self.url(provider)
        return given | more

    @contextmanager
    def child(
        self, command: list[str], *, name: str, env: dict[str, str] | None = None, wait: float = 60
    ) -> Iterator[Child]:
        """Run a child that serves until the block ends."""
        log = self._log(name)
        with Child(command, env=env or self.environment(), log=log, start=wait) as child:
            yield child

    def hand(self, env: dict[str, str]) -> Any:
        """Run ``bench.site.hand``."""
        return self.child([sys.executable, "-m", "bench.site.hand"], name="hand", env=env)

    @contextmanager
    def process(
        self, command: list[str], *, name: str, env: dict[str, str]
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a process in a group of its own; SIGTERM ends it with the block, SIGKILL 30 s later."""
        log = self._log(name)
        with log.open("ab") as words:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                env=env,
                start_new_session=True,
                cwd=ROOT,
            )
        try:
            yield process
        finally:
            end(process)

    def worker(self, env: dict[str, str], *options: str) -> Any:
        """Run ``manage.py postroom_worker``."""
        return self.process(
            [sys.executable, "manage.py", "postroom_worker", *options], name="postroom_worker", env=env
        )

    @contextmanager
    def redis(self) -> Iterator[str]:
        """Run a Redis of our own until the block ends; give its URL."""
        port = free_port()
        command = [
            "redis-server",
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        with self.process(command, name="redis", env=self.environment()):
            eventually(lambda: _answers(port), seconds=20)
            yield f"redis://127.0.0.1:{port}/0"

    @cached_property
    def _template(self) -> str:
        """Name of a migrated database; others are copies of it."""
        url = self.postgresql.create_database()
        with self.hand(self.environment(database=url)) as hand:
            hand.ask("migrate")
        return url.rpartition("/")[2]

    def database(self) -> str:
        """Return the URL of a PostgreSQL database of postroom's tables, empty."""
        import psycopg

        name = f"bench_{next(self._numbers)}"
        template = self._template
        with psycopg.connect(self.postgresql.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return self.postgresql.url(name)

    def empty_database(self) -> str:
        """Return the URL of a PostgreSQL database without any table."""
        return self.postgresql.create_database()

    def _log(self, name: str) -> Path:
        return self.logs / f"{next(self._numbers):03d}-{name}.log"


def _answers(port: int) -> bool:
    """whether somebody listens on *port*"""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def end(process: subprocess.Popen[bytes], grace: float = 30) -> None:
    """End a process and its group."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=grace)
        except subprocess.TimeoutExpired:
            pass
    kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """``kill -9``: the process and its whole group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def peak_rss(pid: int) -> float:
    """Return the most memory that process *pid* has held at once, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def eventually(fact: Any, seconds: float = 60, every: float = 0.05) -> Any:
    """Return the first truth that *fact()* gives; raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not (found := fact()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {getattr(fact, '__doc__', '') or fact}")
        time.sleep(every)
    return found


def have(program: str) -> bool:
    """Whether *program* is on this machine."""
    return shutil.which(program) is not None
