"""
The supervisor's ear: what the home page's button asks it to do.

One order, ``kill-worker``, over the loopback interface; whoever gives it knows a token that only
the supervisor and its web process have.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

from example.loopback import LoopbackServer, call
from example.loopback import listen as listen_on

VARIABLE = "POSTROOM_CONTROL"
"""Environment variable with the URL, token included; set by the supervisor for the web process."""


def is_there() -> bool:
    """Whether a supervisor listens to this process."""
    return bool(os.environ.get(VARIABLE))


def kill_worker() -> int | None:
    """Have the supervisor kill the worker (``kill -9``); return its pid, None where there was none to kill."""
    try:
        _status, pid = call(os.environ.get(VARIABLE, "") + "kill-worker")
        return int(pid) or None
    except (OSError, ValueError):
        return None


def listen(kill: Callable[[], int]) -> str:
    """Serve in a thread and return the URL to set; *kill* kills the worker and returns its pid, else 0."""
    token = secrets.token_urlsafe(24)

    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            known = secrets.compare_digest(self.path.encode(), f"/{token}/kill-worker".encode())
            body = str(kill()).encode() if known else b""
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = LoopbackServer(listen_on(0), Ear)
    threading.Thread(target=server.serve_forever, name="control", daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/{token}/"
