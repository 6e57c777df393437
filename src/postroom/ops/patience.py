"""
Asking what may never answer, for a bounded time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from django.db import connections

T = TypeVar("T")


def within(seconds: float, ask: Callable[[], T]) -> T | None:
    """
    Return the answer of *ask*, or None when there is none after *seconds*; its exception is raised here.

    Asks from a thread with database connections of its own, because a server that hangs would
    hold the caller; a thread that hangs is left behind and ends with the process.
    """
    answers: list[T] = []
    errors: list[Exception] = []

    def ask_and_close() -> None:
        try:
            answers.append(ask())
        except Exception as error:  # noqa: BLE001 - carried over to the caller, who knows what to catch
            errors.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=ask_and_close, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    return answers[0] if answers else None
