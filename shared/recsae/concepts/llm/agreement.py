"""How well ratings agree with true strengths: Pearson's correlation, and precision, recall and F1 of "rated 5 or more".

Intervals are percentiles of a bootstrap over users, never narrower than the textbook interval of as many independent
cases (Wilson's for shares, Fisher's for the correlation), because a bootstrap of a perfect score has no width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.cases import group_users, resampling_weights
from recsae.concepts.estimates import UNKNOWN, Estimate
from recsae.concepts.firings import STRONG
from recsae.significance import Z95, wilson

RATED_STRONG = 5.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Ratings beside true strengths; each with its 95 % interval, `UNKNOWN` where nothing could be counted."""

    correlation: Estimate = UNKNOWN
    precision: Estimate = UNKNOWN
    recall: Estimate = UNKNOWN
    f1: Estimate = UNKNOWN


def agreement(rated: Sequence[float], strength: Sequence[float], user: Sequence[int], seed: int = 0) -> Agreement:
    """Scores of n ratings (0 to 10) of cases of these true strengths and users.

    Constant ratings have correlation 0.
    """
    if not rated:
        return Agreement()
    x, y = np.asarray(rated, np.float64), np.asarray(strength, np.float64)
    yes, true = x >= RATED_STRONG, y >= STRONG
    group = group_users(np.asarray(user, np.int32), seed)
    groups = int(group.max()) + 1
    columns = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y, yes & true, yes, true])
    sums = np.stack([np.bincount(group, weights=column, minlength=groups) for column in columns])
    totals = sums @ resampling_weights(groups, seed=seed).astype(np.float64)
    n, sx, sy, sxx, syy, sxy, tp, called, positives = totals
    correlation = _ratio(n * sxy - sx * sy, np.sqrt(np.maximum((n * sxx - sx * sx) * (n * syy - sy * sy), 0)))
    return Agreement(
        correlation=_interval(correlation, _fisher(correlation[0], len(x))),
        precision=_share(_ratio(tp, called), called[0]),
        recall=_share(_ratio(tp, positives), positives[0]),
        f1=_share(_ratio(2 * tp, called + positives), (called[0] + positives[0]) / 2),
    )


def mean_over(values: Sequence[float], seed: int = 0) -> Estimate:
    """Mean of one value per concept, concepts resampled."""
    if not values:
        return UNKNOWN
    weights = resampling_weights(len(values), seed=seed).astype(np.float64)
    means = np.asarray(values, np.float64) @ weights / len(values)
    return _interval(means, (means[0], means[0]))


def _share(values: Floats, cases: float) -> Estimate:
    return _interval(values, _ends(wilson(values[0], cases))) if cases else UNKNOWN


def _interval(values: Floats, at_least: tuple[float, float]) -> Estimate:
    """The value (column 0) with the percentiles of the others, widened to `at_least`."""
    low, high = np.percentile(values[1:], (2.5, 97.5))
    return Estimate(float(values[0]), float(min(low, at_least[0])), float(max(high, at_least[1])))


def _ends(interval: tuple[Floats, Floats]) -> tuple[float, float]:
    return float(interval[0]), float(interval[1])


def _fisher(correlation: float, n: int) -> tuple[float, float]:
    if n <= 3:
        return -1.0, 1.0
    # A perfect correlation has no finite Fisher transform; one a rounding away from it says the same.
    z, half = math.atanh(max(-1 + 1e-9, min(1 - 1e-9, correlation))), Z95 / math.sqrt(n - 3)
    return math.tanh(z - half), math.tanh(z + half)


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.zeros(len(above)), where=below > 1e-12)
