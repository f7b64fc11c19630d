"""Which activation rows are read: a bounded, seeded sample per part of the users, out of any number of shards.

Memory is bounded by the cap, whatever the number of rows: user and position are small and read whole, `x` may be
a memory map of which only the chosen rows are touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError

# At the natural mix a concept of density 1 % has about 500 cases among this many rows, and five times the "too rare"
# limit is as much as an interval gains from. 50,000 x 64 float32 is 13 MB.
ROWS_PER_PART = 50_000


class ActivationRows(Protocol):
    """Rows of one shard: x float32 [n, d]; user int32 [n] (-1 = item probe); position, item int32 [n]."""

    @property
    def x(self) -> NDArray[np.float32]:
        """Activations [n, d]."""
        ...

    @property
    def user(self) -> NDArray[np.int32]:
        """User index [n], -1 for an item probe."""
        ...

    @property
    def position(self) -> NDArray[np.int32]:
        """Position of the newest item in what the model was given [n]."""
        ...

    @property
    def item(self) -> NDArray[np.int32]:
        """Newest item's index [n]."""
        ...


@dataclass(frozen=True)
class RowSample:
    """Rows in order of user and position; the same fields as a shard. `available` = rows sampled from."""

    x: NDArray[np.float32]
    user: NDArray[np.int32]
    position: NDArray[np.int32]
    item: NDArray[np.int32]
    available: int

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.user)


def sample_rows(
    shards: Sequence[ActivationRows], wanted: NDArray[np.bool_], *, cap: int = ROWS_PER_PART, seed: int = 0
) -> RowSample:
    """At most `cap` rows, drawn evenly from those of users where `wanted` [n_users + 1] holds.

    The last entry of `wanted` speaks for rows without a user (item probes, user -1). FailedPreconditionError when
    no row qualifies.
    """
    sizes = [len(shard.user) for shard in shards]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    user = np.concatenate([np.asarray(shard.user, np.int32) for shard in shards]) if shards else np.zeros(0, np.int32)
    qualified = np.flatnonzero(wanted[user])
    if not len(qualified):
        raise FailedPreconditionError(
            f"none of {len(user)} activation rows belongs to a user of the part asked for; collect from more users"
        )
    available = len(qualified)
    if available > cap:
        qualified = np.sort(np.random.default_rng(seed).choice(qualified, cap, replace=False))
    position, item, x = [], [], []
    for at, shard in enumerate(shards):
        rows = qualified[(qualified >= offsets[at]) & (qualified < offsets[at + 1])] - offsets[at]
        position.append(np.asarray(shard.position)[rows])
        item.append(np.asarray(shard.item)[rows])
        x.append(np.asarray(shard.x[rows], np.float32))
    users, positions = user[qualified], np.concatenate(position)
    order = np.lexsort((positions, users))
    return RowSample(
        np.concatenate(x)[order],
        users[order],
        positions[order].astype(np.int32),
        np.concatenate(item)[order].astype(np.int32),
        available,
    )
