"""The loopback interface: which ports are free, who holds the others, a server that stays on it, and a caller."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

LISTENING = "0A"
LOOPBACK_V4 = re.compile(r"127(\.[0-9]+){3}")


def listen(port: int) -> socket.socket:
    """Return a socket that listens on *port* of 127.0.0.1 (0: a free one); OSError where it is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(512)
    except OSError:
        listener.close()
        raise
    return listener


def listen_near(port: int) -> socket.socket:
    """Return a socket on *port*, else on the next one above that is free; any free one where a hundred are taken."""
    for candidate in range(port, min(port + 100, 65536)):
        with suppress(OSError):
            return listen(candidate)
    return listen(0)


def port_of(listener: socket.socket) -> int:
    """Return the port on which a socket listens."""
    port: int = listener.getsockname()[1]
    return port


def holder(port: int) -> int | None:
    """Return the pid that listens on *port*; None where this machine does not tell (no /proc, not our process)."""
    sockets = _listening(port)
    for directory in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        if _open_files(directory) & sockets:
            return int(directory.name)
    return None


def _open_files(process: Path) -> set[str]:
    found = set()
    # A process that has ended, or is not ours; and in our own the listing itself is a file that is gone.
    with suppress(OSError):
        for link in (process / "fd").iterdir():
            with suppress(FileNotFoundError):
                found.add(str(link.readlink()))
    return found


def _listening(port: int) -> set[str]:
    found = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        rows = [line.split() for line in lines]
        found |= {f"socket:[{r[9]}]" for r in rows if r[3] == LISTENING and r[1].endswith(f":{port:04X}")}
    return found


def is_loopback(url: str) -> bool:
    """Whether *url* leads to this machine."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or bool(LOOPBACK_V4.fullmatch(host))


def call(
    url: str,
    body: bytes | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
    timeout: float = 5,
) -> tuple[int, bytes]:
    """Return status and body of an HTTP call that no proxy sees; OSError where nobody answers."""
    request = Request(url, body, dict(headers or {}), method=method)  # noqa: S310 - the shop's own URLs
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, b""


class LoopbackServer(ThreadingHTTPServer):
    """An HTTP server on 127.0.0.1, a thread a connection, on a socket that listens already."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, handler: Any) -> None:
        # Without http.server's own binding: its reverse DNS look-up can take seconds.
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = "127.0.0.1", port_of(listener)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up is nothing special."""
