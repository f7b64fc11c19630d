"""How well an SAE reconstructs activations it has not seen, and which latents live. As sums, so that parts add up.

Ratios are taken once, over the whole set: a mean of batch ratios would depend on how the set was cut. Not here: what
reconstruction costs in ranking quality (`fidelity`). numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.sae.codes import Codes
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.shards import ITEM_PROBE, ShardReader

RARE_DENSITY = 1e-4
_CHUNK_ROWS = 8_192

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class ReconstructionSums:
    """Sums over `n` rows; two of them add up to those of both sets.

    `squared_error` = sum |x - x_hat|^2; `spread` = sum |x - mean|^2 around the *training* mean; `centred` [d] = sum
    (x - mean) and `residual` [d] = sum (x - x_hat), for explained variance; `cosine_sum` over rows; `fired` int64 [w].
    """

    n: int
    squared_error: float
    spread: float
    centred: Doubles
    residual: Doubles
    cosine_sum: float
    fired: NDArray[np.int64]

    @classmethod
    def zero(cls, d: int, width: int) -> ReconstructionSums:
        """Of no rows."""
        return cls(0, 0.0, 0.0, np.zeros(d), np.zeros(d), 0.0, np.zeros(width, np.int64))

    @classmethod
    def of(cls, x: Floats, codes: Codes, x_hat: Floats, mean: Floats, width: int) -> ReconstructionSums:
        """Of rows `x` [n, d], their codes and reconstructions `x_hat` [n, d]; `mean` [d] is the training mean."""
        exact, approximate = x.astype(np.float64), x_hat.astype(np.float64)
        residual, centred = exact - approximate, exact - mean
        norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(approximate, axis=1)
        products = np.einsum("nd,nd->n", exact, approximate)
        return cls(
            n=len(x),
            squared_error=float(np.square(residual).sum()),
            spread=float(np.square(centred).sum()),
            centred=centred.sum(axis=0),
            residual=residual.sum(axis=0),
            cosine_sum=float(np.divide(products, norms, out=np.zeros_like(products), where=norms > 0).sum()),
            fired=codes.firing_counts(width),
        )

    def __add__(self, other: ReconstructionSums) -> ReconstructionSums:
        return ReconstructionSums(
            n=self.n + other.n,
            squared_error=self.squared_error + other.squared_error,
            spread=self.spread + other.spread,
            centred=self.centred + other.centred,
            residual=self.residual + other.residual,
            cosine_sum=self.cosine_sum + other.cosine_sum,
            fired=self.fired + other.fired,
        )

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained, in original units; 0 is exact, 1 is no better than the mean."""
        return self.squared_error / self.spread if self.spread > 0 else 0.0

    @property
    def explained_variance(self) -> float:
        """1 - Var(x - x_hat) / Var(x), both summed over dimensions: a constant offset of x_hat goes unpunished."""
        if self.n == 0:
            return 0.0
        total = self.spread - float(self.centred @ self.centred) / self.n
        missed = self.squared_error - float(self.residual @ self.residual) / self.n
        return 1.0 - missed / total if total > 0 else 0.0

    @property
    def cosine(self) -> float:
        """Mean cosine of x and x_hat."""
        return self.cosine_sum / max(1, self.n)

    @property
    def l0(self) -> float:
        """Mean number of latents that fire per row."""
        return float(self.fired.sum()) / max(1, self.n)

    @property
    def density(self) -> Doubles:
        """Share of rows in which each latent fires, float64 [w]."""
        return self.fired / max(1, self.n)

    @property
    def dead_share(self) -> float:
        """Share of latents that fire in no row."""
        return float((self.fired == 0).mean())

    @property
    def rare_share(self) -> float:
        """Share of latents with density < 1e-4, the dead included."""
        return float((self.density < RARE_DENSITY).mean())


@dataclass(frozen=True)
class Evaluation:
    """Sums over all positions of users, over their last positions only, and over item probes."""

    positions: ReconstructionSums
    last: ReconstructionSums
    items: ReconstructionSums

    def scores(self) -> dict[str, float]:
        """Flat, for run records and reports. `dead` is over users and items together."""
        both = self.positions + self.items
        return {
            "fvu": self.positions.fvu,
            "fvu_last": self.last.fvu,
            "fvu_items": self.items.fvu,
            "explained_variance": self.positions.explained_variance,
            "cosine": self.positions.cosine,
            "cosine_last": self.last.cosine,
            "l0": self.positions.l0,
            "dead": both.dead_share,
            "dead_users": self.positions.dead_share,
            "dead_items": self.items.dead_share,
            "rare": both.rare_share,
            "rows": float(self.positions.n),
        }


def reconstruction_sums(sae: SparseAutoencoder, parts: Iterable[Floats]) -> ReconstructionSums:
    """Sums over all rows of `parts`, each float32 [n, d]."""
    sums = ReconstructionSums.zero(sae.d, sae.width)
    for x in parts:
        codes = sae.encode(x)
        sums += ReconstructionSums.of(x, codes, sae.decode(codes), sae.mean, sae.width)
    return sums


def evaluate(sae: SparseAutoencoder, reader: ShardReader) -> Evaluation:
    """Encodes every row of the shards once, in bounded memory. A user's rows must lie together, oldest first."""
    if reader.d != sae.d:
        raise InvalidRequestError(f"activations have length {reader.d}, the SAE reads {sae.d}; use its own model's")
    zero = ReconstructionSums.zero(sae.d, sae.width)
    positions, last, items = zero, zero, zero
    for start in range(0, reader.n, _CHUNK_ROWS):
        stop = min(start + _CHUNK_ROWS, reader.n)
        x, user = reader.read(start, stop), reader.users(start, stop)
        codes = sae.encode(x)
        x_hat = sae.decode(codes)
        masks = (user != ITEM_PROBE, _is_last(reader, start, stop) & (user != ITEM_PROBE), user == ITEM_PROBE)
        parts = [ReconstructionSums.of(x[mask], codes.take(mask), x_hat[mask], sae.mean, sae.width) for mask in masks]
        positions, last, items = positions + parts[0], last + parts[1], items + parts[2]
    return Evaluation(positions, last, items)


def _is_last(reader: ShardReader, start: int, stop: int) -> NDArray[np.bool_]:
    user = reader.users(start, min(stop + 1, reader.n))
    changes = user[1:] != user[:-1]
    return np.append(changes, True)[: stop - start]
