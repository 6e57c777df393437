"""
The places at which a process dies, by SIGKILL and by its own hand: no other hand is as exact.

``JOURNEY_PERIL`` is the name of a place, or ``NAME:3`` for the third time that it is reached.
"""

import os
import signal
from collections import Counter

_reached: Counter[str] = Counter()


def reached(place: str) -> None:
    """Die, if this is the place; the kernel asks nobody."""
    wanted, _, time = os.environ.get("JOURNEY_PERIL", "").partition(":")
    _reached[place] += 1
    if place == wanted and _reached[place] >= int(time or 1):
        os.kill(os.getpid(), signal.SIGKILL)
