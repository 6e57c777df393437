"""
What a diagnosis is: one verdict with its code, in words, and the numbers behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from django.utils import timezone

from postroom.ops.facts import Facts


class Level(StrEnum):
    """How bad it is; the word is the first on every screen."""

    OK = "OK"
    LATE = "LATE"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One labelled part of a diagnosis: Why, People, Do, Then, Not, Look."""

    label: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is the matter. Without addresses, links and keys; the texts are translated."""

    code: str
    """``OK`` or the number of the situation, the same on page, terminal and in the docs: ``D10``."""

    level: Level
    headline: str
    summary: tuple[str, ...] = ()
    """What it means for the e-mails, in one or two lines."""

    sections: tuple[Section, ...] = ()
    also: tuple[str, ...] = ()
    """What else is not as it should be."""

    at: datetime = field(default_factory=timezone.now)
    facts: Facts | None = None
    """The numbers behind it; None where they could not be had."""
