"""
The moods of the provider simulator: how it treats the next calls, as data.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mood:
    """How the next calls go. Times in seconds."""

    label: str
    """For the button."""

    seconds: float = 3.0
    """From the end of the request to the answer."""

    accepts: bool = True
    """Whether it takes the e-mail: remembers the key, reports, and never takes it again."""

    status: int = 201
    answer: str = "json"
    """
    ``json``, ``html``, ``truncated`` or ``empty`` body; ``drip``: the JSON, one byte a second; ``drop``:
    close without one; ``hang``: no answer.
    """

    code: str = ""
    message: str = ""
    """Of the error body."""

    reset: int = 60
    """``x-sib-ratelimit-reset``: seconds until calls are allowed again."""

    report: str = "delivered"
    """Last event that the webhook tells; empty: none at all."""

    report_after: float = 1.0
    """From the answer to that event."""

    def check(self) -> None:
        """Raise ValueError where a number is none: moods also come from outside, as JSON."""
        for name in ("seconds", "status", "reset", "report_after"):
            if not isinstance(getattr(self, name), (int, float)):
                raise ValueError(f"{name} is a number")


MOODS: dict[str, Mood] = {
    "default": Mood(label="usual: 3 s"),
    "instant": Mood(label="instant", seconds=0, report_after=0.2),
    "slow": Mood(label="slow: 15 s", seconds=15),
    "429": Mood(label="too many: 429", seconds=0.1, accepts=False, status=429, reset=5,
                code="too_many_requests", message="Rate limit is exceeded"),
    "5xx": Mood(label="broken: 503", seconds=0.5, accepts=False, status=503,
                code="service_unavailable", message="Please try again later"),
    "hangs": Mood(label="hangs", accepts=False, answer="hang"),
    "takes-it-and-drops": Mood(label="takes it and drops the line", answer="drop"),
    "refuses": Mood(label="refuses the address", report="blocked"),
    "bounces": Mood(label="bounces", report="hard_bounce"),
    "no-reports": Mood(label="no reports", report=""),
    "unauthorized": Mood(label="refuses our key", seconds=0.1, accepts=False, status=401,
                         code="unauthorized", message="Key not found"),
    "no-credits": Mood(label="no credits", seconds=0.1, accepts=False, status=402,
                       code="not_enough_credits", message="You do not have enough credits"),
    "html": Mood(label="answers HTML with 200", accepts=False, status=200, answer="html"),
    "truncated": Mood(label="takes it, cuts the answer", answer="truncated"),
    "empty": Mood(label="takes it, empty answer", answer="empty"),
    "drips": Mood(label="takes it, answers a byte a second", answer="drip"),
}  # fmt: skip
"""Every mood; the first ten are those that a person may want to see."""

FOR_PEOPLE = tuple(itertools.islice(MOODS, 10))
