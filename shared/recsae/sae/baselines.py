"""What an SAE must beat: principal components with as many numbers per row as it has latents.

PCA-k keeps the same k axes for every row; *adaptive* PCA-k keeps the k of all d coordinates that are largest in that
row, which is itself a sparse code over d atoms. numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.sae.batches import Rows, chunks, measure_normalisation

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class PrincipalAxes:
    """`mean` float64 [d] and `axes` float64 [d, d], rows orthonormal, by falling variance."""

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]

    @classmethod
    def fit(cls, rows: Rows) -> PrincipalAxes:
        """Two passes over the rows; d x d memory."""
        mean = measure_normalisation(rows).mean.astype(np.float64)
        scatter = np.zeros((rows.d, rows.d))
        for chunk in chunks(rows):
            centred = chunk - mean
            scatter += centred.T @ centred
        return cls(mean, np.linalg.eigh(scatter)[1].T[::-1])

    def keep_first(self, x: Floats, k: int) -> Floats:
        """PCA-k: `x` [n, d] on the k axes of largest variance."""
        axes = self.axes[: self._checked(k)]
        return ((x - self.mean) @ axes.T @ axes + self.mean).astype(np.float32)

    def keep_largest(self, x: Floats, k: int) -> Floats:
        """Adaptive PCA-k: each row of `x` [n, d] on its own k largest coordinates."""
        coordinates = (x - self.mean) @ self.axes.T
        if self._checked(k) < coordinates.shape[1]:
            smallest = np.argpartition(-np.abs(coordinates), k, axis=1)[:, k:]
            np.put_along_axis(coordinates, smallest, 0.0, axis=1)
        return (coordinates @ self.axes + self.mean).astype(np.float32)

    def _checked(self, k: int) -> int:
        if not 1 <= k <= len(self.axes):
            raise InvalidRequestError(f"k must be within 1..{len(self.axes)} axes, not {k}")
        return k
