"""
The example shop as people meet it: provider, worker and web server, each a process of its own.

Started by environment variables alone, as anybody would, with a database and a folder of its own.
``Visitor`` is a browser without a screen, for what must be seen many times or all at once.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from tests import servers
from tests.journeys.stage import Process, Provider, eventually, start, start_provider

PASSWORD = "a sentence that nobody guesses"
PREPARE = "import django; django.setup(); from example import stock; stock.migrate(); stock.seed()"
SETTLED = {"accepted", "failed", "cancelled", "uncertain"}
LINK = re.compile(r"http://127\.0\.0\.1:\d+(/accounts/activate/[\w-]+/[\w-]+/)")


@dataclass(kw_only=True)
class Shop:
    """A shop that is open."""

    folder: Path
    environment: dict[str, str]
    provider: Provider
    processes: list[Process] = field(default_factory=list)
    visitors: list[Visitor] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return self.environment["SITE_URL"]

    @property
    def worker(self) -> Process:
        """The worker that was started last."""
        return next(one for one in reversed(self.processes) if one.log.name.startswith("worker"))

    def run(self, name: str, *arguments: str) -> Process:
        """Start ``python ARGUMENTS`` as one of the shop's processes; it dies with this one."""
        log = self.folder / f"{name}-{len(self.processes)}.log"
        command = [sys.executable, "-m", "example.follow", str(os.getpid()), *arguments]
        process = start(log, command, self.environment)
        self.processes.append(process)
        return process

    def start_worker(self) -> Process:
        """Start a worker; it is up when this returns."""
        process = self.run("worker", "manage.py", "postroom_worker")
        eventually("the worker is up", lambda: "SIGTERM stops it" in process.said() or process.popen.poll())
        return process

    @contextmanager
    def frozen_worker(self) -> Iterator[None]:
        """Freeze the worker, but not while it holds the one lock of SQLite: then the web would wait, too."""
        worker = self.worker

        def frozen() -> bool:
            worker.signal(signal.SIGSTOP)
            if self._is_writable():
                return True
            worker.signal(signal.SIGCONT)
            return False

        eventually("the worker is frozen", frozen)
        try:
            yield
        finally:
            worker.signal(signal.SIGCONT)

    def _is_writable(self) -> bool:
        with closing(sqlite3.connect(self.folder / "shop.sqlite3", timeout=0.1, isolation_level=None)) as one:
            try:
                one.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            return True

    def start_web(self) -> Process:
        """Start the web server, without waiting for it."""
        address = ["--host", "127.0.0.1", "--port", self.environment["PORT"]]
        return self.run("web", "-m", "uvicorn", "example.asgi:application", *address)

    def said(self) -> str:
        """Return all logs of all processes that ever were."""
        return "\n".join(process.said() for process in [*self.processes, self.provider.process])

    def visitor(self) -> Visitor:
        """Return somebody who has never been here."""
        self.visitors.append(Visitor(self.url))
        return self.visitors[-1]

    def tidy(self) -> None:
        """Make it a shop as any other again: somebody works, the provider is quick, nobody lingers."""
        for visitor in self.visitors:
            visitor.session.close()
        self.visitors.clear()
        self.provider.mood("instant")
        if self.worker.popen.poll() is not None:
            self.start_worker()

    def letters(self, address: str) -> list[dict[str, Any]]:
        """Return the e-mails to *address* from the mailbox, newest first."""
        with Visitor(self.url) as visitor:
            found: list[dict[str, Any]] = visitor.get(f"/mailbox/api/messages/?to={address}").json()
            return found

    def link(self, address: str) -> str:
        """Wait for an e-mail to *address* with a link to confirm, and return the link's path."""
        return eventually(f"a link for {address}", lambda: next(iter(self._links(address)), ""))

    def _links(self, address: str) -> list[str]:
        return [link for letter in self.letters(address) for link in LINK.findall(letter["text"])]

    def select(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a question to the shop's database, past Django."""
        url = self.environment["DATABASE_URL"]
        if url.startswith("sqlite"):
            with closing(sqlite3.connect(urlsplit(url).path[1:], timeout=20)) as connection:
                return connection.execute(sql).fetchall()
        if url.startswith("mysql"):
            import pymysql

            parts = urlsplit(url)
            at = {"host": parts.hostname, "port": parts.port, "user": parts.username}
            with pymysql.connect(**at, database=parts.path[1:]) as connection:
                cursor = connection.cursor()
                cursor.execute(sql)
                return list(cursor.fetchall())
        import psycopg

        with psycopg.connect(url) as connection:
            return connection.execute(sql.encode()).fetchall()

    def tables(self) -> list[str]:
        """Return the names of all tables."""
        if self.environment["DATABASE_URL"].startswith("sqlite"):
            sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        elif self.environment["DATABASE_URL"].startswith("mysql"):
            sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
        else:
            sql = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        return sorted(name for (name,) in self.select(sql))

    def states(self) -> list[str]:
        """Return the state of every e-mail."""
        return [state for (state,) in self.select("SELECT state FROM postroom_outboundemail")]

    def all_settled(self) -> bool:
        """Whether no e-mail is left that a worker would touch."""
        return SETTLED.issuperset(self.states())

    def accepted(self, address: str) -> int:
        """Return how many e-mails to *address* the provider took."""
        return sum(call["accepted"] for call in self.calls(address))

    def calls(self, address: str) -> list[dict[str, Any]]:
        """Return the provider's calls about *address*, oldest first."""
        return [call for call in self.provider.calls() if address in call["to"]]


class Visitor:
    """A browser without a screen or scripts: cookies, and forms with the token of their page."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Ask for one page; redirects are answers."""
        options = {"timeout": 60, "allow_redirects": False, **options}
        with self.session.request(method, self.url + path, **options) as response:
            return response

    def get(self, path: str, **options: Any) -> requests.Response:
        """Ask for a page."""
        return self.request("GET", path, **options)

    def open(self, path: str) -> requests.Response:
        """Ask for a page and follow where it leads."""
        return self.get(path, allow_redirects=True)

    def post(self, path: str, *, page: str = "", **fields: str) -> requests.Response:
        """Send the form of *page* (empty: the one at *path* itself)."""
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.open(page or path).text)
        fields["csrfmiddlewaretoken"] = token[1] if token else ""
        return self.request("POST", path, data=fields)

    def register(self, address: str, password: str = PASSWORD) -> requests.Response:
        """Send the form of the registration."""
        return self.post("/accounts/register/", email=address, password=password)

    def login(self, address: str, password: str = PASSWORD) -> requests.Response:
        """Send the form of the login."""
        return self.post("/accounts/login/", username=address, password=password)

    def confirm(self, link: str, **fields: str) -> requests.Response:
        """Open the link of an e-mail, and send the form behind it."""
        return self.post("/accounts/activate/", page=link, **fields)

    def status(self) -> dict[str, Any]:
        """Return what the waiting page is told."""
        answer: dict[str, Any] = self.get("/accounts/api/check-email-status/").json()
        return answer

    def waits_for(self, detail: str) -> dict[str, Any]:
        """Ask until the e-mail is there, and return the answer."""
        return eventually(
            f"the status is {detail}", lambda: (a := self.status()) and a["detail"] == detail and a
        )


@contextmanager
def open_shop(
    folder: Path, *, database_url: str = "", worker: bool = True, **environment: str
) -> Iterator[Shop]:
    """Open a shop in *folder*; close it with everything that was started."""
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    hook = f"http://hook:secret@127.0.0.1:{port}/webhooks/brevo/tracking/"
    provider = start_provider(folder, webhook=hook)
    given = shop_environment(folder, port) | {
        "DATABASE_URL": database_url or f"sqlite:///{folder / 'shop.sqlite3'}",
        "SITE_URL": url,
        "BREVO_API_URL": provider.url,
        **environment,
    }
    shop = Shop(folder=folder, environment=given, provider=provider)
    try:
        prepared = shop.run("prepare", "-c", PREPARE)
        assert prepared.ended() == 0, prepared.said()
        web = shop.start_web()
        if worker:
            shop.start_worker()
        eventually("the shop answers", lambda: _answers(shop.url) or web.popen.poll())
        yield shop
    finally:
        for visitor in shop.visitors:
            visitor.session.close()
        close([*shop.processes, provider.process])


def shop_environment(folder: Path, port: int) -> dict[str, str]:
    """Return variables for a shop of its own, whatever stands in a ``.env`` beside the code."""
    nothing = ("BREVO_API_KEY", "BREVO_API_URL", "EMAIL_URL", "ALLOWED_HOSTS", "SITE_URL", "DATABASE_URL")
    return dict.fromkeys(nothing, "") | {
        "DJANGO_SETTINGS_MODULE": "example.settings",
        "PORT": str(port),
        "DEBUG": "on",
        "VAR_DIR": str(folder),
        "SECRET_KEY": "of one journey and of nothing else, long enough for every check",
        "BREVO_WEBHOOK_SECRET": "hook:secret",
        "DEFAULT_FROM_EMAIL": "Factors <shop@example.com>",
        "TIME_ZONE": "UTC",
        "POSTROOM_LEASE_SECONDS": "5",
        "POSTROOM_POLL_INTERVAL_SECONDS": "0.2",
        "POSTROOM_BACKOFF_BASE_SECONDS": "0.5",
        "POSTROOM_ACCOUNTS_LIMITS": "off",
    }


def close(processes: list[Process]) -> None:
    """End what still runs."""
    for process in processes:
        if process.popen.poll() is None:
            process.signal(signal.SIGCONT)
            process.kill()


def _answers(url: str) -> bool:
    try:
        with Visitor(url) as visitor:
            return visitor.get("/healthz/live").status_code == 200
    except requests.ConnectionError:
        return False
