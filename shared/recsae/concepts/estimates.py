"""A value and its 95 % interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float = 0.0
    low: float = 0.0
    high: float = 0.0


UNKNOWN = Estimate()
