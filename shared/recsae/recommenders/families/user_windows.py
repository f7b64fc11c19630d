"""Pieces of histories with their users, for networks that know more of a user than items. Pure numpy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.schema import Histories
from recsae.recommenders.windows import cut_windows, shuffled

Ints = NDArray[np.int64]


def user_windows(
    histories: Histories, longest: int, batch: int, random: np.random.Generator
) -> Iterator[tuple[Ints, Ints]]:
    """Users int64 [b] and items int64 [b, longest + 1] in order, 0 behind the last, in random batches of `batch`.

    Together the windows cover every history of two items or more; where one ends the next begins, with the same item.
    """
    windows = cut_windows(histories, longest, random)
    owners = np.searchsorted(histories.offsets, windows.starts, side="right") - 1
    for chosen in shuffled(windows, batch, random):
        items, following = windows.gather(chosen)
        yield owners[chosen], np.concatenate([items[:, :1], following], axis=1)
