"""The sparse codes of a batch of activations: which latents fire, and how strongly.

Not here: how codes are made (`recsae.sae.runtime`) and what a latent means (`recsae.concepts`). numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError


@dataclass(frozen=True)
class Codes:
    """`indices` int32 [n, k] and `values` float32 [n, k] of the k largest latents, values falling along a row.

    A latent *fires* where its value is > 0. Where fewer than k fire, the value is 0 and the index is some latent
    that does not fire; no row names a latent twice. Values are in activation units (decoder rows have unit norm).
    """

    indices: NDArray[np.int32]
    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        """InvalidRequestError unless both are [n, k] of the types promised."""
        if self.indices.ndim != 2 or self.indices.shape != self.values.shape:
            raise InvalidRequestError(
                f"indices {self.indices.shape} and values {self.values.shape} of codes must both be [n, k]"
            )
        if self.indices.dtype != np.int32 or self.values.dtype != np.float32:
            raise InvalidRequestError(
                f"codes are int32 indices and float32 values, not {self.indices.dtype} and {self.values.dtype}"
            )

    def __len__(self) -> int:
        """Number of rows, n."""
        return int(self.indices.shape[0])

    @property
    def k(self) -> int:
        """Latents kept per row."""
        return int(self.indices.shape[1])

    @property
    def fired(self) -> NDArray[np.bool_]:
        """Bool [n, k]: the entries that fire."""
        return self.values > 0

    def take(self, rows: NDArray[np.integer[Any]] | NDArray[np.bool_] | slice) -> Codes:
        """The codes of some rows, in the order given."""
        return Codes(self.indices[rows], self.values[rows])

    def firing_counts(self, width: int) -> NDArray[np.int64]:
        """In how many rows each latent fires, int64 [width]."""
        return np.bincount(self.indices[self.fired], minlength=width).astype(np.int64, copy=False)

    def strengths_of(self, latent: int) -> NDArray[np.float32]:
        """Value of one latent in every row, float32 [n]; 0 where it does not fire."""
        matches: NDArray[np.float32] = np.where(self.indices == latent, self.values, np.float32(0.0))
        return np.asarray(matches.sum(axis=1), dtype=np.float32)

    def dense(self, width: int) -> NDArray[np.float32]:
        """The same codes as float32 [n, width]: for few rows only, since it takes n x width x 4 bytes."""
        out = np.zeros((len(self), width), np.float32)
        np.put_along_axis(out, self.indices.astype(np.int64), np.where(self.fired, self.values, 0), axis=1)
        return out


def empty_codes(k: int) -> Codes:
    """Codes of no rows."""
    return Codes(np.zeros((0, k), np.int32), np.zeros((0, k), np.float32))


def concatenate(parts: Sequence[Codes]) -> Codes:
    """Codes of several batches below each other; all must have the same k."""
    return Codes(
        np.concatenate([part.indices for part in parts]),
        np.concatenate([part.values for part in parts]),
    )
