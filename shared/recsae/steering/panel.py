"""How two sets of lists of the same users differ: before and after a change, with 95 % intervals over users.

Everything is paired: an interval is that of the mean of the users' own differences, 1.96 standard errors to each side.
What is no mean over users (how much of the catalogue is shown to anybody) gets its error by leaving out each user in
turn (jackknife; for a mean it is the usual one; on average not too small: Efron and Stein 1981, Annals of Statistics
9). Pure functions of lists. Not here: where lists come from, and what items are (`recsae.concepts.catalogue`).

Lists are int64 [n, k]: row u is what user u is shown, best first, items as numbers from 0, each once; -1 = no item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.estimates import Estimate
from recsae.significance import Z95

# Comparisons of places held at once, a byte each.
_CELLS_AT_ONCE = 1 << 22

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Pair:
    """A figure before and after, and the difference with its interval."""

    before: float
    after: float
    difference: Estimate


@dataclass(frozen=True)
class Moves:
    """Of each of n users: `overlap` shared items over k, `entered` items that are new, float64 [n].

    `moved`: mean absolute move in ranks of the items that stayed, NaN where none did. `rank_before` int64 [n, k]: of
    each item after, from 1; 0 = it was not there. `changed` bool [n]: the list is another one.
    """

    overlap: Doubles
    entered: Doubles
    moved: Doubles
    rank_before: Ints
    changed: Bools


def mean_over(values: Doubles) -> Estimate:
    """Mean over users of `values` [n] and its interval, NaN left out; all 0 of nobody, no width of one user."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Estimate(0.0, 0.0, 0.0)
    mean = float(known.mean())
    reach = Z95 * float(known.std(ddof=1)) / np.sqrt(len(known)) if len(known) > 1 else 0.0
    return Estimate(mean, mean - reach, mean + reach)


def paired(before: Doubles, after: Doubles) -> Pair:
    """Means over the users who have both values [n] (the others NaN), and the difference."""
    both = np.isfinite(before) & np.isfinite(after)
    before, after = before[both], after[both]
    if not len(before):
        return Pair(0.0, 0.0, Estimate(0.0, 0.0, 0.0))
    return Pair(float(before.mean()), float(after.mean()), mean_over(after - before))


def moves(before: Ints, after: Ints) -> Moves:
    """How the lists of each user differ; both of one shape [n, k], k >= 1."""
    n, k = after.shape
    rank_before = np.zeros((n, k), np.int64)
    step = max(1, _CELLS_AT_ONCE // (k * k))
    for at in range(0, n, step):
        old, new = before[at : at + step], after[at : at + step]
        same = (new[:, :, None] == old[:, None, :]) & (new >= 0)[:, :, None]
        rank_before[at : at + step] = np.where(same.any(axis=2), same.argmax(axis=2) + 1, 0)
    stayed = rank_before > 0
    kept = stayed.sum(axis=1)
    distance = np.abs(rank_before - np.arange(1, k + 1)) * stayed
    moved = np.divide(distance.sum(axis=1), kept, out=np.full(n, np.nan), where=kept > 0)
    entered = (after >= 0).sum(axis=1) - kept
    return Moves(kept / k, entered.astype(np.float64), moved, rank_before, (before != after).any(axis=1))


def places_held(lists: Ints, member: Bools) -> Doubles:
    """Share of each list's items that are `member` [items], float64 [n]; 0 of an empty list."""
    filled = lists >= 0
    held = (member[np.where(filled, lists, 0)] & filled).sum(axis=1) if len(member) else np.zeros(len(lists))
    share: Doubles = np.divide(held, filled.sum(axis=1), out=np.zeros(len(lists)), where=filled.any(axis=1))
    return share


def mean_value(lists: Ints, values: Doubles) -> Doubles:
    """Mean of `values` [items] over each list, float64 [n]; items without one (NaN) count nowhere, NaN of none."""
    filled = lists >= 0
    if not len(values):
        return np.full(len(lists), np.nan)
    found = np.where(filled, values[np.where(filled, lists, 0)], np.nan)
    known = np.isfinite(found)
    total = np.where(known, found, 0.0).sum(axis=1)
    mean: Doubles = np.divide(total, known.sum(axis=1), out=np.full(len(lists), np.nan), where=known.any(axis=1))
    return mean


def weights(lists: Ints, items: int) -> Doubles:
    """The part of the lists that each item holds, float64 [items]: every list counts 1 / n and its items alike."""
    filled = lists >= 0
    each = np.repeat(1.0 / np.maximum(1, filled.sum(axis=1)), filled.sum(axis=1)) / max(1, len(lists))
    held: Doubles = np.bincount(lists[filled], weights=each, minlength=items).astype(np.float64)
    return held


def coverage(before: Ints, after: Ints, items: int, catalogue: int) -> Pair:
    """Share of a catalogue of so many items that is in at least one list; items are numbered below `items`."""
    shown, only = zip(*(_shown(lists, items) for lists in (before, after)), strict=True)
    n, of = len(before), max(1, catalogue)
    # Without user u the lists show `only[u]` items less.
    left_out = (only[1] - only[0]).astype(np.float64)
    error = float(np.sqrt((n - 1) / n * np.square(left_out - left_out.mean()).sum())) if n > 1 else 0.0
    difference, reach = (shown[1] - shown[0]) / of, Z95 * error / of
    estimate = Estimate(difference, difference - reach, difference + reach)
    return Pair(shown[0] / of, shown[1] / of, estimate)


def most_changed(before: Doubles, after: Doubles, offsets: Ints, carried: Ints, most: int) -> Ints:
    """The facets whose share of the lists changed, largest change first, int64 [<= most].

    `before` and `after` [items] are `weights`; item i carries `carried[offsets[i]:offsets[i + 1]]`.
    """
    change = np.bincount(carried, weights=np.repeat(after - before, np.diff(offsets)), minlength=1)
    order = np.argsort(-np.abs(change), kind="stable")[:most]
    # A share of 1e-9 of the places is what is left of sums that cancel.
    return order[np.abs(change[order]) > 1e-9].astype(np.int64)


def _shown(lists: Ints, items: int) -> tuple[int, Ints]:
    """How many items are in any list, and how many are in that of each user alone, int64 [n]."""
    filled = lists >= 0
    times = np.bincount(lists[filled], minlength=max(1, items))
    alone = (times[np.where(filled, lists, 0)] == 1) & filled
    return int((times > 0).sum()), alone.sum(axis=1)
