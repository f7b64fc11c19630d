"""Where values lie along an axis, and which of them are written beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` along an axis of any length; `ticks` are values with the text beside them."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float:
        """0 at `low`, 1 at `high`; values beyond lie on the nearer end."""
        if self.high <= self.low:
            return 0.5
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def linear(low: float, high: float, wanted: int = 5) -> Scale:
    """A scale that holds `low` to `high` and ends on round numbers, about `wanted` ticks apart."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        high = low = low if math.isfinite(low) else 0.0
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in _STEPS if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    values = [number * step for number in range(first, last + 1)]
    digits = max(0, -math.floor(math.log10(step) + 1e-9) + (0 if step / power != 2.5 else 1))
    return Scale(values[0], values[-1], tuple((value, f"{value:,.{digits}f}") for value in values))


def shares() -> Scale:
    """0 to 1, written as per cent."""
    return Scale(0.0, 1.0, tuple((part / 5, f"{part * 20} %") for part in range(6)))


def named(low: float, high: float, ticks: Sequence[tuple[float, str]]) -> Scale:
    """A scale with given ticks; those outside are left out."""
    return Scale(low, high, tuple((value, text) for value, text in ticks if low <= value <= high))
