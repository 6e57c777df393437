"""
``python -m example.web FD``: the web process, on a socket that somebody else listens with.

The supervisor keeps the port for as long as it lives, so nobody else can take it between two
web processes, and who comes in between waits instead of being refused.
"""

from __future__ import annotations

import socket
import sys

import uvicorn


def main(descriptor: int) -> None:
    """Serve until SIGTERM. No access log: the path of a confirmation link is a secret."""
    config = uvicorn.Config(
        "example.asgi:application",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[socket.socket(fileno=descriptor)])
    if not server.started:
        sys.exit(3)


if __name__ == "__main__":
    main(int(sys.argv[1]))
