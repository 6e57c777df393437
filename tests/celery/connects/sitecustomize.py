"""
Writes down to where a process connects, if ``CONNECTS_LOG`` names a file; Python imports this by itself.

The interpreter's own audit event, so that nothing in the process is replaced and no Python library is
left out: all that speak to brokers. libcurl, which carries the e-mails, passes it by.
"""

import os
import sys
from typing import Any


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        with open(os.environ["CONNECTS_LOG"], "a") as log:  # noqa: PTH123 - before anything else is imported
            log.write(f"{arguments[1]}\n")


if os.environ.get("CONNECTS_LOG"):
    sys.addaudithook(_note)
