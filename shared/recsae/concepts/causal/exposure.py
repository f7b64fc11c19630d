"""Who gets shown: the long tail's part of lists, how unevenly items are shown, how two groups' lists differ.

Pure functions of lists. Not here: where lists come from (`turning`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_HEAD_SHARE = 0.2

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Exposure:
    """Of some lists.

    `tail_share` share of places held by the long tail; `gini` coefficient of how often each item of the catalogue is
    shown (0 = all alike, 1 = one item only); `mean_log_count` mean ln(1 + interactions) of what is shown.
    """

    tail_share: float
    gini: float
    mean_log_count: float


def long_tail(counts: Ints) -> Bools:
    """All but the most interacted-with fifth of items, bool [n_items + 1]; `counts` [n_items + 1], padding False."""
    order = 1 + np.argsort(-counts[1:], kind="stable")
    tail = np.ones(len(counts), bool)
    tail[0] = False
    tail[order[: int(np.ceil(_HEAD_SHARE * len(order)))]] = False
    return tail


def exposure(lists: Ints, counts: Ints) -> Exposure:
    """Of `lists` int64 [n, 10] (0 = an empty place) by a catalogue's interaction `counts` [n_items + 1]."""
    shown = lists[lists > 0]
    if not len(shown):
        return Exposure(0.0, 0.0, 0.0)
    times = np.bincount(shown, minlength=len(counts))[1:]
    return Exposure(
        float(long_tail(counts)[shown].mean()), gini(times), float(np.log1p(counts[shown].astype(np.float64)).mean())
    )


def gini(times: Ints) -> float:
    """Gini coefficient of non-negative numbers, 0 where all are 0."""
    ordered = np.sort(times).astype(np.float64)
    n, total = len(ordered), float(ordered.sum())
    if total <= 0:
        return 0.0
    return float((2 * (np.arange(1, n + 1) * ordered).sum() / (n * total)) - (n + 1) / n)


def list_gap(lists: Ints, group: Bools, n_items: int) -> float:
    """Total variation between what two groups are shown: 0 = the same items as often, 1 = nothing in common.

    Two samples of one population differ too: compare with `chance_gap`.
    """
    shares = [
        np.bincount(lists[side][lists[side] > 0], minlength=n_items + 1).astype(np.float64) for side in (group, ~group)
    ]
    first, second = (one / max(1.0, one.sum()) for one in shares)
    return float(0.5 * np.abs(first - second).sum())


def chance_gap(lists: Ints, group: Bools, n_items: int, seed: int = 0, draws: int = 50) -> float:
    """Mean `list_gap` of groups of these sizes drawn at random."""
    random = np.random.default_rng(seed)
    return float(np.mean([list_gap(lists, random.permutation(group), n_items) for _ in range(draws)]))
