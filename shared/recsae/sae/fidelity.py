"""What reconstruction costs in ranking quality: HR and NDCG kept when the head reads x_hat instead of x.

Kept = quality with x_hat / quality with x, on the same users, with a paired bootstrap interval. Always beside PCA-k and
adaptive PCA-k: at k >= d / 2 anything keeps everything. Not here: how ranks come about; a ranker is any function from
activations to the ranks of the users' targets. numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.sae.baselines import PrincipalAxes
from recsae.sae.runtime import SparseAutoencoder

CUTOFFS = (5, 10, 20)
_RESAMPLES = 2_000
_RESAMPLE_FLOATS = 1 << 22  # 32 MiB of counts at a time
_INTERVAL = (2.5, 97.5)

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ranks = NDArray[np.int64]
# Activations float32 [n, d] of n users -> ranks int64 [n] of their targets under full ranking, counted from 1.
Ranker = Callable[[Floats], Ranks]


@dataclass(frozen=True)
class Kept:
    """Quality with the original and the reconstructed activations, their ratio and its 95 % interval over users."""

    original: float
    reconstructed: float
    ratio: float
    low: float
    high: float


Quality = Mapping[str, Kept]


@dataclass(frozen=True)
class Fidelity:
    """Quality kept by measure ("hr@10", "ndcg@20", ...) for the SAE and for as many principal components."""

    sae: Quality
    pca: Quality
    adaptive_pca: Quality

    def scores(self) -> dict[str, float]:
        """Flat: "ndcg@10_kept", "ndcg@10_kept_low", ..., "ndcg@10_kept_pca", "ndcg@10_kept_adaptive_pca"."""
        flat: dict[str, float] = {}
        for name, kept in self.sae.items():
            flat |= {f"{name}_original": kept.original, f"{name}_kept": kept.ratio}
            flat |= {f"{name}_kept_low": kept.low, f"{name}_kept_high": kept.high}
            flat |= {
                f"{name}_kept_pca": self.pca[name].ratio,
                f"{name}_kept_adaptive_pca": self.adaptive_pca[name].ratio,
            }
        return flat


def fidelity(
    sae: SparseAutoencoder,
    axes: PrincipalAxes,
    x: Floats,
    ranker: Ranker,
    *,
    users: NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
) -> Fidelity:
    """Ranks with `x` [n, d], rows of users outside SAE training, and with three reconstructions of it.

    `users` [n] says whose each row is; without it every row is a user. `axes` are fitted on the SAE's training rows.
    The ranker is called four times.
    """
    ranks = ranker(x)
    k = min(sae.k, sae.d)
    return Fidelity(
        sae=quality_kept(ranks, ranker(sae.decode(sae.encode(x))), users=users, seed=seed),
        pca=quality_kept(ranks, ranker(axes.keep_first(x, k)), users=users, seed=seed),
        adaptive_pca=quality_kept(ranks, ranker(axes.keep_largest(x, k)), users=users, seed=seed),
    )


def quality_kept(
    original: Ranks, reconstructed: Ranks, *, users: NDArray[np.integer[Any]] | None = None, seed: int = 0
) -> dict[str, Kept]:
    """`Kept` for HR and NDCG at 5, 10, 20 from the ranks int64 [n] of the same n targets.

    `users` [n] says whose target each is: rows of one user are resampled together, since they are not independent.
    Measures of which the original has nothing to keep are left out.
    """
    if original.shape != reconstructed.shape or original.ndim != 1 or not len(original):
        raise InvalidRequestError(
            f"ranks must be of the same users, at least one; got {original.shape} and {reconstructed.shape}"
        )
    before, after = gains(original), gains(reconstructed)
    names = [name for name in before if before[name].any()]
    if not names:
        return {}
    paired = np.stack([before[name] for name in names] + [after[name] for name in names], axis=1)
    totals = paired.mean(axis=0)
    samples = np.concatenate(list(_resampled_sums(paired if users is None else _by_user(paired, users), seed)))
    kept = {}
    for at, name in enumerate(names):
        ratios = _ratios(samples[:, at], samples[:, at + len(names)])
        low, high = np.percentile(ratios, _INTERVAL)
        base, other = float(totals[at]), float(totals[at + len(names)])
        kept[name] = Kept(base, other, other / base, float(low), float(high))
    return kept


def gains(ranks: Ranks) -> dict[str, Doubles]:
    """Per user float64 [n]: hr@k = 1 when the target ranks k or better, ndcg@k = 1 / log2(rank + 1) then; else 0."""
    discount = 1.0 / np.log2(np.minimum(ranks, max(CUTOFFS)) + 1.0)
    hits = {f"hr@{k}": (ranks <= k).astype(np.float64) for k in CUTOFFS}
    return hits | {f"ndcg@{k}": np.where(ranks <= k, discount, 0.0) for k in CUTOFFS}


def _by_user(values: Doubles, users: NDArray[np.integer[Any]]) -> Doubles:
    """Sums of `values` [n, m] over each user's rows, [distinct users, m]."""
    distinct, places = np.unique(users, return_inverse=True)
    sums = np.zeros((len(distinct), values.shape[1]))
    np.add.at(sums, places, values)
    return sums


def _resampled_sums(values: Doubles, seed: int) -> Iterator[Doubles]:
    """Sums of `values` [n, m] over users drawn n times with replacement, [resamples, m] in parts.

    Drawing the same users for both sides is what makes the interval paired.
    """
    generator = np.random.default_rng(seed)
    n = len(values)
    at_once = max(1, _RESAMPLE_FLOATS // n)
    for done in range(0, _RESAMPLES, at_once):
        draws = generator.multinomial(n, np.full(n, 1.0 / n), size=min(at_once, _RESAMPLES - done))
        yield draws @ values


def _ratios(before: Doubles, after: Doubles) -> Doubles:
    usable = before > 0
    return after[usable] / before[usable]
