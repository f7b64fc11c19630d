"""Ranked lists of item indices with their scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ranked:
    """Items int64 [n, k], best first, and scores float32 [n, k]; -inf marks places that no item may fill."""

    items: NDArray[np.int64]
    scores: NDArray[np.float32]

    def row(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Items and scores of one row without the unfilled places."""
        filled = self.scores[index] > -np.inf
        return self.items[index][filled], self.scores[index][filled]
