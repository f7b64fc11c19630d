"""Whether changed rows may be used: finite, and changed by no more than the norm budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.steering.plans import Floats
from recsae.steering.receipts import UnsteeredReason
from recsae.steering.recipes import Doubles

# No part of a row is longer than the row: where a row stays below this, no float32 of it overflows.
_LARGEST = 3e38


@dataclass(frozen=True, eq=False)
class Judged:
    """Changed rows float32 [n, d], the `norms` of their changes and the `lengths` they had before, float64 [n].

    A row is used where it is `kept`: `valid` (finite), `within` the budget, and changed, bool [n] each.
    """

    rows: Floats
    norms: Doubles
    lengths: Doubles
    valid: NDArray[np.bool_]
    within: NDArray[np.bool_]
    kept: NDArray[np.bool_]

    def used(self, x: Floats) -> Floats:
        """The rows to go on with, float32 [n, d]: those of `x` where they are not kept, `x` itself when none is."""
        kept = np.count_nonzero(self.kept)
        if kept == len(self.kept):
            return self.rows
        return np.where(self.kept[:, None], self.rows, x) if kept else x

    def telling(self, begin: int, end: int) -> int:
        """The row that speaks for rows begin..end-1: the one changed most, or the first where none may be."""
        if end - begin == 1:
            return begin
        allowed = (self.valid & self.within)[begin:end]
        return begin + int(np.where(allowed, self.norms[begin:end], -1.0).argmax())

    def reason(self, row: int) -> UnsteeredReason:
        """STEERED, or why the row stays as it was."""
        if not self.valid[row]:
            return UnsteeredReason.INVALID_CHANGE
        return UnsteeredReason.STEERED if self.within[row] else UnsteeredReason.OVER_NORM_BUDGET

    def share(self, row: int, norm: float) -> float:
        """A norm over the length the row had."""
        length = float(self.lengths[row])
        return norm / length if length > 0 else 0.0


def judged(x: Floats, change: Doubles, norms: Doubles, norm_budget: float) -> Judged:
    """Rows `x` float32 [n, d] with `change` float64 [n, d] (or [d], the same for all) of `norms` [n] added."""
    wide = x.astype(np.float64)
    lengths = np.sqrt(np.add.reduce(wide * wide, axis=1))
    wide += change
    rows = wide.astype(np.float32)
    # False of NaN too.
    valid = lengths + norms < _LARGEST
    if np.count_nonzero(valid) < len(valid):
        valid = np.isfinite(norms) & np.isfinite(lengths) & np.isfinite(rows).all(axis=1)
    within = norms <= norm_budget * lengths
    return Judged(rows, norms, lengths, valid, within, valid & within & (norms > 0))
