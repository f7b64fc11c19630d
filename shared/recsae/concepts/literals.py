"""Literals: the yes/no questions about a history that rules are built from, and their truth on many rows at once.

Six kinds: a facet's recency-weighted share of the newest ten items, or its share of the newest forty, reaches a
threshold; the newest item, or the one before it, carries a facet; the newest item is popular; the history is long. Not
here: which literals describe a latent (`describing`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.features import RECENCY_DECAY, RECENT_ITEMS, USUAL_ITEMS, RowFeatures
from recsae.errors import FailedPreconditionError

RECENT, USUAL, LAST, BEFORE, POPULARITY, LENGTH = "recent", "usual", "last", "before", "popularity", "length"
# Shares at decay .75 over ten items: .1 = "seen lately", .25 = "the newest item, or several before it", up to .85.
# Over forty items alike a quarter is a strong taste already.
_SHARE_THRESHOLDS = {RECENT: (0.1, 0.25, 0.4, 0.55, 0.7, 0.85), USUAL: (0.05, 0.1, 0.2, 0.3, 0.45, 0.6)}
_LAG = {LAST: 0, BEFORE: 1}
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
# A literal true on fewer rows cannot describe a latent with enough cases; one true on nearly all says nothing.
_MIN_SUPPORT, _MAX_SUPPORT = 0.001, 0.995
# Bounds the packed truth (50,000 rows: 26 MB) and the products of `counting`.
MAX_LITERALS = 4096


@dataclass(frozen=True)
class Literal:
    """One question. `facet` is "" for popularity and length."""

    kind: str
    facet: str
    threshold: float

    @property
    def about_facet(self) -> bool:
        """False for popularity and length, which are no meaning of their own."""
        return bool(self.facet)


@dataclass(frozen=True)
class PackedTruth:
    """Truth of L literals on n rows, eight literals to a byte: `packed` uint8 [n, ceil(L / 8)]."""

    packed: NDArray[np.uint8]
    literals: int

    @property
    def rows(self) -> int:
        """Number of rows, n."""
        return len(self.packed)

    def of(self, literals: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Truth of some literals, 0/1 uint8 [m, n]."""
        shift = (7 - literals % 8).astype(np.uint8)
        return np.asarray((self.packed[:, literals // 8].T >> shift[:, None]) & np.uint8(1), np.uint8)

    def blocks(self, rows_at_once: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Rows in order with the truth of all literals, 0/1 float32 [m, L]."""
        for at in range(0, self.rows, rows_at_once):
            rows = slice(at, min(at + rows_at_once, self.rows))
            yield rows, np.unpackbits(self.packed[rows], axis=1, count=self.literals).astype(np.float32)


@dataclass(frozen=True)
class LiteralBank:
    """Literals worth trying and their truth on the rows they were chosen from."""

    literals: tuple[Literal, ...]
    truth: PackedTruth


def build_bank(features: RowFeatures, max_literals: int = MAX_LITERALS) -> LiteralBank:
    """All literals with enough support on `features`, at most `max_literals`.

    When there are more, those stay whose support is the most middling.
    """
    candidates = [*_facet_candidates(features), *_number_candidates(features)]
    support = np.zeros(len(candidates))
    for _, block in features.blocks():
        support += truth_of(candidates, block).sum(axis=1, dtype=np.int64)
    support /= max(1, len(features))
    kept = np.flatnonzero((support >= _MIN_SUPPORT) & (support <= _MAX_SUPPORT))
    if len(kept) > max_literals:
        informative = support[kept] * (1 - support[kept])
        kept = np.sort(kept[np.argsort(-informative, kind="stable")[:max_literals]])
    literals = tuple(candidates[at] for at in kept)
    return LiteralBank(literals, pack_truth(literals, features))


def pack_truth(literals: Sequence[Literal], features: RowFeatures) -> PackedTruth:
    """Truth of each literal on all rows; what is dense is made for a block of rows at a time."""
    parts = [np.packbits(truth_of(literals, block).T, axis=1) for _, block in features.blocks()]
    empty = np.zeros((0, -(-len(literals) // 8)), np.uint8)
    return PackedTruth(np.concatenate([empty, *parts]), len(literals))


def truth_of(literals: Sequence[Literal], features: RowFeatures) -> NDArray[np.uint8]:
    """Truth of each literal on each row, uint8 [L, n]. FailedPreconditionError for a facet the data do not have."""
    column = {name: at for at, name in enumerate(features.facets.names)}
    truth = np.zeros((len(literals), len(features)), np.uint8)
    by_kind: dict[str, list[int]] = {}
    for row, literal in enumerate(literals):
        if literal.about_facet and literal.facet not in column:
            raise FailedPreconditionError(
                f"facet {literal.facet!r} is in a rule but not in the facet table; build both from one data set"
            )
        by_kind.setdefault(literal.kind, []).append(row)
    for kind, rows in by_kind.items():
        thresholds = np.array([literals[row].threshold for row in rows], np.float32)
        if kind in (POPULARITY, LENGTH):
            values = features.popularity if kind == POPULARITY else features.length.astype(np.float32)
            truth[rows] = values[None, :] >= thresholds[:, None]
        else:
            asked = _asked(kind, features)[:, [column[literals[row].facet] for row in rows]]
            truth[rows] = (asked >= thresholds).T
    return truth


def _asked(kind: str, features: RowFeatures) -> NDArray[np.float32]:
    """The quantity a kind compares with its threshold, for all facets [n, F]."""
    if kind in _LAG:
        return features.carried(_LAG[kind])
    if kind == RECENT:
        return features.shares(RECENT_ITEMS, RECENCY_DECAY)
    return features.shares(USUAL_ITEMS, 1.0)


def _facet_candidates(features: RowFeatures) -> list[Literal]:
    shares = [
        Literal(kind, name, threshold)
        for kind, thresholds in _SHARE_THRESHOLDS.items()
        for name in features.facets.names
        for threshold in thresholds
    ]
    return [*shares, *(Literal(kind, name, 1.0) for kind in _LAG for name in features.facets.names)]


def _number_candidates(features: RowFeatures) -> list[Literal]:
    popular = np.unique(np.quantile(features.popularity, _QUANTILES).astype(np.float32))
    long = np.unique(np.ceil(np.quantile(features.length, _QUANTILES)))
    return [
        *(Literal(POPULARITY, "", float(threshold)) for threshold in popular),
        *(Literal(LENGTH, "", float(threshold)) for threshold in long),
    ]
