"""Whether changed rows may be used: finite, and changed by no more than the norm budget."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsae.steering.plans import Floats
from recsae.steering.receipts import UnsteeredReason
from recsae.steering.recipes import Doubles, lengths_of

# No part of a row is longer than the row: where a row stays below this, no float32 of it overflows.
_LARGEST = 3e38


@dataclass(frozen=True, eq=False)
class Judged:
    """Changed rows float32 [n, d], the `norms` of their changes and the `lengths` they had before, n floats each.

    A row may be used where it is finite and within the budget; `all_usable`: every row is seen to be so.
    """

    rows: Floats
    norms: list[float]
    lengths: list[float]
    norm_budget: float
    all_usable: bool

    def used(self, x: Floats) -> Floats:
        """The rows to go on with, float32 [n, d]: those of `x` where they may not be used or nothing changed.

        `x` itself when that is so of all.
        """
        if self.all_usable and min(self.norms) > 0:
            return self.rows
        kept: NDArray[np.bool_] = np.array(self.norms) > 0
        if not self.all_usable:
            kept &= self._valid & self._within
        # Adding nothing to a row would still turn its -0.0 into 0.0.
        return np.where(kept[:, None], self.rows, x) if np.count_nonzero(kept) else x

    def telling(self, begin: int, end: int) -> int:
        """The row that speaks for rows begin..end-1: the one changed most, or the first where none may be."""
        if end - begin == 1:
            return begin
        norms = np.array(self.norms[begin:end])
        allowed = True if self.all_usable else (self._valid & self._within)[begin:end]
        return begin + int(np.where(allowed, norms, -1.0).argmax())

    def reason(self, row: int) -> UnsteeredReason:
        """STEERED, or why the row stays as it was."""
        if self.all_usable:
            return UnsteeredReason.STEERED
        if not self._valid[row]:
            return UnsteeredReason.INVALID_CHANGE
        return UnsteeredReason.STEERED if self._within[row] else UnsteeredReason.OVER_NORM_BUDGET

    @cached_property
    def _valid(self) -> NDArray[np.bool_]:
        finite: NDArray[np.bool_] = np.isfinite(self.norms) & np.isfinite(self.lengths)
        return finite & np.isfinite(self.rows).all(axis=1)

    @cached_property
    def _within(self) -> NDArray[np.bool_]:
        within: NDArray[np.bool_] = np.array(self.norms) <= self.norm_budget * np.array(self.lengths)
        return within


def judged(x: Floats, change: Doubles, norms: list[float], norm_budget: float) -> Judged:
    """Rows `x` float32 [n, d] with `change` float64 [n, d] (or [d], the same for all) of n `norms` added."""
    wide = x.astype(np.float64)
    lengths = lengths_of(wide)
    wide += change
    # The usual case from the ends alone, for whoever passes here passes row by row too. A NaN fails a comparison.
    all_usable = sum(lengths) + sum(norms) < _LARGEST and max(norms) <= norm_budget * min(lengths)
    return Judged(wide.astype(np.float32), norms, lengths, norm_budget, all_usable)
