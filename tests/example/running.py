"""The shop as a person starts it: ``python -m example`` with its processes, in a directory of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import requests

ROOT = Path(__file__).resolve().parent.parent.parent
T = TypeVar("T")
PATIENCE_SECONDS = 60
"""How long anything may take on a machine with much else to do; what takes as long is broken."""

PASSWORD = "copper lantern river walnut"
OURS = re.compile(
    r"(POSTROOM_|BREVO_|DJANGO_|CELERY_)|(PORT|DEBUG|SITE_URL|DATABASE_URL|EMAIL_URL|SECRET_KEY)$"
)


def environment(var: Path, **changes: str) -> dict[str, str]:
    """Return an environment as bare as a new user's, with everything written under *var*."""
    bare = {name: value for name, value in os.environ.items() if not OURS.match(name)}
    return {**bare, "VAR_DIR": str(var), "PYTHONPATH": str(ROOT / "src"), **changes}


def eventually(question: Callable[[], T], *, seconds: float = PATIENCE_SECONDS) -> T:
    """Return the first true answer; AssertionError when there is none in time."""
    until = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.1)
    return answer


class Shop:
    """A running shop, its terminal and its pids."""

    def __init__(self, var: Path, **changes: str) -> None:
        self.var = var
        self._terminal = var.parent / f"{var.name}.terminal"
        with self._terminal.open("ab") as out:
            self._began = out.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "example"],
                cwd=ROOT,
                env=environment(var, **changes),
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def terminal(self) -> str:
        """Everything that this start has printed."""
        return self._terminal.read_bytes()[self._began :].decode()

    def opens(self) -> Shop:
        """Wait until it says how to break it."""
        eventually(lambda: "kill -9" in self.terminal or self.process.poll() is not None)
        assert self.process.poll() is None, self.terminal
        return self

    def says(self, pattern: str, *, seconds: float = PATIENCE_SECONDS) -> re.Match[str]:
        """Wait for a line of the terminal."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, self.terminal)

        try:
            match = eventually(found, seconds=seconds)
        except AssertionError:
            raise AssertionError(f"{pattern!r} was not said:\n{self.terminal}") from None
        assert match
        return match

    def pid(self, name: str) -> int:
        """Return the pid that the terminal names."""
        return int(self.says(rf"{name} +pid (\d+)")[1])

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return self.says(r"shop +(http\S+)/")[1]

    def provider(self, path: str, wish: Any = None) -> Any:
        """Speak to the simulator."""
        simulator = re.search(r"BREVO_API_URL=(http://[^/]+)", (self.var / "running.env").read_text())
        assert simulator
        if wish is None:
            return requests.get(simulator[1] + path, timeout=PATIENCE_SECONDS).json()
        return requests.post(simulator[1] + path, json=wish, timeout=PATIENCE_SECONDS).json()

    def accepted(self) -> list[str]:
        """Return the ids of what the provider has taken, in order."""
        return [call["email"] for call in self.provider("/_log") if call["accepted"]]

    def has_settled(self) -> bool:
        """Whether nothing waits and nothing is in hand."""
        with closing(sqlite3.connect(self.var / "example.sqlite3", timeout=20)) as database:
            query = "SELECT COUNT(*) FROM postroom_outboundemail WHERE state IN ('pending', 'sending')"
            return bool(database.execute(query).fetchone()[0] == 0)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def ends(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for the end and return the exit code."""
        return self.process.wait(seconds)


class Visitor(requests.Session):
    """A browser without JavaScript."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.base = url
        self.address = f"ann-{os.urandom(4).hex()}@example.com"

    def page(self, path: str) -> requests.Response:
        """Open a page."""
        return self.get(self.base + path, timeout=PATIENCE_SECONDS)

    def submit(self, path: str, *, form_on: str | None = None, **values: str) -> requests.Response:
        """Send the form of the page at *form_on* (default: the same path)."""
        text = self.page(form_on or path).text
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', text)
        assert token, text
        return self.post(
            self.base + path, data={**values, "csrfmiddlewaretoken": token[1]}, timeout=PATIENCE_SECONDS
        )

    def registers(self) -> requests.Response:
        """Register with an address of its own."""
        return self.submit("/accounts/register/", email=self.address, password=PASSWORD)

    def status(self) -> dict[str, Any]:
        """Ask where the e-mail is."""
        told: dict[str, Any] = self.page("/accounts/api/check-email-status/").json()
        return told

    def mailbox(self) -> list[dict[str, Any]]:
        """Return the e-mails to this visitor, newest first."""
        found: list[dict[str, Any]] = self.get(
            f"{self.base}/mailbox/api/messages/", params={"to": self.address}, timeout=PATIENCE_SECONDS
        ).json()
        return found


@contextmanager
def open_shop(var: Path, **changes: str) -> Iterator[Shop]:
    """Open a shop for the length of the block, and leave nothing of it."""
    shop = Shop(var, **changes)
    try:
        yield shop.opens()
    finally:
        if shop.process.poll() is None:
            shop.process.kill()
        shop.process.wait()


def lives(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def manage(var: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run ``manage.py``."""
    return subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), *arguments],
        cwd=ROOT,
        env=environment(var, **changes),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def setting(var: Path, expression: str, **changes: str) -> Any:
    """Return the value of an expression over the settings, as another process reads them."""
    code = f"import json; from example import settings as s; print(json.dumps({expression}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(var, **changes),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    return json.loads(done.stdout)
