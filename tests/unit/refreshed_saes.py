"""What training an SAE again may do to the latents of the planted world's SAE: number them anew, turn, lose, merge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tests.unit.test_concepts_build import Sae

from recsae.sae.codes import Codes

WIDTH = 17
DEAD = WIDTH - 1


@dataclass(frozen=True)
class Shuffled:
    """The latents of an SAE under other numbers: new latent i is old latent `order[i]`."""

    of: Sae
    order: NDArray[np.int64]
    version: str = "e" * 16

    @property
    def width(self) -> int:
        return len(self.order)

    @property
    def w_dec(self) -> NDArray[np.float32]:
        return self.of.w_dec[self.order]

    def encode(self, x: NDArray[np.float32]) -> Codes:
        codes = self.of.encode(x)
        return Codes(np.argsort(self.order)[codes.indices].astype(np.int32), codes.values)


@dataclass(frozen=True)
class Turned:
    """An SAE in a space turned by `rotation` [d, d]."""

    of: Sae | Shuffled
    rotation: NDArray[np.float32]
    version: str = "f" * 16

    @property
    def width(self) -> int:
        return self.of.width

    @property
    def w_dec(self) -> NDArray[np.float32]:
        return self.of.w_dec @ self.rotation

    def encode(self, x: NDArray[np.float32]) -> Codes:
        return self.of.encode(np.ascontiguousarray(x @ self.rotation.T))


@dataclass(frozen=True)
class Edited:
    """An SAE whose codes are rewritten: latents in `merged` fire as their first, latents in `silenced` never."""

    of: Sae
    silenced: tuple[int, ...] = ()
    merged: tuple[int, ...] = ()
    version: str = "e" * 16
    width: int = WIDTH

    @property
    def w_dec(self) -> NDArray[np.float32]:
        w_dec = self.of.w_dec.copy()
        if self.merged:
            mean = w_dec[list(self.merged)].sum(axis=0)
            w_dec[self.merged[0]] = mean / np.linalg.norm(mean)
        for latent in (*self.silenced, *self.merged[1:]):
            w_dec[latent] = np.random.default_rng(latent).normal(size=w_dec.shape[1])
            w_dec[latent] /= np.linalg.norm(w_dec[latent])
        return w_dec

    def encode(self, x: NDArray[np.float32]) -> Codes:
        codes = self.of.encode(x)
        indices, values = codes.indices.copy(), codes.values.copy()
        if self.merged:
            members = np.isin(indices, self.merged) & (values > 0)
            best = np.where(members, values, 0).max(axis=1)
            values[members] = 0
            first = members.argmax(axis=1)
            rows = np.flatnonzero(members.any(axis=1))
            # The row's own entry of the first of them, so that no row names a latent twice.
            own = np.argmax(indices[rows] == self.merged[0], axis=1)
            has = (indices[rows] == self.merged[0]).any(axis=1)
            at = np.where(has, own, first[rows])
            indices[rows, at], values[rows, at] = self.merged[0], best[rows]
        values[np.isin(indices, self.silenced)] = 0
        return Codes(indices, values)
