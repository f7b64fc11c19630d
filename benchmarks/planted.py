"""Activations with a known sparse structure: the data of every benchmark. numpy only, any number, the same every time.

A row is the sum of `active` unit vectors drawn from `atoms` by a power law (few are common, most are rare, as in real
models), with exponential strengths, plus Gaussian noise of `noise_share` of the power and a constant offset; the whole
is then centred and scaled to mean square norm 1. Not here: how a contender may want it scaled otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_BLOCK = 50_000  # rows drawn from one seed; a row depends on its number alone, not on how many are asked for
_SAMPLE, _ATOMS, _HELD_OUT = 1 << 40, (1 << 40) + 1, 1 << 41


@dataclass(frozen=True)
class Planted:
    """The distribution. `exponent` is that of the power law: atom number j is drawn in proportion to j^-exponent."""

    d: int
    atoms: int
    active: int
    noise_share: float = 0.05
    exponent: float = 0.7
    seed: int = 0

    def blocks(self, rows: int, first: int = 0) -> Iterator[Floats]:
        """`rows` rows in blocks of up to 50,000, starting with block number `first`: float32 [.., d]."""
        for number, at in enumerate(range(0, rows, _BLOCK)):
            yield self._normalised(self._block(first + number))[: min(_BLOCK, rows - at)]

    @staticmethod
    def blocks_of(rows: int) -> int:
        """Number of blocks that hold `rows` rows."""
        return -(-rows // _BLOCK)

    def held_out(self, rows: int) -> Floats:
        """Rows float32 [rows, d] that no stream holds."""
        return np.concatenate(list(self.blocks(rows, first=_HELD_OUT)))

    def write(self, path: Path, rows: int) -> None:
        """Writes `rows` rows as one .npy file, a block at a time."""
        file = np.lib.format.open_memmap(path, "w+", np.float32, (rows, self.d))
        at = 0
        for block in self.blocks(rows):
            file[at : at + len(block)] = block
            at += len(block)
        file.flush()

    @cached_property
    def directions(self) -> Floats:
        """The planted unit vectors: float32 [atoms, d]."""
        rows = self._generator(_ATOMS).standard_normal((self.atoms, self.d), np.float32)
        directions: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return directions

    @cached_property
    def _cumulated(self) -> NDArray[np.float64]:
        weights = np.arange(1, self.atoms + 1) ** -self.exponent
        cumulated: NDArray[np.float64] = np.cumsum(weights) / weights.sum()
        return cumulated

    @cached_property
    def _centre_and_scale(self) -> tuple[Floats, np.float32]:
        sample = self._block(_SAMPLE).astype(np.float64)
        centre = sample.mean(axis=0)
        scale = np.sqrt(np.square(sample - centre).sum(axis=1).mean())
        return centre.astype(np.float32), np.float32(scale)

    def _normalised(self, rows: Floats) -> Floats:
        centre, scale = self._centre_and_scale
        return (rows - centre) / scale

    def _block(self, number: int) -> Floats:
        draw = self._generator(number)
        # Strengths of mean 1 have mean square 2; the atoms are nearly orthogonal, so their powers add.
        noise = np.sqrt(2.0 * self.active * self.noise_share / (1.0 - self.noise_share) / self.d)
        rows = draw.standard_normal((_BLOCK, self.d), np.float32) * np.float32(noise)
        for _ in range(self.active):
            chosen = np.minimum(np.searchsorted(self._cumulated, draw.random(_BLOCK)), self.atoms - 1)
            rows += draw.standard_exponential((_BLOCK, 1), np.float32) * self.directions[chosen]
        return rows

    def _generator(self, number: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.d, self.atoms, number))
