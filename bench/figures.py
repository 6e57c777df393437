"""
What is made of many short rounds: medians, and how far they can be trusted.

Two sides are measured in turn, A B B A, so that what the machine does beside us falls on both.
Each pair gives one ratio; the figure is the median of the ratios, and its interval the middle 95 %
of the medians of 2,000 samples drawn from them with replacement (bootstrap, seeded: the same raw
numbers give the same interval).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import TypeVar

DRAWS = 2000
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A median and the middle 95 % of its bootstrap distribution."""

    value: float
    low: float
    high: float


def bootstrap(samples: Sequence[float], *, draws: int = DRAWS, seed: int = 1) -> Interval:
    """Return the median of *samples* with its interval; ValueError where there are none."""
    if not samples:
        raise ValueError("no samples")
    dice = random.Random(seed)
    size = len(samples)
    medians = sorted(median(dice.choices(samples, k=size)) for _ in range(draws))
    return Interval(
        value=median(samples),
        low=medians[round(0.025 * (draws - 1))],
        high=medians[round(0.975 * (draws - 1))],
    )


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Return the median of ours ÷ theirs, pair by pair."""
    return bootstrap([mine / other for mine, other in zip(ours, theirs, strict=True)])


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Return the median of ours − theirs, pair by pair."""
    return bootstrap([mine - other for mine, other in zip(ours, theirs, strict=True)])


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the sample below or at which *share* of them lie (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, min(len(ordered) - 1, ceil(share * len(ordered)) - 1))]


def abba(first: Callable[[], T], second: Callable[[], T], pairs: int) -> tuple[list[T], list[T]]:
    """Run both sides *pairs* times, in the order A B, B A, A B … and return what each gave."""
    ones: list[T] = []
    others: list[T] = []
    for number in range(pairs):
        if number % 2 == 0:
            ones.append(first())
            others.append(second())
        else:
            others.append(second())
            ones.append(first())
    return ones, others
