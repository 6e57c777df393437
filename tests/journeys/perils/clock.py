"""
A clock that is wrong: ``JOURNEY_CLOCK`` seconds ahead of everybody's, or behind.

Django, and postroom with it, asks one function for the time of this process. It is replaced before
any model is loaded, for models remember it as the default of their columns.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from django.utils import timezone


def go_wrong(seconds: float) -> None:
    """Be *seconds* ahead from now on, negative: behind."""
    honest_now, honest_time = timezone.now, time.time

    def now() -> datetime:
        return honest_now() + timedelta(seconds=seconds)

    timezone.now = now
    time.time = lambda: honest_time() + seconds
