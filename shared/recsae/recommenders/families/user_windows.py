"""Pieces of histories with their users, for networks that know more of a user than items. Pure numpy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.schema import Histories
from recsae.recommenders.windows import cut_windows, shuffled

_LEAST_STEPS = 50  # an epoch of fewer would teach little, however small the data set is

Ints = NDArray[np.int64]


def user_windows(
    histories: Histories, longest: int, batch: int, random: np.random.Generator
) -> Iterator[tuple[Ints, Ints]]:
    """Users int64 [b] and items int64 [b, longest + 1] in order, 0 behind the last, in random batches.

    A batch is of `batch` windows, or of so many that an epoch takes 50 of them.

    Together the windows cover every history of two items or more; where one ends the next begins, with the same item.
    """
    windows = cut_windows(histories, longest, random)
    owners = np.searchsorted(histories.offsets, windows.starts, side="right") - 1
    for chosen in shuffled(windows, max(1, min(batch, len(windows) // _LEAST_STEPS)), random):
        items, following = windows.gather(chosen)
        yield owners[chosen], np.concatenate([items[:, :1], following], axis=1)
