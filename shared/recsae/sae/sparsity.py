"""How sparse an SAE is: how often each latent fires over a set, which never do, and when k is too large to count.

Densities are taken from counts that add, once, over the whole set. The histogram has fixed bins, so that those of two
SAEs compare. Not here: which rows are counted (`evaluation`). numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RARE_DENSITY = 1e-4
# "Dead" depends on how many rows were looked at; a fixed number makes it one quantity (docs/method.md, section 6).
PROBE_ROWS = 1_000_000
# Two to a decade. One firing among PROBE_ROWS rows is the smallest density there is.
LOG10_EDGES = tuple(step / 2 for step in range(-12, 1))
# From half the coordinates on, principal components keep nearly everything too: a result there shows no sparsity.
_SPARSE_BELOW = 0.5

Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class FiringSums:
    """In how many of `n` rows each latent fires, `fired` int64 [w]; two of them add up to those of both sets."""

    n: int
    fired: Counts

    @classmethod
    def zero(cls, width: int) -> FiringSums:
        """Of no rows."""
        return cls(0, np.zeros(width, np.int64))

    def __add__(self, other: FiringSums) -> FiringSums:
        return FiringSums(self.n + other.n, self.fired + other.fired)

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

    @property
    def histogram(self) -> DensityHistogram:
        """Latents by log10 of their density."""
        living = self.fired > 0
        # Rounded, since the logarithm of a share that lies on an edge may fall to either side of it.
        places = np.round(np.log10(self.density[living]), 9)
        bins = np.clip(np.searchsorted(LOG10_EDGES, places, side="right") - 1, 0, len(LOG10_EDGES) - 2)
        counts = np.bincount(bins, minlength=len(LOG10_EDGES) - 1)
        return DensityHistogram(int((~living).sum()), tuple(int(count) for count in counts))


@dataclass(frozen=True)
class DensityHistogram:
    """Numbers of latents: `dead` fire in no row; `latents`, one per bin, have log10 density in [edge, next edge).

    The first bin takes whatever is below it as well, the last one density 1.
    """

    dead: int
    latents: tuple[int, ...]

    def shares(self) -> dict[str, float]:
        """Share of all latents per bin, by the bin's lower edge: "density_log10_-3.5". With the dead they sum to 1."""
        width = max(1, self.dead + sum(self.latents))
        return {
            f"density_log10_{edge:.1f}": count / width
            for edge, count in zip(LOG10_EDGES[:-1], self.latents, strict=True)
        }

    def facts(self) -> dict[str, int | list[int] | list[float]]:
        """As JSON types."""
        return {"log10_edges": list(LOG10_EDGES), "latents": list(self.latents), "dead": self.dead}


def evenly_spread(begin: int, end: int, rows: int, most: int) -> NDArray[np.bool_]:
    """Which of the rows begin..end-1 of `rows` are among the `most` that lie evenly spread: bool [end - begin].

    Exactly min(rows, most) of all rows are, and cutting them into runs does not change which.
    """
    if most >= rows:
        return np.ones(end - begin, np.bool_)
    steps = np.arange(begin, end + 1, dtype=np.int64) * most // rows
    return np.diff(steps) > 0


def is_sparse(k: float, d: int) -> bool:
    """Whether `k` latents per row of length `d` are few enough for a result to say something: k < d / 2."""
    return k < _SPARSE_BELOW * d
