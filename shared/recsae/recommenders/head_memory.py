"""How many lists a head may make at once, so that the memory of a batch is bounded whatever the catalogue.

Counted is what stands beside the graph's own constants: scores and their copies, and the indices of exclusions and
candidates. Not here: heads that score pairs, whose batches are counted in pairs (`runtime`).
"""

from __future__ import annotations

from dataclasses import dataclass

_MOST_BYTES = 256 << 20
# Scores float32; with candidates a mask of the same size and the sum of both.
_BYTES_PER_COLUMN = 3 * 4
# Of an index excluded or allowed: int64 as it came, moved and cut, and the score put in its place.
_BYTES_PER_INDEX = 40


@dataclass(frozen=True)
class HeadMemory:
    """A head that holds `columns` scores of each list, and as many more for each of several `interests`."""

    columns: int
    interests: int = 1

    def lists(self, indices: int) -> int:
        """Most lists at once, at least 1, where each names `indices` items to leave out or to choose from."""
        each = self.columns * (_BYTES_PER_COLUMN + 4 * (self.interests - 1)) + indices * _BYTES_PER_INDEX
        return max(1, _MOST_BYTES // each)
