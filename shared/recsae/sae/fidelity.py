"""What reconstruction costs in ranking: quality kept and list agreement when the head reads x_hat instead of x.

Kept = quality with x_hat / quality with x, on the same targets. Always beside PCA-k and adaptive PCA-k, with the
difference to both: at k >= d / 2 anything keeps everything. Not here: how rankings come about (a ranker is any function
from activations to `Rankings`), agreement of two lists (`rankings`), intervals (`user_sums`). numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.sae.baselines import PrincipalAxes
from recsae.sae.rankings import Rankings, agreement
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.user_sums import Interval, Resamples, UserSums

CUTOFFS = (5, 10, 20)
_ROWS = "rows"
_SAE, _PCA, _ADAPTIVE_PCA = "sae", "pca", "adaptive_pca"
_SIDES = (_SAE, _PCA, _ADAPTIVE_PCA)

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.integer[Any]]
# Activations float32 [n, d] of n rows -> the places of their targets and their lists.
Ranker = Callable[[Floats], Rankings]


@dataclass(frozen=True)
class Kept:
    """Quality with the original and the reconstructed activations, their ratio and its 95 % interval over users."""

    original: float
    reconstructed: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Reconstructed:
    """How rankings with one reconstruction compare with the original's.

    `kept` by measure ("hr@10", "ndcg@20", ...) where the original has something to keep; `agreement` by measure
    ("overlap@10", "rbo@10", "kendall@10"), the mean over rows.
    """

    kept: Mapping[str, Kept]
    agreement: Mapping[str, Interval]


@dataclass(frozen=True)
class Fidelity:
    """The SAE and as many principal components; `components` is their number.

    `over_pca` and `over_adaptive_pca`: how much more of each measure the SAE keeps, (SAE - PCA) / original, from the
    same draws of users; the SAE is better where the lower bound is above 0.
    """

    sae: Reconstructed
    pca: Reconstructed
    adaptive_pca: Reconstructed
    over_pca: Mapping[str, Interval]
    over_adaptive_pca: Mapping[str, Interval]
    components: int

    def scores(self) -> dict[str, float]:
        """Flat, for run records and reports.

        For each measure of quality, such as ndcg@10: "ndcg@10_original"; "ndcg@10_kept" with "_low" and "_high";
        "ndcg@10_kept_pca", "ndcg@10_kept_adaptive_pca"; "ndcg@10_kept_minus_pca", "ndcg@10_kept_minus_adaptive_pca",
        both with "_low" and "_high". For each measure of agreement: "rbo@10" with "_low" and "_high", "rbo@10_pca",
        "rbo@10_adaptive_pca". And "components".
        """
        flat = {"components": float(self.components)}
        for name, kept in self.sae.kept.items():
            flat |= {f"{name}_original": kept.original, f"{name}_kept": kept.ratio}
            flat |= {f"{name}_kept_low": kept.low, f"{name}_kept_high": kept.high}
            for side, other, over in (
                (_PCA, self.pca, self.over_pca),
                (_ADAPTIVE_PCA, self.adaptive_pca, self.over_adaptive_pca),
            ):
                flat |= {f"{name}_kept_{side}": other.kept[name].ratio}
                flat |= _flat(f"{name}_kept_minus_{side}", over[name])
        for name, mean in self.sae.agreement.items():
            flat |= _flat(name, mean)
            flat |= {f"{name}_{_PCA}": self.pca.agreement[name].value}
            flat |= {f"{name}_{_ADAPTIVE_PCA}": self.adaptive_pca.agreement[name].value}
        return flat


def fidelity(
    sae: SparseAutoencoder,
    axes: PrincipalAxes,
    x: Floats,
    ranker: Ranker,
    *,
    users: Integers | None = None,
    seed: int = 0,
) -> Fidelity:
    """Ranks with `x` [n, d], rows of users outside SAE training, and with three reconstructions of it.

    `users` says whose each ranking is; without it every one is a user. `axes` are fitted on the SAE's training rows.
    The ranker is called four times; it may make one ranking of several rows.
    """
    codes = sae.encode(x)
    k = components(sae, int(codes.fired.sum()) / max(1, len(x)))
    original = ranker(x)
    sides = {
        _SAE: ranker(sae.decode(codes)),
        _PCA: ranker(axes.keep_first(x, k)),
        _ADAPTIVE_PCA: ranker(axes.keep_largest(x, k)),
    }
    return fidelity_of(ranking_sums(original, sides, users=users), components=k, seed=seed)


def components(sae: SparseAutoencoder, fired_per_row: float) -> int:
    """Components the baselines get: as many as the SAE has latents, k, or the mean number that fire if that is more."""
    return min(max(sae.k, math.ceil(fired_per_row)), sae.d)


def reconstructions(sae: SparseAutoencoder, axes: PrincipalAxes, x: Floats, k: int) -> dict[str, Floats]:
    """`x` [n, d] as the SAE, k principal components and each row's own k components leave it, by side."""
    return {
        _SAE: sae.decode(sae.encode(x)),
        _PCA: axes.keep_first(x, k),
        _ADAPTIVE_PCA: axes.keep_largest(x, k),
    }


def ranking_sums(original: Rankings, sides: Mapping[str, Rankings], *, users: Integers | None = None) -> UserSums:
    """Sums by user that quality and agreement are ratios of, from rankings of the same rows.

    Columns: "rows"; the original's gains ("ndcg@10", ...); each side's gains and agreement with the original
    ("sae/ndcg@10", "sae/rbo@10", ...). Sums of several parts of a set add up to those of the set.
    """
    n = len(original.ranks)
    columns = {_ROWS: np.ones(n), **gains(original.ranks)}
    for side, rankings in sides.items():
        if len(rankings.ranks) != n or not n:
            raise InvalidRequestError(
                f"ranks must be of the same users, at least one; got {n} and {len(rankings.ranks)}"
            )
        found = gains(rankings.ranks) | agreement(original.items, rankings.items)
        columns |= {f"{side}/{name}": values for name, values in found.items()}
    return UserSums.of(np.arange(n) if users is None else users, columns)


def fidelity_of(sums: UserSums, *, components: int, seed: int = 0) -> Fidelity:
    """Scores from `ranking_sums` of sides "sae", "pca" and "adaptive_pca"."""
    resamples, totals = sums.resample(seed), sums.totals
    qualities = [name for name in _quality_names() if totals[name] > 0]
    sae, pca, adaptive_pca = (_reconstructed(resamples, totals, side, qualities) for side in _SIDES)

    def over(side: str) -> dict[str, Interval]:
        return {name: resamples.ratio(f"{_SAE}/{name}", name, minus=f"{side}/{name}") for name in qualities}

    return Fidelity(sae, pca, adaptive_pca, over(_PCA), over(_ADAPTIVE_PCA), components)


def gains(ranks: NDArray[np.int64]) -> dict[str, Doubles]:
    """Per row float64 [n]: hr@k = 1 when the target ranks k or better, ndcg@k = 1 / log2(rank + 1) then; else 0."""
    discount = 1.0 / np.log2(np.minimum(ranks, max(CUTOFFS)) + 1.0)
    hits = {f"hr@{k}": (ranks <= k).astype(np.float64) for k in CUTOFFS}
    return hits | {f"ndcg@{k}": np.where(ranks <= k, discount, 0.0) for k in CUTOFFS}


def _quality_names() -> list[str]:
    return [f"{measure}@{k}" for measure in ("hr", "ndcg") for k in CUTOFFS]


def _reconstructed(resamples: Resamples, totals: Mapping[str, float], side: str, qualities: list[str]) -> Reconstructed:
    agreements = [name.partition("/")[2] for name in resamples.names if name.startswith(f"{side}/")]
    return Reconstructed(
        kept=_kept(resamples, totals, side, qualities),
        agreement={
            name: resamples.ratio(f"{side}/{name}", _ROWS) for name in agreements if name not in _quality_names()
        },
    )


def _kept(resamples: Resamples, totals: Mapping[str, float], side: str, names: list[str]) -> dict[str, Kept]:
    kept = {}
    for name in names:
        ratio = resamples.ratio(f"{side}/{name}", name)
        original, reconstructed = (totals[column] / totals[_ROWS] for column in (name, f"{side}/{name}"))
        kept[name] = Kept(original, reconstructed, ratio.value, ratio.low, ratio.high)
    return kept


def _flat(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
