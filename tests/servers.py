"""
The real servers that tests need, started on free ports in directories of their own.

Owns where their programs are found and how they end: each lives as long as its ``with`` block,
and dies with the test process however that ends. Brokers are in ``brokers``, by the same means.
Knows nothing of pytest or Django.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

START_SECONDS = 90
"""How long a server may take until it answers; a loaded machine needs many."""

CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
"""A browser that runs as root, phones nobody and finds no host but this machine."""

# Ends its child when its own standard input ends, which the death of the test process does, too;
# with the signal that was read from there, or else the one that was given.
_LEASH = (
    'signal=$1; shift; exec 3<&0; "$@" </dev/null & child=$!; '
    "read -r word <&3; kill -${word:-$signal} $child; wait $child"
)


class ServerMissing(LookupError):
    """A program is not installed here; the message names it and the package that has it."""


class ServerFailed(RuntimeError):
    """A server did not come up; the message ends with its last words."""


PORTS = os.environ.get("POSTROOM_TEST_PORTS", "20000-31999")
"""Where servers listen: below what the kernel takes for connections, which come and go by the thousand."""


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on now, none that was returned before."""
    first, last = map(int, PORTS.split("-"))
    while True:
        port = random.SystemRandom().randint(first, last)  # pytest seeds the other one
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given_out:
                _given_out.add(port)
                return port


_given_out: set[int] = set()


def postgresql_binaries() -> Path | None:
    """Return the folder of the newest PostgreSQL server on this machine, or None."""
    debian = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    newest = sorted(debian, key=lambda found: float(found.parent.parent.name), reverse=True)
    if newest:
        return newest[0].parent
    on_path = shutil.which("postgres")
    return Path(on_path).parent if on_path else None


def mariadb_server() -> Path | None:
    """Return the MariaDB server of this machine, or None."""
    found = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


def chromium_executable() -> str:
    """Return the browser's path; raises ServerMissing."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/bin"):
            return found
    raise ServerMissing("There is no Chromium on this machine: apt install chromium")


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running database server. Everybody on this machine may log in as *user* without a password."""

    port: int
    host: str = "127.0.0.1"
    user: str = ""
    scheme: str = ""
    _leash: Leash
    _numbers: Iterator[int] = field(default_factory=count)

    def stop(self, signal: str = "") -> None:
        """End it: every connection breaks, its data stays. *signal* as for ``kill``; else the quickest end."""
        self._leash.pull(signal)

    def start(self) -> None:
        """Start it on the same port and data; it answers when this returns."""
        self._leash.let_go()
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self._leash.has_ended() or time.monotonic() > deadline:
                words = self._leash.log.read_text(errors="replace")[-500:]
                raise ServerFailed(f"{type(self).__name__} did not start. Its last words: {words}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether it takes a connection now."""
        raise NotImplementedError

    def url(self, database: str) -> str:
        """Return the address of *database* as ``DATABASE_URL`` takes it."""
        return f"{self.scheme}://{self.user}@{self.host}:{self.port}/{database}"

    def new_name(self) -> str:
        """Return a name that no database of this server has."""
        return f"journey_{next(self._numbers)}"


@dataclass(frozen=True, kw_only=True)
class PostgreSQL(Server):
    """A running PostgreSQL."""

    user: str = "postgres"
    scheme: str = "postgres"

    def answers(self) -> bool:
        """Whether it takes a connection now."""
        import psycopg

        try:
            psycopg.connect(self.url("postgres"), connect_timeout=START_SECONDS).close()
        except psycopg.OperationalError:
            return False
        return True

    def create_database(self) -> str:
        """Make an empty database and return its URL. It ends with the server."""
        import psycopg

        name = self.new_name()
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)


@contextmanager
def postgresql(*, max_connections: int = 200) -> Iterator[PostgreSQL]:
    """Run a PostgreSQL of one's own, empty and without fsync; raises ServerMissing, ServerFailed."""
    binaries = postgresql_binaries()
    if binaries is None:
        raise ServerMissing("There is no PostgreSQL server on this machine: apt install postgresql")
    owner = account_for_servers()
    with private_directory(owner) as directory:
        _initialise(binaries, directory, owner)
        port = free_port()
        with leashed(_command(binaries, directory, port, max_connections), directory, owner) as leash:
            server = PostgreSQL(port=port, _leash=leash)
            server.start()
            yield server


@dataclass(frozen=True, kw_only=True)
class MariaDB(Server):
    """A running MariaDB whose time zone is +06:00."""

    user: str = "root"
    scheme: str = "mysql"

    def answers(self) -> bool:
        """Whether it takes a connection now."""
        import pymysql

        try:
            pymysql.connect(
                host=self.host, port=self.port, user=self.user, connect_timeout=START_SECONDS
            ).close()
        except pymysql.OperationalError:  # not that of pymysql.err, which Django imports a second time
            return False
        return True

    def create_database(self) -> str:
        """Make an empty database and return its URL. It ends with the server."""
        import pymysql

        name = self.new_name()
        with pymysql.connect(host=self.host, port=self.port, user=self.user) as connection:
            connection.cursor().execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return self.url(name)


@contextmanager
def mariadb(*, max_connections: int = 200) -> Iterator[MariaDB]:
    """
    Run a MariaDB of one's own, empty, without fsync and binary log, six hours east of Greenwich.

    Raises ServerMissing, ServerFailed.
    """
    program = mariadb_server()
    if program is None:
        raise ServerMissing("There is no MariaDB server on this machine: apt install mariadb-server")
    owner = account_for_servers("mysql")
    with private_directory(owner) as directory:
        port = free_port()
        _initialise_mariadb(directory, owner)
        command = [str(program), *_mariadb_options(directory, port, max_connections)]
        # What is committed is in the hands of the system: a killed server has it when it comes back.
        with leashed(command, directory, owner, signal="KILL") as leash:
            server = MariaDB(port=port, _leash=leash)
            server.start()
            yield server


def _initialise_mariadb(directory: Path, owner: str | None) -> None:
    flags = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
    # It starts a server, too: the tmpdir for the same reason as in _mariadb_options.
    paths = [f"--datadir={directory / 'data'}", f"--tmpdir={directory}"]
    _run_once(["mariadb-install-db", "--no-defaults", *paths, *flags], directory, owner)


def _run_once(command: list[str], directory: Path, owner: str | None) -> None:
    """Run what prepares a server; raises ServerFailed with its last words."""
    ran = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=directory, user=owner, group=owner
    )
    if ran.returncode:
        words = (ran.stdout + ran.stderr)[-500:]
        raise ServerFailed(f"{command[0]} ended with exit code {ran.returncode}. Its last words: {words}")


def _mariadb_options(directory: Path, port: int, max_connections: int) -> list[str]:
    options = {
        "datadir": directory / "data",
        # Not /tmp: a server that begins deletes there the temporary tables of all others.
        "tmpdir": directory,
        "socket": directory / "socket",
        "pid-file": directory / "pid",
        "bind-address": "127.0.0.1",
        "port": port,
        # Whatever asks the session for the time is six hours wrong, and some test sees it.
        "default-time-zone": "+06:00",
        "max-connections": max_connections,
        "innodb-flush-log-at-trx-commit": 2,
        "innodb-flush-method": "nosync",
        "innodb-doublewrite": 0,
        "innodb-buffer-pool-size": "64M",
    }
    return ["--no-defaults", "--skip-name-resolve", *(f"--{name}={value}" for name, value in options.items())]


def _initialise(binaries: Path, directory: Path, owner: str | None) -> None:
    flags = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    _run_once([str(binaries / "initdb"), "-D", str(directory / "data"), *flags], directory, owner)


def _command(binaries: Path, directory: Path, port: int, max_connections: int) -> list[str]:
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": "off",
        "max_connections": str(max_connections),
    }
    command = [str(binaries / "postgres"), "-D", str(directory / "data")]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    return command


def account_for_servers(name: str = "postgres") -> str | None:
    """Return the account *name* for a server that would refuse to run as root, where this process does."""
    return name if os.geteuid() == 0 else None


@contextmanager
def private_directory(owner: str | None) -> Iterator[Path]:
    """Give a directory that belongs to *owner*, and remove it."""
    # Not pytest's tmp_path: its parents are closed to other accounts.
    directory = Path(tempfile.mkdtemp(prefix="postroom-server-"))
    try:
        if owner:
            shutil.chown(directory, owner, owner)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Leash:
    """A command that runs from ``let_go`` to ``pull``, and no longer than this process."""

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        owner: str | None,
        signal: str,
        *,
        name: str = "log",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.log = directory / name
        self._command = ["sh", "-c", _LEASH, "sh", signal, *command]
        self._directory, self._owner, self._env = directory, owner, env
        self._process: subprocess.Popen[bytes] | None = None

    def let_go(self) -> None:
        """Run it."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env=self._env,
                user=self._owner,
                group=self._owner,
            )

    def pull(self, signal: str = "") -> None:
        """End it, with *signal* or its own one, and wait until it is gone."""
        if self._process:
            self._process.communicate(f"{signal}\n".encode())
            self._process = None

    def has_ended(self) -> bool:
        """Whether it ended by itself."""
        return self._process is None or self._process.poll() is not None


@contextmanager
def leashed(
    command: Sequence[str],
    directory: Path,
    owner: str | None,
    *,
    signal: str = "INT",
    name: str = "log",
    env: Mapping[str, str] | None = None,
) -> Iterator[Leash]:
    """Give a leash for *command*; with the block, or with this process, it ends by *signal*."""
    leash = Leash(command, directory, owner, signal, name=name, env=env)
    try:
        yield leash
    finally:
        leash.pull()
