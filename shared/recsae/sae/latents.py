"""The latents of one SAE on fixed probe rows: where they point, when and how strongly they fire.

What matching and seed stability compare. Not here: comparing (`latent_pairs`), what latents mean (`recsae.concepts`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.sae.codes import Codes

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

# Fewer firings than this on the probe rows say nothing about which rows a latent fires on.
LEAST_FIRINGS = 10


@dataclass(frozen=True)
class Latents:
    """One SAE as matching sees it: decoder `w_dec` float32 [w, d] and its codes of the probe rows.

    `items` float32 [m, d], optional: vectors of a dot-product head's items, by which a latent's effect on scores is
    `w_dec . (items - mean)`. Row i of two SAEs' codes must be the same history, and of their items the same item.
    """

    w_dec: Floats
    codes: Codes
    items: Floats | None = None

    @property
    def width(self) -> int:
        """Number of latents."""
        return len(self.w_dec)

    @cached_property
    def values(self) -> sparse.csc_matrix:
        """Values > 0 as float64 CSC [n, w]."""
        fired = self.codes.fired
        rows = np.nonzero(fired)[0]
        at = (rows, self.codes.indices[fired])
        values = self.codes.values[fired].astype(np.float64)
        return sparse.csc_matrix((values, at), shape=(len(self.codes), self.width))

    @cached_property
    def firings(self) -> Ints:
        """Probe rows each latent fires on, int64 [w]."""
        return self.codes.firing_counts(self.width)

    @cached_property
    def mass(self) -> Doubles:
        """Share of all activation that each latent holds, float64 [w], summing to 1 (0 when nothing fires)."""
        total = np.asarray(self.values.sum(axis=0)).ravel()
        return total / total.sum() if total.sum() > 0 else total

    @property
    def silent(self) -> NDArray[np.bool_]:
        """Bool [w]: latents that fire on too few probe rows to be judged."""
        return self.firings < LEAST_FIRINGS
