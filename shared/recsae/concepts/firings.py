"""Which latents fire on a sample of rows, as one sparse matrix, and which of them fire together.

Not here: what a firing means (`describing`), which rows are read (`sampling`), health figures (`evidence_sums`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.records import Neighbour
from recsae.sae.codes import Codes

# A firing counts as a case when it is at least this strong; weaker ones are counted apart (docs/method.md, section 5).
STRONG = 0.5
_ROWS_AT_ONCE = 8192
# Rows x k^2 products of the co-firing matrix: about half a second.
_COFIRING_PRODUCTS = 30_000_000
_LATENTS_AT_ONCE = 512


class Encoder(Protocol):
    """What is needed of an SAE: its width and `encode(x [n, d]) -> Codes`."""

    @property
    def width(self) -> int:
        """Number of latents."""
        ...

    def encode(self, x: NDArray[np.float32]) -> Codes:
        """Codes of activations [n, d]."""
        ...


@dataclass(frozen=True)
class Firings:
    """Values > 0 of all latents on n rows, as CSR [w, n] float32: row j holds where and how latent j fires."""

    by_latent: sparse.csr_matrix

    @property
    def width(self) -> int:
        """Number of latents."""
        return int(self.by_latent.shape[0])

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rows each latent fires on, int64 [w]."""
        counts: NDArray[np.int64] = np.diff(self.by_latent.indptr).astype(np.int64)
        return counts

    def latents(self) -> NDArray[np.int32]:
        """The latent of each stored value, int32 [nnz], in the order of `by_latent.data`."""
        return np.repeat(np.arange(self.width, dtype=np.int32), self.counts)

    def strong(self, p95: NDArray[np.float32]) -> sparse.csr_matrix:
        """0/1 CSR [w, n]: strength >= .5."""
        return self._where(self.by_latent.data >= STRONG * p95[self.latents()])

    def weak(self, p95: NDArray[np.float32]) -> sparse.csr_matrix:
        """0/1 CSR [w, n]: 0 < strength < .5."""
        return self._where(self.by_latent.data < STRONG * p95[self.latents()])

    def _where(self, mask: NDArray[np.bool_]) -> sparse.csr_matrix:
        kept_before = np.concatenate([[0], np.cumsum(mask)])
        ones = np.ones(int(kept_before[-1]), np.float32)
        indptr = kept_before[self.by_latent.indptr]
        return sparse.csr_matrix((ones, self.by_latent.indices[mask], indptr), shape=self.by_latent.shape)


def encode_rows(encoder: Encoder, x: NDArray[np.float32]) -> Firings:
    """Firings of `x` [n, d], encoded in batches."""
    parts = []
    for at in range(0, len(x), _ROWS_AT_ONCE):
        codes = encoder.encode(x[at : at + _ROWS_AT_ONCE])
        rows, columns = np.nonzero(codes.values > 0)
        coordinates = (codes.indices[rows, columns], rows)
        shape = (encoder.width, len(codes.values))
        parts.append(sparse.coo_matrix((codes.values[rows, columns], coordinates), shape=shape).tocsr())
    matrix = sparse.hstack(parts, format="csr") if parts else sparse.csr_matrix((encoder.width, 0), dtype=np.float32)
    matrix.sort_indices()
    return Firings(matrix)


@dataclass(frozen=True)
class CoFiring:
    """The m nearest live latents of each latent: `latents` int32 [w, m] (-1 = none), `correlations` float32 [w, m].

    Correlations of firing, or cosines of decoder rows (`decoder_neighbours`).
    """

    latents: NDArray[np.int32]
    correlations: NDArray[np.float32]

    def of(self, latent: int, ids: list[str], labels: list[str]) -> tuple[Neighbour, ...]:
        """Those of one latent, nearest first."""
        pairs = zip(self.latents[latent].tolist(), self.correlations[latent].tolist(), strict=True)
        return tuple(Neighbour(ids[other], labels[other], correlation) for other, correlation in pairs if other >= 0)


def cofiring(firings: Firings, nearest: int = 5) -> CoFiring:
    """Nearest live latents by correlation of firing (phi) over at most as many rows as the work bound allows."""
    matrix = firings.by_latent
    width, n = matrix.shape
    per_row = max(1.0, matrix.nnz / max(1, n))
    rows = max(1, min(n, int(_COFIRING_PRODUCTS / per_row**2)))
    fired = matrix[:, :: max(1, -(-n // rows))].astype(bool).astype(np.float32)
    n = fired.shape[1]
    share = np.asarray(fired.sum(axis=1)).ravel() / max(1, n)
    spread = np.sqrt(share * (1 - share))
    nearest = min(nearest, max(0, width - 1))
    latents = np.full((width, nearest), -1, np.int32)
    correlations = np.zeros((width, nearest), np.float32)
    transposed = fired.T.tocsr()
    for at in range(0, width, _LATENTS_AT_ONCE):
        mine = np.arange(at, min(at + _LATENTS_AT_ONCE, width))
        together = (fired[mine] @ transposed).toarray() / max(1, n)
        scale = spread[mine][:, None] * spread[None, :]
        with np.errstate(divide="ignore", invalid="ignore"):
            phi = np.where(scale > 0, (together - share[mine][:, None] * share[None, :]) / scale, -np.inf)
        phi[np.arange(len(mine)), mine] = -np.inf
        best = np.argsort(-phi, axis=1, kind="stable")[:, :nearest]
        values = np.take_along_axis(phi, best, axis=1)
        latents[mine] = np.where(np.isfinite(values), best, -1)
        correlations[mine] = np.where(np.isfinite(values), values, 0)
    return CoFiring(latents, correlations)
