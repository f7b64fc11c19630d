"""Interleaving and intervals: variants forwards and back in every round, ratios of a round, median with interval.

Ratios within a round cancel what changes slowly (other programs, clock speed); a palindrome cancels a linear drift.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Median:
    """A median with its 95 % interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """As in a table."""
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def palindrome(variants: Sequence[T]) -> list[T]:
    """The order of one round: a, b, c, c, b, a. Of two variants that is ABBA."""
    return [*variants, *reversed(variants)]


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Median:
    """Median and the narrowest pair of order statistics around it that covers it with `confidence`, or more.

    By the binomial distribution, without any assumption on the values' own. Too few values give their whole range.
    """
    ordered, n = sorted(values), len(values)
    # The largest place whose order statistic, and its mirror image, the true median leaves rarely enough.
    place, tail = 0, 1 / 2**n
    while place + 1 < (n + 1) // 2 and tail + math.comb(n, place + 1) / 2**n <= (1 - confidence) / 2:
        place += 1
        tail += math.comb(n, place) / 2**n
    return Median(statistics.median(ordered), ordered[place], ordered[n - 1 - place])


def ratio_interval(above: Sequence[float], below: Sequence[float]) -> Median:
    """Of the ratios of two variants, round by round."""
    return median_interval([one / other for one, other in zip(above, below, strict=True)])
