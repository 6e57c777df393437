"""
A stand-in for Brevo on the loopback interface, with moods.

``python -m example.brevo --port 9123 --webhook http://user:password@127.0.0.1:8000/webhooks/brevo/tracking/``

Owns what Brevo does that matters to us: the answers of ``POST /v3/smtp/email``, idempotency keys
(30 min), rate headers, and reports by webhook. What it took is final the moment it has read the
request, whatever becomes of the answer; that is how e-mails come to be in doubt. It needs
nothing but Python. For people and tests:

``POST /_mood`` ``{"mood": "5xx", "next": 3}`` changes how it behaves · ``GET /_log`` lists every call.

Source: developers.brevo.com, "Send a transactional email", "Transactional webhooks" and
"Batch send" (idempotencyKey), read 2026-11.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import selectors
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

from example.loopback import LoopbackServer, listen
from example.moods import FOR_PEOPLE, MOODS, Mood
from example.reports import WEBHOOK, Hook, headers_of, key_of, metadata_of, report, say

KEY_LIVES_SECONDS = 30 * 60
"""How long Brevo remembers an idempotency key."""

ADDRESS = re.compile(r"[^@\s<>\",;:]{1,64}@[^@\s<>\",;:.]+(\.[^@\s<>\",;:.]+)+")
QUOTA = 1000


@dataclass(slots=True, kw_only=True)
class Call:
    """One line of ``/_log``: what was asked and what became of it."""

    number: int
    at: str
    key: str
    email: str
    """UUID of the outbox row, as our metadata names it."""

    to: list[str]
    subject: str
    outcome: str
    """``accepted``, the ``code`` of an error (``duplicate_parameter`` …), or how it kept silent (``hang``)."""

    accepted: bool
    status: int
    answered: bool | None = None
    """Whether the caller was still there to hear the answer; None: not yet known."""

    message_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error body and its status."""

    status: int
    code: str
    message: str


class Brevo:
    """The account at Brevo: keys, mood and log. Safe from any thread."""

    def __init__(self, base: Mood, hook: Hook) -> None:
        self.base = base
        self._mood, self._left = base, 0
        self._hook = hook
        self._keys: dict[str, float] = {}
        self._log: deque[Call] = deque(maxlen=100_000)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def change_mood(self, wish: Mapping[str, Any]) -> Mood:
        """Behave as *wish* says from now on, or for the ``next`` so many calls. ValueError: no such mood."""
        name = str(wish.get("mood", "default"))
        if name not in MOODS:
            raise ValueError(f"no mood {name!r}; there are {', '.join(MOODS)}")
        base = self.base if name == "default" else MOODS[name]
        known = {f.name for f in fields(Mood)}
        mood = replace(base, **{key: value for key, value in wish.items() if key in known})
        mood.check()
        with self._lock:
            self._mood, self._left = mood, int(wish.get("next", 0))
        say("mood", mood=name)
        return mood

    @property
    def mood(self) -> Mood:
        """The mood in force."""
        return self._mood

    def log(self) -> list[dict[str, Any]]:
        """Return every call so far, oldest first."""
        with self._lock:
            return [asdict(call) for call in self._log]

    def receive(self, payload: Any, api_key: str) -> tuple[Call, Mood, Refusal | None]:
        """Take or refuse one e-mail. What is taken here is taken, whether or not the answer arrives."""
        refusal = _refusal(payload, api_key)
        with self._lock:
            mood = self._next_mood()
            if refusal is None and not mood.accepts:
                refusal = Refusal(status=mood.status, code=mood.code or mood.answer, message=mood.message)
            refusal = refusal or self._duplicate(payload)
            call = self._note(payload, refusal)
        say("refused" if refusal else "took", email=call.email[:4], outcome=call.outcome)
        if call.accepted:
            self._report(payload, call, mood)
        return call, mood, refusal

    def _next_mood(self) -> Mood:
        mood = self._mood
        if self._left:
            self._left -= 1
            if not self._left:
                self._mood = self.base
        return mood

    def _duplicate(self, payload: Any) -> Refusal | None:
        used = self._keys.get(key_of(payload))
        if used is None or used < time.monotonic() - KEY_LIVES_SECONDS:
            return None
        return Refusal(status=400, code="duplicate_parameter", message="idempotencyKey was already used")

    def _note(self, payload: Any, refusal: Refusal | None) -> Call:
        given = payload if isinstance(payload, dict) else {}
        call = Call(
            number=next(self._numbers),
            at=datetime.now(UTC).isoformat(),
            key=key_of(payload),
            email=metadata_of(payload).get("postroom", ""),
            to=[str(to.get("email", "")) for to in _list(given.get("to")) if isinstance(to, dict)],
            subject=str(given.get("subject", "")),
            outcome=refusal.code if refusal else "accepted",
            accepted=refusal is None,
            status=refusal.status if refusal else 201,
        )
        if call.accepted:
            call.message_id = (
                f"<{datetime.now(UTC):%Y%m%d%H%M}.{uuid.uuid4().int % 10**11}@smtp-relay.mailin.fr>"
            )
            if call.key:
                self._keys[call.key] = time.monotonic()
        self._log.append(call)
        return call

    def _report(self, payload: Any, call: Call, mood: Mood) -> None:
        # "request" comes for what is blocked afterwards, too; it comes when the call is over.
        # The sandbox header is taken at its word: nothing sent, no webhooks.
        if not mood.report or headers_of(payload).get("x-sib-sandbox") == "drop":
            return
        for address in call.to:
            self._hook.tell(mood.seconds, report("request", address, payload, call.message_id))
            self._hook.tell(
                mood.seconds + mood.report_after, report(mood.report, address, payload, call.message_id)
            )


class Handler(BaseHTTPRequestHandler):
    """HTTP, nothing else."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def do_POST(self) -> None:
        """The one call of Brevo's API that we play, and the mood."""
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            # The caller died while it was speaking: nobody asked for anything, and nobody listens.
            self.close_connection = True
            return
        try:
            payload = json.loads(body)
        except ValueError:
            payload = None
        if self.path == "/v3/smtp/email":
            self._smtp_email(payload)
        elif self.path == "/_mood" and self.headers.get_content_type() == "application/json":
            # Only JSON: a foreign web page can post forms here, but not that.
            self._change_mood(payload)
        else:
            self._send(404, {"code": "document_not_found", "message": "Unknown path"})

    def do_GET(self) -> None:
        """``/_log`` and ``/_mood``."""
        if self.path == "/_log":
            self._send(200, self.server.brevo.log())
        elif self.path == "/_mood":
            names = {name: MOODS[name].label for name in FOR_PEOPLE}
            self._send(200, {"mood": asdict(self.server.brevo.mood), "moods": names})
        elif self.path == "/v3/smtp/email":
            self._send(405, {"code": "method_not_allowed", "message": "POST only"})
        else:
            self._send(404, {"code": "document_not_found", "message": "Unknown path"})

    def _change_mood(self, payload: Any) -> None:
        try:
            mood = self.server.brevo.change_mood(payload if isinstance(payload, dict) else {})
        except (TypeError, ValueError) as error:
            self._send(400, {"code": "invalid_parameter", "message": str(error)})
        else:
            self._send(200, {"mood": asdict(mood)})

    def _smtp_email(self, payload: Any) -> None:
        call, mood, refusal = self.server.brevo.receive(payload, self.headers.get("api-key", ""))
        if refusal and refusal.code != (mood.code or mood.answer):
            self._send(refusal.status, {"code": refusal.code, "message": refusal.message})
            call.answered = True
            return
        call.answered = self._caller_stays(mood.seconds if mood.answer != "hang" else 3600)
        if not call.answered or mood.answer in ("drop", "hang"):
            call.answered, self.close_connection = False, True
        elif mood.answer == "html":
            self._write(mood.status, b"<!doctype html><title>Welcome</title>", "text/html")
        elif mood.answer == "empty":
            self._write(mood.status, b"")
        elif mood.answer == "truncated":
            self._write(mood.status, json.dumps({"messageId": call.message_id}).encode()[:20])
        elif refusal:
            self._send(refusal.status, {"code": refusal.code, "message": refusal.message}, reset=mood.reset)
        elif mood.answer == "drip":
            call.answered = self._drip(json.dumps({"messageId": call.message_id}).encode())
        else:
            self._send(201, {"messageId": call.message_id})

    def _caller_stays(self, seconds: float) -> bool:
        """Wait; return False as soon as the caller has hung up."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, selectors.EVENT_READ)
            # Readable before the answer: an end of stream, since nobody pipelines here.
            return not selector.select(seconds)

    def _drip(self, body: bytes) -> bool:
        """Answer a byte a second, so that no read ever waits long; return whether the caller stayed to the end."""
        self.close_connection = True
        head = (
            f"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with suppress(OSError):
            for byte in head.encode() + body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if not self._caller_stays(1):
                    return False
            return True
        return False

    def _send(self, status: int, body: Any, *, reset: int = 60) -> None:
        self._write(status, json.dumps(body).encode(), reset=reset)

    def _write(self, status: int, body: bytes, kind: str = "application/json", *, reset: int = 60) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-sib-ratelimit-limit", str(QUOTA))
        self.send_header("x-sib-ratelimit-remaining", str(0 if status == 429 else QUOTA - 1))
        self.send_header("x-sib-ratelimit-reset", str(reset))
        with suppress(OSError):
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Say nothing: the lines of ``say()`` are the log."""


class Server(LoopbackServer):
    """The simulator's HTTP side."""

    def __init__(self, brevo: Brevo, listener: socket.socket | None = None) -> None:
        self.brevo = brevo
        super().__init__(listener or listen(0), Handler)


def _refusal(payload: Any, api_key: str) -> Refusal | None:
    """Return what Brevo finds wrong with a request, None where it finds nothing."""
    if not api_key:
        return Refusal(status=401, code="unauthorized", message="Key not found")
    if not isinstance(payload, dict):
        return _bad("bad_request", "Input must be a valid JSON object")
    sender, key = payload.get("sender"), key_of(payload)
    if not isinstance(sender, dict):
        return _bad("missing_parameter", "sender is missing")
    if not _is_mailbox(sender):
        return _bad("invalid_parameter", "valid sender email required")
    for name in ("to", "subject"):
        if not payload.get(name):
            return _bad("missing_parameter", f"{name} is missing")
    if not all(map(_is_mailbox, _list(payload["to"]) or [None])):
        return _bad("invalid_parameter", "email is not valid in to")
    if not payload.get("htmlContent") and not payload.get("textContent"):
        return _bad("missing_parameter", "htmlContent or textContent is missing")
    return _bad("invalid_parameter", "idempotencyKey must be a UUID") if key and not _is_uuid(key) else None


def _bad(code: str, message: str) -> Refusal:
    return Refusal(status=400, code=code, message=message)


def _is_mailbox(value: Any) -> bool:
    return isinstance(value, dict) and bool(ADDRESS.fullmatch(str(value.get("email", ""))))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def main(argv: list[str] | None = None) -> None:
    """Play Brevo until stopped."""
    parser = argparse.ArgumentParser(prog="python -m example.brevo", description="Plays Brevo, with moods.")
    parser.add_argument(
        "--port", type=int, default=9025, help="default 9025; 0: a free one, which is printed"
    )
    parser.add_argument("--fd", type=int, help="a socket that listens already, instead of a port")
    parser.add_argument(
        "--webhook",
        default=os.environ.get(WEBHOOK, ""),
        help=f"where reports go, with user:password@; or set {WEBHOOK}, which no list of processes shows",
    )
    parser.add_argument("--mood", default="default", choices=MOODS)
    parser.add_argument("--seconds", type=float, default=MOODS["default"].seconds)
    parser.add_argument("--report-after", type=float, default=MOODS["default"].report_after)
    chosen = parser.parse_args(argv)
    base = replace(MOODS["default"], seconds=chosen.seconds, report_after=chosen.report_after)
    brevo = Brevo(base, Hook(chosen.webhook))
    if chosen.mood != "default":
        brevo.change_mood({"mood": chosen.mood})
    server = Server(brevo, listen(chosen.port) if chosen.fd is None else socket.socket(fileno=chosen.fd))
    say("listening", port=server.server_port)
    with suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
