"""NDCG kept by reconstructions, by full ranking with a dot-product head, with paired bootstrap intervals over users.

A plain second implementation of what `recsae.sae.fidelity` measures through a served model. numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.fidelity_rows import Floats, Ints, Targets
from recsae.errors import InvalidRequestError

_K = 20
_ROWS_AT_ONCE = 1_024
_RESAMPLES = 2_000
_RESAMPLES_AT_ONCE = 100
_INTERVAL = (2.5, 97.5)


@dataclass(frozen=True)
class Head:
    """Item vectors float32 [n_items + 1, d] and bias float32 [n_items + 1]; row 0 is padding."""

    vectors: Floats
    bias: Floats

    def ranks(self, x: Floats, targets: Targets) -> Ints:
        """Ranks int64 [n] from 1 of the targets among items not consumed; ties rank the target last."""
        ranks = np.empty(len(x), np.int64)
        for begin in range(0, len(x), _ROWS_AT_ONCE):
            end = min(begin + _ROWS_AT_ONCE, len(x))
            scores = x[begin:end] @ self.vectors.T + self.bias
            scores[:, 0] = -np.inf
            first, last = np.searchsorted(targets.consumed_row, [begin, end])
            scores[targets.consumed_row[first:last] - begin, targets.consumed_item[first:last]] = -np.inf
            own = scores[np.arange(end - begin), targets.item[begin:end]]
            ranks[begin:end] = (scores >= own[:, None]).sum(axis=1)  # all of them for a target consumed before
        return ranks


@dataclass(frozen=True)
class Share:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def rounded(self) -> tuple[float, list[float]]:
        """For reports."""
        return round(self.value, 4), [round(self.low, 4), round(self.high, 4)]


def ndcg_gains(ranks: Ints) -> NDArray[np.float64]:
    """NDCG@20 of each row with its one relevant item, float64 [n]."""
    return np.where(ranks <= _K, 1.0 / np.log2(np.minimum(ranks, _K) + 1.0), 0.0)


def kept(original: Ints, sides: Mapping[str, Ints], users: Ints, seed: int = 0) -> dict[str, Share]:
    """NDCG@20 kept by each side, and "A - B" for the difference of the first side to every other; from equal draws.

    `original` and each side are ranks int64 [n] of the same targets; rows of a user are resampled together.
    """
    names = list(sides)
    columns = np.stack([ndcg_gains(original), *(ndcg_gains(sides[name]) for name in names)], axis=1)
    distinct, place = np.unique(users, return_inverse=True)
    sums = np.zeros((len(distinct), columns.shape[1]))
    np.add.at(sums, place, columns)
    generator, drawn = np.random.default_rng(seed), []
    for _ in range(0, _RESAMPLES, _RESAMPLES_AT_ONCE):
        counts = generator.multinomial(len(sums), np.full(len(sums), 1.0 / len(sums)), size=_RESAMPLES_AT_ONCE)
        drawn.append(counts @ sums)
    totals, samples = sums.sum(axis=0), np.concatenate(drawn)
    if not totals[0] > 0:
        raise InvalidRequestError("no target ranks within 20 with the original activations, so nothing can be kept")
    samples = samples[samples[:, 0] > 0]
    ratios, sampled = totals[1:] / totals[0], samples[:, 1:] / samples[:, :1]
    found = {name: _share(ratios[at], sampled[:, at]) for at, name in enumerate(names)}
    for at, name in enumerate(names[1:], start=1):
        found[f"{names[0]} - {name}"] = _share(ratios[0] - ratios[at], sampled[:, 0] - sampled[:, at])
    return found


def _share(value: float, samples: NDArray[np.float64]) -> Share:
    low, high = np.percentile(samples, _INTERVAL)
    return Share(float(value), float(low), float(high))
