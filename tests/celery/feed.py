"""
A web process of the shop, as far as the outbox sees one: it enqueues what it is asked for, and rings.

Each line of its input is ``COUNT PAUSE``; the answer is one line of JSON. While it enqueues it watches
its own thread: whatever of a broker's libraries runs there, and each socket that is used there, is told.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import time
from types import FrameType
from typing import Any

LIBRARIES = {"amqp", "celery", "kombu", "redis", "vine"}


def main() -> None:
    """Answer until the input ends."""
    import django

    # The shop's log goes to the standard output, which is for the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    django.setup()
    for line in sys.stdin:
        count, pause = line.split()
        answer: dict[str, Any] = {"emails": [], "seconds": [], "touched": []}
        touched: set[str] = set()
        for _ in range(int(count)):
            began = time.monotonic()
            answer["emails"].append(_enqueue(touched))
            answer["seconds"].append(time.monotonic() - began)
            time.sleep(float(pause))
        answer["touched"] = sorted(touched)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _enqueue(touched: set[str]) -> str:
    from django.core.mail import EmailMessage
    from django.db import transaction

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if module in LIBRARIES:
            touched.add(f"{frame.f_globals['__name__']}.{frame.f_code.co_name}")
        if event == "c_call" and isinstance(getattr(argument, "__self__", None), socket.socket):
            touched.add(f"socket.{argument.__name__}")

    message: Any = EmailMessage("Hello", "Text", "shop@example.com", ["person@example.com"])
    # The collector finishes off the bell's dead connections in whichever thread it happens to run.
    gc.disable()
    sys.setprofile(watch)
    try:
        with transaction.atomic():
            message.send()
    finally:
        sys.setprofile(None)
        gc.enable()
    return str(message.postroom_email.uuid)


if __name__ == "__main__":
    main()
