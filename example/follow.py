"""
``python -m example.follow PARENT ARGUMENTS…``: become ``python ARGUMENTS…``, and end when PARENT does.

A supervisor that is killed cannot stop its children, so each of them asks the kernel (Linux) to be
killed with it. A separate program, because code between fork and exec is not safe where threads run.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Replace this process by the one that was asked for; its pid stays."""
    parent, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != int(parent):
            sys.exit("The process to follow has ended already.")
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606 - our own command


if __name__ == "__main__":
    main(sys.argv[1:])
