"""Differences between lists with and without a policy, with 95 % intervals: pure functions of one value per user.

**Paired**: the same users twice; the mean of their own differences. **Unpaired**: two groups of users; Welch's
difference of means (Welch 1947, Biometrika 34). Users are the independent units, and intervals are t intervals: the
difference and t standard errors. Where no user of a sample differs from another, a standard error of 0 would claim
certainty; the sample then counts as none of n cases (a share of at most 1 - .025^(1/n)), so values must lie in 0..1.
Not here: who is in which arm (`arms`), where lists come from (`recsae.cli.replay`, `recsae.exposures`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.recommenders.metrics import ndcg_gains, ranks_in_lists
from recsae.significance import Z95, benjamini_hochberg, two_sided_p

# Two-sided 5 % and a power of 80 %: a difference of so many standard errors is found four times out of five.
_DETECTED_ERRORS = Z95 + 0.841621
LEAST_UNITS = 2
_AT_ONCE = 1 << 22

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Differences:
    """Of m measures, float64 [m] each: means `after` and `before`, `value` = after - before, its 95 % interval and p.

    `detectable` is the difference that so many units (`n_after`, `n_before`) would have shown with a power of 80 %.
    """

    after: Doubles
    before: Doubles
    value: Doubles
    low: Doubles
    high: Doubles
    p: Doubles
    detectable: Doubles
    n_after: int
    n_before: int

    def adjusted(self, measures: slice) -> Doubles:
        """P of all measures, those in `measures` adjusted for how many they are (Benjamini and Hochberg 1995)."""
        adjusted = self.p.copy()
        adjusted[measures] = benjamini_hochberg(self.p[measures])
        return adjusted


def paired(after: Doubles, before: Doubles) -> Differences:
    """Of the same users, row by row: `after` and `before` float64 [n, m] of values in 0..1.

    InvalidRequestError for fewer than two users, or when the shapes differ.
    """
    if after.shape != before.shape:
        raise InvalidRequestError(f"paired values have shapes {after.shape} and {before.shape}; give one row per user")
    own = after - before
    error = _standard_error(own)
    freedom = np.full(own.shape[1], float(len(own) - 1))
    return _differences(after, before, own.mean(axis=0), error, freedom)


def unpaired(after: Doubles, before: Doubles) -> Differences:
    """Of two groups of users: `after` float64 [n, m] and `before` [o, m] of values in 0..1 (differences: -1..1).

    InvalidRequestError for fewer than two users in a group.
    """
    parts = [_standard_error(values) ** 2 for values in (after, before)]
    total = parts[0] + parts[1]
    freedom = total**2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (after, before), strict=True))
    return _differences(after, before, after.mean(axis=0) - before.mean(axis=0), np.sqrt(total), freedom)


def mean_interval(values: Doubles) -> tuple[float, float, float]:
    """The mean of float64 [n] in 0..1, and the ends of its 95 % interval; of one unit the mean alone, thrice."""
    mean = float(values.mean())
    if len(values) < LEAST_UNITS:
        return mean, mean, mean
    reach = float((t_quantile(np.array([len(values) - 1.0])) * _standard_error(values[:, None]))[0])
    return mean, max(0.0, mean - reach), min(1.0, mean + reach)


def quality(items: Ints, scores: NDArray[np.float32], targets: NDArray[np.integer[Any]], k: int) -> Doubles:
    """HR@k and NDCG@k of each user, float64 [n, 2], from lists [n, m] (best first, -inf = unfilled) and target items.

    `m` > k makes ties at place k pessimistic, as everywhere (`recsae.recommenders.metrics`).
    """
    ranks = ranks_in_lists(items, scores, targets)
    return np.stack([(ranks <= k).astype(np.float64), ndcg_gains(ranks, k)], axis=1)


def facet_shares(lists: Ints, facets: NDArray[np.float32]) -> Doubles:
    """Share of each list's items that carry each facet, float64 [n, f]; 0 where the list is empty.

    `lists` int64 [n, k] of item indices, 0 = an empty place or an item nobody knows; `facets` 0/1 [n_items + 1, f],
    row 0 all zero.
    """
    shares = np.zeros((len(lists), facets.shape[1]))
    filled = np.maximum((lists > 0).sum(axis=1), 1)
    step = max(1, _AT_ONCE // max(1, lists.shape[1] * facets.shape[1]))
    for begin in range(0, len(lists), step):  # so that memory does not grow with users
        part = slice(begin, begin + step)
        shares[part] = facets[lists[part]].sum(axis=1, dtype=np.float64) / filled[part, None]
    return shares


def t_quantile(freedom: Doubles) -> Doubles:
    """The 97.5 % quantile of Student's t with `freedom` degrees of freedom, within .5 % from 4 on and never too small.

    The normal quantile turned back by Wallace's approximation (1959, Annals of Mathematical Statistics 30).
    """
    scaled = Z95 * (8 * freedom + 3) / (8 * freedom + 1)
    found: Doubles = np.sqrt(freedom * np.expm1(np.minimum(scaled**2 / freedom, 700.0)))
    return found


def _normal_of(t: Doubles, freedom: Doubles) -> Doubles:
    """The normal deviate as unlikely as `t`: the inverse of what `t_quantile` does."""
    made: Doubles = (8 * freedom + 1) / (8 * freedom + 3) * np.sqrt(freedom * np.log1p(t**2 / freedom))
    return made


def _differences(after: Doubles, before: Doubles, value: Doubles, error: Doubles, freedom: Doubles) -> Differences:
    reach = t_quantile(freedom) * error
    return Differences(
        after=after.mean(axis=0),
        before=before.mean(axis=0),
        value=value,
        low=value - reach,
        high=value + reach,
        p=two_sided_p(_normal_of(value / error, freedom)),
        detectable=_DETECTED_ERRORS * error,
        n_after=len(after),
        n_before=len(before),
    )


def _standard_error(values: Doubles) -> Doubles:
    """Of the mean of each column of [n, m]; where nothing varies, what none of n cases leaves open."""
    n = len(values)
    if n < LEAST_UNITS:
        raise InvalidRequestError(f"{n} units cannot be compared; at least {LEAST_UNITS} are needed in each arm")
    error: Doubles = values.std(axis=0, ddof=1) / np.sqrt(n)
    still = np.ptp(values, axis=0) == 0  # the deviation of equal numbers may be a rounding error
    error[still] = (1 - 0.025 ** (1 / n)) / Z95
    return error
