"""
The provider simulator's reports: Brevo's webhook, told from threads of its own and repeated as Brevo does.
"""

from __future__ import annotations

import base64
import heapq
import itertools
import json
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from example.loopback import call

WEBHOOK = "BREVO_WEBHOOK_URL"
"""Environment variable of the simulator alone: where reports go, with ``user:password@``."""

REPORT_RETRIES_SECONDS = (1.0, 5.0, 20.0, 60.0)
"""
Waits before the four repeats of a report, after no answer, a time-out or a 429 and nothing else.
Brevo waits 10 min, 1 h, 2 h and 8 h; here a person looks on.
"""

REASONS = {"blocked": "blocked : due to blocklist user", "hard_bounce": "550 5.1.1 no such user here"}


class Hook:
    """Tells our events to the customer's URL, from threads of its own, and again as Brevo does."""

    def __init__(self, url: str, retries: tuple[float, ...] = REPORT_RETRIES_SECONDS) -> None:
        self._url, self._authorization = _without_credentials(url)
        self._retries = retries
        self._due: list[tuple[float, int, int, dict[str, Any]]] = []
        self._tie = itertools.count()
        self._changed = threading.Condition()
        if url:
            self._ready: SimpleQueue[tuple[dict[str, Any], int]] = SimpleQueue()
            for run in (self._run, *[self._post_on] * 4):
                threading.Thread(target=run, name="hook", daemon=True).start()

    def tell(self, after: float, event: dict[str, Any], tried: int = 0) -> None:
        """Tell *event* in *after* seconds; without a URL nobody is told anything."""
        if self._url:
            with self._changed:
                heapq.heappush(self._due, (time.monotonic() + after, next(self._tie), tried, event))
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.monotonic():
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                _at, _tie, tried, event = heapq.heappop(self._due)
            self._ready.put((event, tried))

    def _post_on(self) -> None:
        while True:
            self._post(*self._ready.get())

    def _post(self, event: dict[str, Any], tried: int) -> None:
        now = time.time()
        event |= {"ts": int(now), "ts_event": int(now), "ts_epoch": int(now * 1000)} if not tried else {}
        headers = {"Content-Type": "application/json", **self._authorization}
        try:
            status, _body = call(self._url, json.dumps(event).encode(), headers=headers, timeout=10)
        except OSError:
            status = 0
        if status in (0, 429) and tried < len(self._retries):
            self.tell(self._retries[tried], event, tried + 1)
        elif status >= 300 or status == 0:
            say("report_lost", email=_short(event), event=event["event"], status=status)
        elif event["event"] != "request":
            say("reported", email=_short(event), event=event["event"])


def report(name: str, address: str, payload: Any, message_id: str) -> dict[str, Any]:
    """Return the body of one webhook: event *name* for *address*, with what the request had for us."""
    event: dict[str, Any] = {
        "event": name,
        "email": address,
        "id": 1,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
        "message-id": message_id,
        "subject": payload.get("subject", ""),
        "sending_ip": "127.0.0.1",
        "contact_id": 1,
    }
    if custom := headers_of(payload).get("x-mailin-custom"):
        event["X-Mailin-custom"] = custom
    if tags := payload.get("tags"):
        event |= {"tags": tags, "tag": json.dumps(tags)}
    if name in REASONS:
        event["reason"] = REASONS[name]
    return event


def headers_of(payload: Any) -> dict[str, str]:
    """Return the ``headers`` of the request's JSON, names in lower case."""
    given = payload.get("headers") if isinstance(payload, dict) else None
    return {str(k).lower(): str(v) for k, v in given.items()} if isinstance(given, dict) else {}


def key_of(payload: Any) -> str:
    """Return the idempotency key, empty where there is none."""
    return headers_of(payload).get("idempotencykey", "")


def metadata_of(payload: Any) -> dict[str, Any]:
    """Return what ``X-Mailin-custom`` carries."""
    with suppress(ValueError):
        found = json.loads(headers_of(payload).get("x-mailin-custom", ""))
        if isinstance(found, dict):
            return found
    return {}


def _short(event: dict[str, Any]) -> str:
    return str(metadata_of({"headers": event}).get("postroom", ""))[:4]


def _without_credentials(url: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(url)
    if not parts.username:
        return url, {}
    secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    token = base64.b64encode(secret.encode()).decode()
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return urlunsplit(bare), {"Authorization": f"Basic {token}"}


def say(event: str, /, **values: object) -> None:
    """Print one line in the form of postroom's own log; ids only, never an address."""
    told = " ".join(f"{name}={value}" for name, value in values.items())
    print(f"INFO postroom.provider {event} {told}", flush=True)
