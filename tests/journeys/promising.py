"""
``python -m tests.journeys.promising COUNT SECONDS [LANE]``: a web process that promises e-mails.

It promises COUNT of them, one transaction each, evenly over SECONDS, and says a line for each that
is committed: ``promised UUID SECONDS``, with how long that took. SIGTERM ends it after the one at hand.

``JOURNEY_LIFE`` are the seconds after which they expire. With ``JOURNEY_REGISTERS=1`` it registers
people instead, each with an e-mail of their own.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta


def main(count: int, seconds: float, lane: str = "normal") -> None:
    """Promise."""
    import django

    django.setup()
    promise = register if os.environ.get("JOURNEY_REGISTERS") else enqueue
    asked_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked_to_end.append(number))
    began = time.monotonic()
    for number in range(count):
        if asked_to_end:
            break
        time.sleep(max(0.0, began + seconds * number / count - time.monotonic()))
        asked = time.monotonic()
        name = promise(number, lane)
        print(f"promised {name} {time.monotonic() - asked:.4f}", flush=True)


def enqueue(number: int, lane: str) -> str:
    """Promise an e-mail in a transaction of its own."""
    from django.db import transaction

    import postroom

    life = timedelta(seconds=float(os.environ.get("JOURNEY_LIFE", "86400")))
    with transaction.atomic():
        email = postroom.enqueue("journey.hello", {"number": number}, lane=lane, expires_in=life)
    return str(email.uuid)


def register(number: int, lane: str) -> str:
    """Register somebody new."""
    from postroom.accounts.registration import register

    registration = register(f"person-{os.getpid()}-{number}@example.com", "a long and dull password")
    assert registration.email
    return str(registration.email.uuid)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:])
