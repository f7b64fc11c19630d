"""Correlations, AUC and F1 with intervals that resample users: rows of one user are drawn together or not at all.

Every figure comes with all its resamples, so that differences between methods are paired. `group` and `weights` are
those of `cases.group_users` and `cases.resampling_weights`: column 0 of the weights takes everybody once.
Not here: scores of labels (`scoring`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.estimates import Estimate

Doubles = NDArray[np.float64]

_LOW, _HIGH = 2.5, 97.5
_TINY = 1e-18


def estimate(resampled: Doubles) -> Estimate:
    """The value (entry 0) and the 2.5th and 97.5th percentile of its resamples, of float64 [1 + resamples]."""
    low, high = np.percentile(resampled[1:], (_LOW, _HIGH)) if len(resampled) > 1 else (resampled[0], resampled[0])
    return Estimate(float(resampled[0]), float(low), float(high))


def correlations(
    predicted: Doubles, targets: Doubles, group: NDArray[np.int64], weights: NDArray[np.float32]
) -> Doubles:
    """Pearson's r of each column of `predicted` with that of `targets` [n, G]: float64 [G, 1 + resamples].

    0 where either does not vary.
    """
    # Centred first: sums of squares of what lies far from 0 would lose its digits.
    x, y = predicted - predicted.mean(axis=0), targets - targets.mean(axis=0)
    sums = [_by_group(values, group, len(weights)) for values in (x, y, x * x, y * y, x * y)]
    size = np.bincount(group, minlength=len(weights)).astype(np.float64) @ weights
    mx, my, mxx, myy, mxy = (table.T @ weights / size for table in sums)
    above, below = mxy - mx * my, (mxx - mx**2) * (myy - my**2)
    r: Doubles = np.divide(above, np.sqrt(np.maximum(below, 0)), out=np.zeros_like(above), where=below > _TINY)
    return r


def aucs(
    predicted: Doubles, positive: NDArray[np.bool_], group: NDArray[np.int64], weights: NDArray[np.float32]
) -> Doubles:
    """Area under the ROC curve of each column, float64 [G, 1 + resamples]; ties count half, .5 without a class."""
    return np.stack([_auc(predicted[:, at], positive[:, at], group, weights) for at in range(predicted.shape[1])])


def f1s(
    called: NDArray[np.bool_], positive: NDArray[np.bool_], group: NDArray[np.int64], weights: NDArray[np.float32]
) -> Doubles:
    """F1 of what was called positive [n, G], at the mix of the rows: float64 [G, 1 + resamples]; 0 without any."""
    both = _by_group((called & positive).astype(np.float64), group, len(weights)).T @ weights
    either = _by_group(called.astype(np.float64) + positive, group, len(weights)).T @ weights
    f1: Doubles = np.divide(2 * both, either, out=np.zeros_like(both), where=either > 0)
    return f1


def _auc(
    predicted: Doubles, positive: NDArray[np.bool_], group: NDArray[np.int64], weights: NDArray[np.float32]
) -> Doubles:
    order = np.argsort(predicted, kind="stable")
    ranked = predicted[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    drawn = weights[group[order]].astype(np.float64)
    hits = np.add.reduceat(drawn * positive[order, None], starts, axis=0)
    misses = np.add.reduceat(drawn * ~positive[order, None], starts, axis=0)
    below = np.cumsum(misses, axis=0) - misses
    won = (hits * (below + misses / 2)).sum(axis=0)
    pairs = hits.sum(axis=0) * misses.sum(axis=0)
    auc: Doubles = np.divide(won, pairs, out=np.full(len(won), 0.5), where=pairs > 0)
    return auc


def _by_group(values: Doubles, group: NDArray[np.int64], groups: int) -> Doubles:
    """Column sums per group, float64 [groups, G]."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    table = np.zeros((groups, values.shape[1]))
    table[ordered[starts]] = np.add.reduceat(values[order], starts, axis=0)
    return table
