"""Cuts histories into training windows: right-padded inputs and next-item targets. Pure numpy.

A window of length n covers n + 1 consecutive items of one user: n inputs and, shifted by one, n targets. Windows of a
user share their border item, so that each interaction but the first is a target exactly once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.schema import Histories


@dataclass(frozen=True)
class Windows:
    """starts int64 [n]: where in `items` each window begins; lengths int64 [n]: its number of targets, >= 1."""

    items: NDArray[np.int32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    max_history: int

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.starts)

    def gather(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Inputs and targets int64 [len(chosen), max_history], 0 where a window has ended."""
        steps = np.arange(self.max_history)
        inside = steps < self.lengths[chosen, None]
        at = np.where(inside, self.starts[chosen, None] + steps, 0)
        inputs = np.where(inside, self.items[at], 0).astype(np.int64)
        targets = np.where(inside, self.items[at + inside], 0).astype(np.int64)
        return inputs, targets


def cut_windows(histories: Histories, max_history: int, random: np.random.Generator) -> Windows:
    """Windows over all users with two items or more.

    The first window of a history longer than `max_history` + 1 ends at a random place, so that over the epochs an
    interaction is predicted from contexts of every length.
    """
    users = np.flatnonzero(histories.lengths >= 2)
    targets = histories.lengths[users] - 1
    drawn = random.integers(1, max_history + 1, size=len(users))
    first = np.where(targets > max_history, drawn, targets)
    counts = 1 + -(-(targets - first) // max_history)
    owner = np.repeat(np.arange(len(users)), counts)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    begin = np.where(number == 0, 0, first[owner] + (number - 1) * max_history)
    end = np.minimum(first[owner] + number * max_history, targets[owner])
    return Windows(histories.items, histories.offsets[users][owner] + begin, end - begin, max_history)
