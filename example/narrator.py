"""
From log lines to the terminal: ``14:02:55  provider  7f3a delivered``.

Children print ``LEVEL logger event key=value``; here each becomes a short sentence, or nothing.
Only ids come through: an address in a line of somebody else's is taken out.
"""

from __future__ import annotations

import re
import shlex
from datetime import datetime

from example.moods import MOODS

RECORD = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) (\S+) (.*)")
ADDRESS = re.compile(r"[^\s<>\"'=@]+@[^\s<>\"'=@]+")
REPORTS = frozenset(
    (
        "delivered",
        "deferred",
        "soft_bounced",
        "bounced",
        "refused",
        "broken",
        "complained",
        "opened",
        "verified",
    )
)
"""Events that somebody else reports; the web process writes them."""

REPORTED = {
    "delivered": "delivered",
    "hard_bounce": "bounced: no such mailbox",
    "soft_bounce": "refused for now",
    "blocked": "refused: the address is blocked",
    "deferred": "their server asks to wait",
    "spam": "marked as spam",
}
"""The simulator's words for events, in ours."""


_REPEATED = "it may have gone out, so the same key is used again"

ARROWS = {
    ("claimed", ""): "attempt {attempt}",
    ("accepted", "duplicate"): "accepted: the provider refused the repeat, so the first had arrived",
    ("accepted", ""): "accepted{after}",
    ("rescheduled", ""): "not accepted ({why}); again later",
    ("doubted", "pending"): f"no answer: {_REPEATED}",
    ("doubted", ""): "no answer: it may have gone out, so it is not repeated",
    ("failed", ""): "given up ({why}): nothing had gone out",
    ("withdrawn", ""): "not sent, on purpose",
    ("cancelled", ""): "not sent, on purpose",
    ("rescued", "accepted"): "taken back and closed, not sent again",
    ("rescued", "pending"): f"taken back: {_REPEATED}",
    ("rescued", ""): "taken back: now {state}",
    ("retried", ""): "tried again by hand",
    ("resent", ""): "sent again by hand, as a new e-mail",
}
"""What the arrows of the state machine are called here: by event and state, event and class, or event alone."""


class Narrator:
    """Knows what was said before, so that it can say how things hang together."""

    def __init__(self, *, plays_provider: bool) -> None:
        self._plays_provider = plays_provider
        self._taken: set[str] = set()
        self._survived: set[str] = set()
        self._fresh_pid: int | None = None

    def worker_died(self, in_hand: list[str]) -> None:
        """Remember which of the e-mails (short ids) that a worker had in hand the provider had taken by then."""
        self._survived |= self._taken & set(in_hand)

    def worker_started(self, pid: int) -> None:
        """Put the pid of a new worker before the first thing that it does."""
        self._fresh_pid = pid

    def arrival(self) -> str | None:
        """Return the line that a new worker is there, where it has not said anything yet."""
        pid, self._fresh_pid = self._fresh_pid, None
        return said("worker", f"pid {pid}") if pid else None

    def tell(self, who: str, line: str) -> str | None:
        """Return the terminal's line for what *who* printed; None: not worth one."""
        record = RECORD.fullmatch(line)
        if record is None:
            return None
        level, logger, message = record.groups()
        sentence = self._sentence(who, message) if logger.startswith("postroom") else None
        if sentence is None and level in ("WARNING", "ERROR", "CRITICAL"):
            sentence = "" if self._is_event(message) else shortened(message)
        if not sentence:
            return None
        if who == "worker" and self._fresh_pid:
            sentence, self._fresh_pid = f"pid {self._fresh_pid}; {sentence}", None
        return said(who, sentence)

    def _is_event(self, message: str) -> bool:
        return " email=" in message and " state=" in message

    def _sentence(self, who: str, message: str) -> str | None:
        event, values = _parsed(message)
        email = values.get("email", "")[:4]
        if who == "provider":
            return self._of_provider(event, email, values)
        if event in ("registered", "bought"):
            return f"{event} in {values.get('ms')} ms; e-mail {email} is in the outbox"
        if not email:
            return None
        if event in REPORTS:
            # The simulator has just told it itself.
            return (
                None
                if self._plays_provider and who == "web" and event != "verified"
                else _reported(email, event)
            )
        return _of_worker(event, email, values)

    def _of_provider(self, event: str, email: str, values: dict[str, str]) -> str | None:
        if event == "mood":
            return f"now {MOODS[values['mood']].label}"
        if event == "took":
            self._taken.add(email)
        if event == "report_lost":
            return f"{email} {values.get('event')}: the report could not be told"
        if event != "reported":
            return None
        told = f"{email} {REPORTED.get(values.get('event', ''), values.get('event'))}"
        if email in self._survived:
            told += ": it had gone out before the worker died"
        return told


def said(who: str, sentence: str, now: datetime | None = None) -> str:
    """Return a line of the terminal."""
    at = now or datetime.now().astimezone()
    return f"  {at:%H:%M:%S}  {who:<8}  {sentence}"


def shortened(message: str) -> str:
    """Return at most 160 characters without any address."""
    clean = ADDRESS.sub("<address>", message)
    return clean if len(clean) <= 160 else clean[:159] + "…"


def _parsed(message: str) -> tuple[str, dict[str, str]]:
    try:
        event, *pairs = shlex.split(message)
    except ValueError:
        return "", {}
    return event, dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def _of_worker(event: str, email: str, values: dict[str, str]) -> str | None:
    state, why = values.get("state", ""), values.get("class", "-")
    sentence = ARROWS.get((event, state), ARROWS.get((event, why), ARROWS.get((event, ""))))
    if sentence is None:
        return None
    return f"{email} " + sentence.format(
        attempt=values.get("attempt"), after=_after(values), why=why, state=state
    )


def _reported(email: str, event: str) -> str:
    return f"{email} its link was used" if event == "verified" else f"{email} {event} (report)"


def _after(values: dict[str, str]) -> str:
    milliseconds = values.get("ms", "-")
    return f" after {int(milliseconds) / 1000:.1f} s" if milliseconds.isdecimal() else ""
