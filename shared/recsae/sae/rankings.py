"""Two rankings of the same items for the same users: how far their lists agree.

Overlap, rank-biased overlap and Kendall's tau of the first ten places, without a loop over users. Not here: where
lists come from (`dot_product`, or a recommender), and quality from ranks (`fidelity`). numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError

DEPTH = 10
NO_ITEM = -1  # fills the places of a list that is shorter than the others
# As in Webber et al. (2010): the first ten places then carry 86 % of the weight.
RBO_PERSISTENCE = 0.9
_ROWS_AT_ONCE = 1_024  # 400 pairs a row: some MiB

Items = NDArray[np.int64]
Ranks = NDArray[np.int64]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Rankings:
    """What a model ranks for n rows.

    `ranks` int64 [n]: places of the rows' targets under full ranking, from 1, ties last. `items` int64 [n, m]: the
    list, best first, each item once, `NO_ITEM` behind its end. m is `DEPTH` or more, unless there are fewer items.
    """

    ranks: Ranks
    items: Items

    def __post_init__(self) -> None:
        """InvalidRequestError unless there is one list per target."""
        if self.ranks.ndim != 1 or self.items.ndim != 2 or len(self.ranks) != len(self.items):
            raise InvalidRequestError(
                f"rankings need ranks [n] and items [n, m] of the same rows, not {self.ranks.shape} and "
                f"{self.items.shape}"
            )


def agreement(a: Items, b: Items) -> dict[str, Doubles]:
    """Per row float64 [n]: "overlap@10", "rbo@10" and "kendall@10" of lists `a` and `b`, int64 [n, >= 10]."""
    if len(a) != len(b):
        raise InvalidRequestError(f"lists must be of the same rows, not of {len(a)} and {len(b)}")
    found = {name: np.zeros(len(a)) for name in (f"overlap@{DEPTH}", f"rbo@{DEPTH}", f"kendall@{DEPTH}")}
    for begin in range(0, len(a), _ROWS_AT_ONCE):
        span = slice(begin, begin + _ROWS_AT_ONCE)
        pair = _Pair.of(a[span, :DEPTH], b[span, :DEPTH])
        for name, values in zip(found, (_overlap(pair), _rank_biased_overlap(pair), _kendall(pair)), strict=True):
            found[name][span] = values
    return found


@dataclass(frozen=True)
class _Pair:
    """Two lists per row.

    `same` bool [n, p, q]: place i of the one holds what place j of the other does; `a_filled` [n, p] and `b_filled`
    [n, q]: places within a list; `length` int64 [n] of the longer one, at least 1.
    """

    same: Bools
    a_filled: Bools
    b_filled: Bools
    length: NDArray[np.int64]

    @classmethod
    def of(cls, a: Items, b: Items) -> _Pair:
        a_filled: Bools = a != NO_ITEM
        b_filled: Bools = b != NO_ITEM
        same = (a[:, :, None] == b[:, None, :]) & a_filled[:, :, None]
        length = np.maximum(a_filled.sum(axis=1), b_filled.sum(axis=1))
        return cls(same, a_filled, b_filled, np.maximum(length, 1))


def _overlap(pair: _Pair) -> Doubles:
    """|A and B| / 10 (over the longer list's length where it is shorter): 0 to 1."""
    shared = pair.same.sum(axis=(1, 2))
    return np.asarray(shared / pair.length, np.float64)


def _rank_biased_overlap(pair: _Pair) -> Doubles:
    """Extrapolated RBO (RBO_EXT of Webber, Moffat and Zobel 2010, TOIS 28(4)), 0 to 1.

    With A_d = |first d of both| / d: p^D A_D + (1 - p) / p sum_{d <= D} p^d A_d. It takes agreement beyond the last
    place D to stay what it is there, so equal lists score 1. The same is done behind the end of short lists.
    """
    depths = np.arange(1, max(pair.same.shape[1:]) + 1)
    shared = np.stack([pair.same[:, :depth, :depth].sum(axis=(1, 2)) for depth in depths], axis=1)
    proportion = shared / np.minimum(depths, pair.length[:, None])
    weights = (1 - RBO_PERSISTENCE) * RBO_PERSISTENCE ** (depths - 1)
    weights[-1] += RBO_PERSISTENCE ** depths[-1]
    return np.asarray(proportion @ weights, np.float64)


def _kendall(pair: _Pair) -> Doubles:
    """Kendall's tau over the items of either list, where those a list lacks are tied behind its last place: -1 to 1.

    (Pairs in the same order - pairs in opposite order) / all pairs; a pair tied in one list counts as neither. It is
    1 - 2 K / pairs with K the distance K^(1/2) between top-k lists (Fagin, Kumar and Sivakumar 2003, SIAM J. Discrete
    Math. 17(1)). Equal lists score 1, reversed ones -1, disjoint ones of ten places -.53.
    """
    n, p, q = pair.same.shape
    in_both = np.any(pair.same, axis=2)
    extra = pair.b_filled & ~pair.same.any(axis=1)
    in_a = np.concatenate([np.broadcast_to(np.arange(p), (n, p)), np.full((n, q), p)], axis=1).astype(np.int8)
    place_in_b = np.where(in_both, pair.same.argmax(axis=2), q)
    in_b = np.concatenate([place_in_b, np.broadcast_to(np.arange(q), (n, q))], axis=1).astype(np.int8)
    counted = np.concatenate([pair.a_filled, extra], axis=1)
    order = _order(in_a) * _order(in_b) * (counted[:, :, None] & counted[:, None, :])
    union = counted.sum(axis=1)
    pairs = union * (union - 1)
    concordance = order.sum(axis=(1, 2), dtype=np.int64)
    # One item in all is no pair: the lists agree if both name it.
    return np.asarray(np.where(pairs > 0, concordance / np.maximum(pairs, 1), in_both.any(axis=1)), np.float64)


def _order(places: NDArray[np.int8]) -> NDArray[np.int8]:
    """Sign of place i - place j for all pairs of a row's places [n, m]: int8 [n, m, m]."""
    signs: NDArray[np.int8] = np.sign(places[:, :, None] - places[:, None, :])
    return signs
