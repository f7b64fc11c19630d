"""What is known about the history behind each activation row, as arrays: the material predicates are made of.

Row r stands for the history up to and including its newest item. All of it is gathered from the flat histories by
index arithmetic; nothing loops over rows. What is dense, rows x facets, is made for blocks of rows. Not here:
thresholds and rules (`literals`, `describing`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.sampling import RowPlaces
from recsae.datasets.facets import FacetTable
from recsae.datasets.schema import Histories
from recsae.datasets.windows import window_starts
from recsae.errors import FailedPreconditionError

# Sequence models read mostly the last few items: weights .75^age over ten items put half of the mass on the last 2-3.
RECENT_ITEMS, RECENCY_DECAY = 10, 0.75
# What somebody takes to in general: all of the newest forty items alike.
USUAL_ITEMS = 40
# Item-set predicates look at the newest one to three items.
NEWEST = 3
_POPULARITY_STRATA = 10
_LENGTH_STRATA = 5
# Rows x facets of a block: float32 of 16 MB, whatever the number of facets.
_ROWS_AT_ONCE, _CELLS_AT_ONCE = 4096, 1 << 22


@dataclass(frozen=True)
class Windows:
    """Where each row's history lies in the flat items: `start` (inclusive), `end` (exclusive), int64 [n]."""

    items: NDArray[np.int32]
    start: NDArray[np.int64]
    end: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Items in each row's history, >= 1."""
        return self.end - self.start

    def item_at(self, lag: NDArray[np.int64] | int) -> NDArray[np.int32]:
        """The item `lag` places before the newest (0 = the newest), int32 [n]; 0 where the history is shorter."""
        at = self.end - 1 - lag
        return np.where(at >= self.start, self.items[np.maximum(at, 0)], 0).astype(np.int32)

    def take(self, rows: NDArray[np.int64]) -> Windows:
        """The windows of some rows."""
        return Windows(self.items, self.start[rows], self.end[rows])


def locate(histories: Histories, sample: RowPlaces, max_history: int) -> Windows:
    """Finds each row's history; positions count from the first interaction.

    A model reads `max_history` items, so a longer history was sent in windows (`recsae.datasets.windows`), and a row's
    history begins with its window. FailedPreconditionError when the newest item of a row is not where its position
    says: then these are not the histories the activations were collected from.
    """
    user = sample.user.astype(np.int64)
    first, stop = histories.offsets[user], histories.offsets[user + 1]
    newest = first + sample.position
    lost = (newest >= stop) | (_item(histories, newest) != sample.item)
    if lost.any():
        raise FailedPreconditionError(
            f"{int(lost.sum())} of {len(lost)} activation rows do not end with the item their position names; "
            "pass the histories the activations were collected from"
        )
    return Windows(histories.items, first + window_starts(stop - first, sample.position, max_history), newest + 1)


@dataclass(frozen=True)
class RowFeatures:
    """What predicates ask about the rows of `windows`; nothing is computed before it is asked for.

    `log_counts` float32 [n_items + 1]: ln(1 + interactions) of each item.
    """

    windows: Windows
    facets: FacetTable
    log_counts: NDArray[np.float32]

    def __len__(self) -> int:
        """Number of rows, n."""
        return len(self.windows.end)

    @cached_property
    def newest(self) -> NDArray[np.int32]:
        """The newest three items, int32 [n, 3], newest first, 0 where there is none."""
        return np.stack([self.windows.item_at(lag) for lag in range(NEWEST)], axis=1)

    @cached_property
    def popularity(self) -> NDArray[np.float32]:
        """ln(1 + count) of the newest item, float32 [n]."""
        return self.log_counts[self.newest[:, 0]]

    @property
    def length(self) -> NDArray[np.int64]:
        """Items in the history, int64 [n]."""
        return self.windows.lengths

    def shares(self, depth: int, decay: float) -> NDArray[np.float32]:
        """Weighted shares of all facets among the newest `depth` items, 0 to 1, float32 [n, F]; weights decay^lag."""
        lags = np.arange(depth)
        items = np.stack([self.windows.item_at(int(lag)) for lag in lags], axis=1)
        weights = np.where(items > 0, decay**lags, 0.0).astype(np.float32)
        weights /= weights.sum(axis=1, keepdims=True)
        pointers = np.arange(0, len(self) * depth + 1, depth)
        shape = (len(self), self.facets.matrix.shape[0])
        mix = sparse.csr_matrix((weights.ravel(), items.ravel(), pointers), shape=shape)
        dense: NDArray[np.float32] = (mix @ self.facets.matrix).toarray().astype(np.float32, copy=False)
        return dense

    def carried(self, lag: int) -> NDArray[np.float32]:
        """Facets of the item `lag` places before the newest, 0/1 float32 [n, F]."""
        dense: NDArray[np.float32] = self.facets.matrix[self.windows.item_at(lag)].toarray()
        return dense

    def take(self, rows: NDArray[np.int64]) -> RowFeatures:
        """The features of some rows."""
        return RowFeatures(self.windows.take(rows), self.facets, self.log_counts)

    def blocks(self) -> Iterator[tuple[slice, RowFeatures]]:
        """All rows in order, a few thousand at a time, fewer of many facets: whatever is dense stays small."""
        step = max(1, min(_ROWS_AT_ONCE, _CELLS_AT_ONCE // max(1, len(self.facets.names))))
        for at in range(0, len(self), step):
            rows = np.arange(at, min(at + step, len(self)))
            yield slice(at, at + len(rows)), self.take(rows)


def build_features(windows: Windows, facets: FacetTable, log_counts: NDArray[np.float32]) -> RowFeatures:
    """Features of the rows of `windows`; `log_counts` [n_items + 1] from `log_item_counts`."""
    return RowFeatures(windows, facets, log_counts)


def log_item_counts(histories: Histories, n_items: int) -> NDArray[np.float32]:
    """ln(1 + interactions) of each item, float32 [n_items + 1]; 0 for padding."""
    counts = np.bincount(histories.items, minlength=n_items + 1)
    counts[0] = 0
    return np.log1p(counts).astype(np.float32)


def popularity_deciles(log_counts: NDArray[np.float32]) -> NDArray[np.int32]:
    """Decile 0..9 of each item by count, int32 [n_items + 1], equally many items each; -1 for padding."""
    n = len(log_counts) - 1
    rank = np.argsort(np.argsort(log_counts[1:], kind="stable"), kind="stable")
    return np.concatenate([[-1], rank * _POPULARITY_STRATA // max(1, n)]).astype(np.int32)


@dataclass(frozen=True)
class Strata:
    """Cells of like popularity of the newest item (10) and like history length (5), cut on construction rows."""

    popularity_edges: NDArray[np.float32]
    length_edges: NDArray[np.float32]

    @property
    def count(self) -> int:
        """Number of cells."""
        return (len(self.popularity_edges) + 1) * (len(self.length_edges) + 1)

    def of(self, features: RowFeatures) -> NDArray[np.int32]:
        """The cell of each row, int32 [n]."""
        popular = np.searchsorted(self.popularity_edges, features.popularity, side="right")
        long = np.searchsorted(self.length_edges, features.length, side="right")
        return (popular * (len(self.length_edges) + 1) + long).astype(np.int32)


def cut_strata(features: RowFeatures) -> Strata:
    """Cells with equally many rows along each axis."""
    popular = np.quantile(features.popularity, np.linspace(0, 1, _POPULARITY_STRATA + 1)[1:-1])
    long = np.quantile(features.length, np.linspace(0, 1, _LENGTH_STRATA + 1)[1:-1])
    return Strata(np.unique(popular).astype(np.float32), np.unique(long).astype(np.float32))


def _item(histories: Histories, at: NDArray[np.int64]) -> NDArray[np.int32]:
    clipped: NDArray[np.int32] = histories.items[np.clip(at, 0, len(histories.items) - 1)]
    return clipped
