"""Cutting histories longer than a model reads into windows, so that every interaction yields exactly one row.

Windows are laid from the end, so the newest row of a user is computed from the very items serving would read.
Neighbouring windows overlap: a row is taken from the window where it has items before it, never from its edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Sequence models read mostly the last few items; ten of them carry 94 % of the weight of a .75 decay.
CONTEXT_ITEMS = 10


@dataclass(frozen=True)
class Window:
    """Items [begin, end) of one history are sent to the model; rows are kept from item `keep` on."""

    begin: int
    end: int
    keep: int


def cut(length: int, max_history: int) -> list[Window]:
    """Windows of at most `max_history` items over a history of `length` items, oldest first; none when it is empty.

    Kept rows are disjoint and cover every item. Each has `CONTEXT_ITEMS` items before it (at most a quarter of
    `max_history`), or all there are.
    """
    overlap = _overlap(max_history)
    windows: list[Window] = []
    end = length
    while end > 0:
        begin = max(0, end - max_history)
        keep = 0 if begin == 0 else begin + overlap
        windows.append(Window(begin, end, keep))
        end = keep
    return windows[::-1]


def window_starts(lengths: NDArray[np.int64], positions: NDArray[np.integer], max_history: int) -> NDArray[np.int64]:
    """First item, int64 [n], of the window that the row of item `positions` [n] (from 0) was kept from.

    `lengths` [n] are those of the rows' histories. The same as looking each row up in `cut`, by arithmetic.
    """
    stride = max_history - _overlap(max_history)
    ends = lengths - (lengths - 1 - positions) // stride * stride
    starts: NDArray[np.int64] = np.maximum(0, ends - max_history).astype(np.int64)
    return starts


def _overlap(max_history: int) -> int:
    return min(CONTEXT_ITEMS, max_history // 4)
