"""Sums by user, and ratios of their totals with intervals that resample users.

Rows of one user are not independent, so users are what is drawn. All columns share the draws: any two ratios of one
`Resamples` are paired, and so is their difference. Not here: what is summed (`fidelity`). numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError

RESAMPLES = 2_000
_COUNTS_AT_ONCE = 1 << 21  # of draws and of their counts: 16 MiB each
_INTERVAL = (2.5, 97.5)

Doubles = NDArray[np.float64]
Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Interval:
    """A value and the 95 % interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class UserSums:
    """`users` int64 [u], ascending and distinct; `values` float64 [u, m], one column per name. They add up."""

    users: NDArray[np.int64]
    names: tuple[str, ...]
    values: Doubles

    @classmethod
    def of(cls, users: Integers, columns: Mapping[str, Doubles]) -> UserSums:
        """Of rows: `users` [n] says whose each is, `columns` [n] each are summed over the rows of a user."""
        values = np.stack(list(columns.values()), axis=1)
        if values.shape[0] != len(users):
            raise InvalidRequestError(f"{len(users)} owners of {values.shape[0]} rows")
        return cls(*_grouped(users, tuple(columns), values))

    def __add__(self, other: UserSums) -> UserSums:
        if self.names != other.names:
            raise InvalidRequestError(f"sums of {self.names} and of {other.names} do not add up")
        users = np.concatenate([self.users, other.users])
        return UserSums(*_grouped(users, self.names, np.concatenate([self.values, other.values])))

    @property
    def totals(self) -> dict[str, float]:
        """Sums over all users, by name."""
        return dict(zip(self.names, self.values.sum(axis=0).tolist(), strict=True))

    def resample(self, seed: int, resamples: int | None = None) -> Resamples:
        """Totals of users drawn with replacement, as many as there are, `resamples` times (default 2,000)."""
        u = len(self.users)
        if not u:
            raise InvalidRequestError("there are no users to resample")
        times = RESAMPLES if resamples is None else resamples
        generator = np.random.default_rng(seed)
        samples = np.empty((times, len(self.names)))
        at_once = max(1, _COUNTS_AT_ONCE // u)
        for begin in range(0, times, at_once):
            rows = min(at_once, times - begin)
            draws = generator.integers(0, u, size=(rows, u))
            draws += np.arange(rows)[:, None] * u
            counts = np.bincount(draws.ravel(), minlength=rows * u).reshape(rows, u)
            samples[begin : begin + rows] = counts @ self.values
        return Resamples(self.names, self.values.sum(axis=0), samples)


@dataclass(frozen=True)
class Resamples:
    """`totals` float64 [m] over all users, and over each draw of users: `samples` float64 [resamples, m]."""

    names: tuple[str, ...]
    totals: Doubles
    samples: Doubles

    def ratio(self, over: str, under: str, *, minus: str | None = None) -> Interval:
        """`over` / `under`, or (`over` - `minus`) / `under`, with the percentile interval of the draws.

        Draws in which `under` is zero say nothing and are left out. InvalidRequestError when its total is zero.
        """
        top, bottom = self._column(over, minus), self._column(under)
        if bottom.value == 0:
            raise InvalidRequestError(f"the sum of {under} is zero: it has no ratios")
        usable = bottom.samples != 0
        low, high = np.percentile(top.samples[usable] / bottom.samples[usable], _INTERVAL)
        return Interval(top.value / bottom.value, float(low), float(high))

    def _column(self, name: str, minus: str | None = None) -> _Column:
        at = self.names.index(name)
        value, samples = float(self.totals[at]), self.samples[:, at]
        if minus is None:
            return _Column(value, samples)
        other = self._column(minus)
        return _Column(value - other.value, samples - other.samples)


@dataclass(frozen=True)
class _Column:
    value: float
    samples: Doubles


def _grouped(
    users: Integers, names: tuple[str, ...], values: Doubles
) -> tuple[NDArray[np.int64], tuple[str, ...], Doubles]:
    if not len(users):
        return np.zeros(0, np.int64), names, values
    order = np.argsort(users, kind="stable")
    ordered = users[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return ordered[starts].astype(np.int64), names, np.add.reduceat(values[order], starts, axis=0)
