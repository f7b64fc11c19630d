"""Cuts histories into training windows: right-padded inputs and next-item targets. Pure numpy.

A window of length n covers n + 1 consecutive items of one user: n inputs and, shifted by one, n targets. Windows of a
user share their border item, so that each interaction but the first is a target exactly once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.schema import Histories

_BATCHES_SORTED = 32  # windows sorted together: enough for batches of one length, few enough to stay random


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

    def gather(
        self, chosen: NDArray[np.int64], longest: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Inputs and targets int64 [len(chosen), longest or max_history], 0 where a window has ended."""
        steps = np.arange(longest or self.max_history)
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


def shuffled(windows: Windows, batch: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Every window once, in batches of `batch` drawn at random: int64 [<= batch] indices each."""
    order = random.permutation(len(windows))
    for start in range(0, len(order), batch):
        yield order[start : start + batch]


def by_length(windows: Windows, batch: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Every window once, in batches of like length; each has about as many targets as `batch` random windows would.

    Equal targets rather than equal windows: a step's gradient is a mean over targets, so each weighs the same.
    """
    order = random.permutation(len(windows))
    targets = max(1.0, batch * float(windows.lengths.mean()))
    for start in range(0, len(order), batch * _BATCHES_SORTED):
        drawn = order[start : start + batch * _BATCHES_SORTED]
        drawn = drawn[np.argsort(windows.lengths[drawn], kind="stable")]
        ends = np.cumsum(windows.lengths[drawn])
        number = ((ends - 1) // (ends[-1] / max(1, round(ends[-1] / targets)))).astype(np.int64)
        batches = np.split(drawn, np.flatnonzero(np.diff(number)) + 1)
        for place in random.permutation(len(batches)):
            yield batches[place]
