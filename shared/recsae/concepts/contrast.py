"""Which concepts tell two groups of users apart: firing rates, strengths and ranks, each user counted once.

Pure arrays. A user with several rows (several interests) enters with their mean, so that intervals are over users. Not
here: who is in a group, and where activations come from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.significance import Z95, benjamini_hochberg, two_sided_p, wilson

Doubles = NDArray[np.float64]

LEAST_FIRING = 10
# Columns whose ranks are taken at once: 4,000 users by 256 latents are 8 MB per array.
_AT_ONCE = 256


@dataclass(frozen=True)
class Group:
    """Firings of a group: `latents` int [n, k] and `strengths` float32 [n, k] (0 = silent) of its rows.

    `user` int64 [n] says whose row it is, by any number.
    """

    latents: NDArray[np.integer]
    strengths: NDArray[np.float32]
    user: NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """Values with their 95 % intervals, float64 [w] each."""

    value: Doubles
    low: Doubles
    high: Doubles


@dataclass(frozen=True)
class Contrast:
    """How all latents differ between groups A and B; float64 [w] each.

    `rate` is the share of users it fires for, `strength` their mean strength (0 where silent), differences are A - B,
    `log_odds` the natural log of the odds ratio of firing. `auc` = P(A stronger than B), ties halved; `q` its p by
    Wilcoxon's rank sum, adjusted over latents with at least 10 firing users, NaN for the others (`tested` says which).
    """

    users_a: int
    users_b: int
    rate_a: Doubles
    rate_b: Doubles
    rate_difference: Interval
    log_odds: Interval
    strength_a: Doubles
    strength_b: Doubles
    strength_difference: Interval
    auc: Doubles
    q: Doubles

    @property
    def tested(self) -> NDArray[np.int64]:
        """Latents with enough firing users, smallest q first, then the largest difference of rates."""
        latents = np.flatnonzero(np.isfinite(self.q))
        order = np.lexsort((-np.abs(self.rate_difference.value[latents]), self.q[latents]))
        ranked: NDArray[np.int64] = latents[order]
        return ranked


def contrast(a: Group, b: Group, width: int) -> Contrast:
    """Compares two groups over `width` latents; InvalidRequestError for a group of fewer than two users."""
    fired_a, strength_a = _by_user(a, width)
    fired_b, strength_b = _by_user(b, width)
    if min(len(fired_a), len(fired_b)) < 2:
        raise InvalidRequestError(
            f"the groups have {len(fired_a)} and {len(fired_b)} users; give at least two users to each"
        )
    auc, p = _rank_sum(strength_a, strength_b)
    enough = (fired_a > 0).sum(axis=0) + (fired_b > 0).sum(axis=0) >= LEAST_FIRING
    rate_a, rate_b = fired_a.mean(axis=0, dtype=np.float64), fired_b.mean(axis=0, dtype=np.float64)
    return Contrast(
        users_a=len(fired_a),
        users_b=len(fired_b),
        rate_a=rate_a,
        rate_b=rate_b,
        rate_difference=_difference_of_shares(rate_a, len(fired_a), rate_b, len(fired_b)),
        log_odds=_log_odds(rate_a, len(fired_a), rate_b, len(fired_b)),
        strength_a=strength_a.mean(axis=0, dtype=np.float64),
        strength_b=strength_b.mean(axis=0, dtype=np.float64),
        strength_difference=_difference_of_means(strength_a, strength_b),
        auc=auc,
        q=benjamini_hochberg(np.where(enough, p, np.nan)),
    )


def _by_user(group: Group, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Share of a user's rows on which each latent fires, and mean strength over them, float32 [users, w]."""
    _, owner = np.unique(group.user, return_inverse=True)
    users = int(owner.max()) + 1 if len(owner) else 0
    rows = np.bincount(owner, minlength=users)
    fires = group.strengths > 0
    place = (owner[:, None] * width + group.latents)[fires]
    size = users * width
    shares = np.bincount(place, minlength=size).reshape(users, width) / rows[:, None]
    strengths = np.bincount(place, group.strengths[fires], minlength=size).reshape(users, width) / rows[:, None]
    return shares.astype(np.float32), strengths.astype(np.float32)


def _difference_of_shares(a: Doubles, n_a: int, b: Doubles, n_b: int) -> Interval:
    """Newcombe 1998, method 10. With shares within users it is too wide, never too narrow."""
    (low_a, high_a), (low_b, high_b) = wilson(a, n_a), wilson(b, n_b)
    value = a - b
    return Interval(value, value - np.hypot(a - low_a, high_b - b), value + np.hypot(high_a - a, b - low_b))


def _log_odds(a: Doubles, n_a: int, b: Doubles, n_b: int) -> Interval:
    """Half a user is added to each of the four cells, so that a silent group has an interval (Haldane, Anscombe)."""
    cells = [a * n_a + 0.5, (1 - a) * n_a + 0.5, b * n_b + 0.5, (1 - b) * n_b + 0.5]
    value = np.log(cells[0] * cells[3] / (cells[1] * cells[2]))
    half = Z95 * np.sqrt(sum(1 / cell for cell in cells))
    return Interval(value, value - half, value + half)


def _difference_of_means(a: NDArray[np.float32], b: NDArray[np.float32]) -> Interval:
    value = a.mean(axis=0, dtype=np.float64) - b.mean(axis=0, dtype=np.float64)
    variance = a.var(axis=0, dtype=np.float64, ddof=1) / len(a) + b.var(axis=0, dtype=np.float64, ddof=1) / len(b)
    half = Z95 * np.sqrt(variance)
    return Interval(value, value - half, value + half)


def _rank_sum(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[Doubles, Doubles]:
    """AUC and two-sided p by Wilcoxon's rank sum with midranks and its normal limit (Mann and Whitney 1947), [w]."""
    n_a, n_b, width = len(a), len(b), a.shape[1]
    n = n_a + n_b
    auc, p = np.full(width, 0.5), np.ones(width)
    for at in range(0, width, _AT_ONCE):
        part = slice(at, at + _AT_ONCE)
        ranks, tied = _midranks(np.concatenate([a[:, part], b[:, part]]))
        above = ranks[:n_a].sum(axis=0) - n_a * (n_a + 1) / 2
        auc[part] = above / (n_a * n_b)
        variance = n_a * n_b / 12 * (n + 1 - tied / (n * (n - 1)))
        spread = np.sqrt(np.maximum(variance, 1e-12))
        p[part] = np.where(variance > 1e-9, two_sided_p((above - n_a * n_b / 2) / spread), 1.0)
    return auc, p


def _midranks(values: NDArray[np.float32]) -> tuple[Doubles, Doubles]:
    """Ranks from 1 within each column, equal values sharing their mean; and the sum of t^3 - t over ties of t."""
    n = len(values)
    order = np.argsort(values, axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, axis=0)
    begins = np.ones(values.shape, bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    ends = np.ones(values.shape, bool)
    ends[:-1] = begins[1:]
    place = np.arange(n)[:, None]
    first = np.maximum.accumulate(np.where(begins, place, 0), axis=0)
    last = np.minimum.accumulate(np.where(ends, place, n - 1)[::-1], axis=0)[::-1]
    ranks = np.empty(values.shape, np.float64)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=0)
    count = (last - first + 1).astype(np.float64)
    tied: Doubles = (count * count - 1).sum(axis=0)
    return ranks, tied
