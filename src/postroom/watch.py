"""
Tells that a file has been written to without looking at it again and again: Linux's inotify.

Python's library has no such thing, so the two calls are made through ``ctypes``. Where there is none
(another system, no ctypes, no instance left for this user) a watch is simply off, and who holds it
has to look for himself.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import Any

IN_MODIFY = 0x2
"""Somebody wrote. Source: inotify(7), as are the flags of the descriptor: those of ``open``."""


class Watch:
    """
    A descriptor that is readable once a file it was shown has been written to, by any process of this host.

    Or deleted: then it says so once more, and nothing afterwards.
    """

    def __init__(self) -> None:
        self._descriptor = -1

    def show(self, path: str) -> bool:
        """
        Watch the file at *path*; False: nobody does.

        To be repeated now and then: what is watched is the file that lies there, not its name. A file
        that is watched already stays so.
        """
        libc = _libc()
        if libc and self._descriptor < 0:
            self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            return False
        return bool(libc.inotify_add_watch(self._descriptor, os.fsencode(path), IN_MODIFY) >= 0)

    def fileno(self) -> int:
        """Return the descriptor to wait for; below zero: there is none."""
        return self._descriptor

    def clear(self) -> None:
        """Forget what was written so far."""
        try:
            while os.read(self._descriptor, 65536):
                pass
        except OSError:
            pass  # nothing more to read

    def close(self) -> None:
        """Let go of the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@cache
def _libc() -> Any:
    """The C library of this process, or None where it cannot watch."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes  # which a Python may have been built without
    except ImportError:
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "inotify_init1") else None
