"""
Whether the doorbell can be rung now, asked beside the database and for a bounded time.

Its broker may hang, and so may DNS, which no time-out of a socket covers. To load the broker's library
can take a second, and says nothing about the broker: that time is not counted against it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from postroom import doorbell
from postroom.failures import redact
from postroom.ops.words import duration

PATIENCE_SECONDS: Final = 1.2

LOADING_SECONDS: Final = 1.5
"""Whoever has not even begun to ask after so long, says nothing."""

PREPARE: Final = "postroom.tasks.bell_to_try"
"""A path, because this module must not need Celery."""


def ask(alias: str) -> Callable[[], str]:
    """
    Begin to ask the broker; the answer comes from what is returned, which waits for it.

    A sentence about why nobody can be rung for; empty where the bell works, or needs no broker.
    """
    if doorbell.kind_for(alias) != "celery":
        return lambda: ""
    begun = threading.Event()
    answers: list[str] = []

    def try_it() -> None:
        try:
            bell = import_string(PREPARE)()
            begun.set()
            answers.append(bell())
        except Exception as error:  # noqa: BLE001 - Celery, kombu and its transports each raise their own
            said = f"{type(error).__name__} {redact(str(error), limit=120)}"
            answers.append(_("The broker cannot be asked: {error}.").format(error=said))
            begun.set()

    thread = threading.Thread(target=try_it, daemon=True)
    thread.start()

    def answer() -> str:
        if not begun.wait(LOADING_SECONDS):
            return ""
        thread.join(PATIENCE_SECONDS)
        if answers:
            return answers[0]
        text = _("The broker, or the name of its host, gives no answer: gave up after {time}.")
        return text.format(time=duration(PATIENCE_SECONDS))

    return answer
