"""Intervals of effects from one set of draws of users: everything is paired with the unsteered lists.

Users are drawn with replacement, as often as there are users; sums over a draw are one matrix product for all doses.
Intervals are the value and 1.96 standard deviations of its draws. **Simultaneous** intervals over several doses take,
instead of 1.96, the 95 % quantile over draws of the largest deviation, in standard deviations, of any of them (max-t;
Westfall and Young 1993): all of them hold at once in 95 of 100 panels. Not here: which quantities (`measuring`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.estimates import Estimate
from recsae.significance import Z95

DRAWS = 500

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Drawn:
    """A figure of the panel and the same figure of every draw: `value` float64 [...], `draws` float64 [b, ...]."""

    value: Doubles
    draws: Doubles

    @property
    def error(self) -> Doubles:
        """Standard deviation over draws, float64 [...]."""
        spread: Doubles = self.draws.std(axis=0, ddof=1)
        return spread

    def interval(self) -> tuple[Doubles, Doubles]:
        """Ends of the 95 % interval of each figure by itself."""
        reach = Z95 * self.error
        return self.value - reach, self.value + reach


def user_draws(users: int, seed: int = 0, draws: int = DRAWS) -> Floats:
    """How often each draw holds each user, float32 [draws, users]; rows sum to `users`."""
    counts = np.random.default_rng(seed).multinomial(users, np.full(users, 1 / users), size=draws)
    return counts.astype(np.float32)


def totals(weights: Floats, columns: Floats) -> Drawn:
    """Sums over users of `columns` float32 [n, ...]: of the panel and of every draw of `weights` [b, n]."""
    flat = columns.reshape(len(columns), -1)
    shape = columns.shape[1:]
    drawn = (weights @ flat).astype(np.float64).reshape(len(weights), *shape)
    return Drawn(flat.sum(axis=0, dtype=np.float64).reshape(shape), drawn)


def ratio(above: Drawn, below: Drawn) -> Drawn:
    """`above` over `below`, whose shapes broadcast; 0 where there is nothing below."""

    def divided(a: Doubles, b: Doubles) -> Doubles:
        shape = np.broadcast_shapes(a.shape, b.shape)
        return np.divide(a, b, out=np.zeros(shape), where=np.broadcast_to(b > 0, shape))

    return Drawn(divided(above.value, below.value), divided(above.draws, below.draws))


def log_odds_change(after: Drawn, before: Drawn, of: float) -> Drawn:
    """Ln odds of the share `after / of` minus that of `before / of`, counts smoothed by half an item."""

    def logit(count: Doubles) -> Doubles:
        made: Doubles = np.log((count + 0.5) / np.maximum(of - count + 0.5, 0.5))
        return made

    return Drawn(logit(after.value) - logit(before.value), logit(after.draws) - logit(before.draws))


def simultaneous_upper(parts: list[Drawn]) -> list[Doubles]:
    """Upper ends of intervals that hold at once for all last entries of all parts: [..., t] each, together per [...].

    A figure that no draw changes is known exactly and widens nothing.
    """
    errors = [part.error for part in parts]
    largest = np.zeros(parts[0].draws.shape[:-1])
    for part, error in zip(parts, errors, strict=True):
        distance = np.abs(part.draws - part.value)
        scaled = np.divide(distance, error, out=np.zeros_like(distance), where=error > 0)
        largest = np.maximum(largest, scaled.max(axis=-1))
    critical = np.maximum(np.quantile(largest, 0.95, axis=0), Z95)
    return [part.value + critical[..., None] * error for part, error in zip(parts, errors, strict=True)]


def estimate(drawn: Drawn, at: tuple[int, ...]) -> Estimate:
    """One figure with its interval."""
    reach = Z95 * float(
        drawn.draws.reshape(len(drawn.draws), -1)[:, np.ravel_multi_index(at, drawn.value.shape)].std(ddof=1)
    )
    value = float(drawn.value[at])
    return Estimate(value, value - reach, value + reach)
