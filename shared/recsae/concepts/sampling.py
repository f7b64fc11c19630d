"""Which activation rows are read: a bounded, even draw per part of the users, out of any number of shards.

A row is kept when its hash is among the smallest `most`: the draw depends on the rows alone, not on how shards cut
them, so draws of shards merge exactly. Memory is bounded by `most` rows; `x` may be a memory map of which only the
chosen rows are touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.evidence_draws import hashed
from recsae.errors import FailedPreconditionError

# At the natural mix a concept of density 1 % has about 500 cases among this many rows, and five times the "too rare"
# limit is as much as an interval gains from. 50,000 x 64 float32 is 13 MB.
ROWS_PER_PART = 50_000


class RowPlaces(Protocol):
    """Where rows stand: user int32 [n] (-1 = item probe), position and newest item int32 [n]."""

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


class ActivationRows(RowPlaces, Protocol):
    """Rows of one shard: their places and x float32 [n, d]."""

    @property
    def x(self) -> NDArray[np.float32]:
        """Activations [n, d]."""
        ...


@dataclass(frozen=True)
class RowSample:
    """Rows in order of user and position; the same fields as a shard. `available` = rows drawn from."""

    x: NDArray[np.float32]
    user: NDArray[np.int32]
    position: NDArray[np.int32]
    item: NDArray[np.int32]
    available: int

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.user)

    @classmethod
    def none(cls) -> RowSample:
        """Of no rows."""
        nothing = np.zeros(0, np.int32)
        return cls(np.zeros((0, 0), np.float32), nothing, nothing, nothing, 0)

    @classmethod
    def of(cls, rows: ActivationRows, wanted: NDArray[np.bool_], most: int, seed: int) -> RowSample:
        """Of the rows of one shard where `wanted` [n] holds."""
        qualified = np.flatnonzero(wanted)
        if not len(qualified):
            return cls.none()
        user, position, item = (
            np.asarray(column)[qualified].astype(np.int32) for column in (rows.user, rows.position, rows.item)
        )
        chosen = _chosen(user, position, item, most, seed)
        # A memory map is read fastest in the order of the file.
        x = np.asarray(rows.x[np.sort(qualified[chosen])], np.float32)
        x = x[np.argsort(np.argsort(qualified[chosen]))]
        return cls(x, user[chosen], position[chosen], item[chosen], len(qualified))

    def merged(self, other: RowSample, most: int, seed: int) -> RowSample:
        """The draw of the rows of both."""
        if not len(other) or not len(self):
            return self if len(self) else other
        whole = (np.concatenate([getattr(self, name), getattr(other, name)]) for name in ("user", "position", "item"))
        user, position, item = whole
        chosen = _chosen(user, position, item, most, seed)
        x = np.empty((len(chosen), self.x.shape[1]), np.float32)
        mine = chosen < len(self)
        x[mine], x[~mine] = self.x[chosen[mine]], other.x[chosen[~mine] - len(self)]
        return RowSample(x, user[chosen], position[chosen], item[chosen], self.available + other.available)


def sample_rows(
    shards: Sequence[ActivationRows], wanted: NDArray[np.bool_], *, cap: int = ROWS_PER_PART, seed: int = 0
) -> RowSample:
    """At most `cap` rows, drawn evenly from those of users where `wanted` [n_users + 1] holds.

    The last entry of `wanted` speaks for rows without a user (item probes, user -1). FailedPreconditionError when
    no row qualifies.
    """
    draws = (RowSample.of(shard, wanted[np.asarray(shard.user)], cap, seed) for shard in shards)
    return drawn_or_refused(reduce(lambda one, other: one.merged(other, cap, seed), draws, RowSample.none()))


def drawn_or_refused(sample: RowSample) -> RowSample:
    """The sample; FailedPreconditionError when it is empty."""
    if not len(sample):
        raise FailedPreconditionError(
            "no activation row belongs to a user of the part asked for; collect from more users"
        )
    return sample


def _chosen(
    user: NDArray[np.int32], position: NDArray[np.int32], item: NDArray[np.int32], most: int, seed: int
) -> NDArray[np.int64]:
    """Which rows are kept, in order of user and position."""
    kept = np.arange(len(user))
    if len(user) > most:
        order = hashed(seed, user, position, item)
        kept = np.flatnonzero(order <= np.partition(order, most - 1)[most - 1])
        kept = kept[np.lexsort((item[kept], position[kept], user[kept], order[kept]))][:most]
    return kept[np.lexsort((item[kept], position[kept], user[kept]))]
