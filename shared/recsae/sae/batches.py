"""The order in which training sees rows: shuffled, complete, reproducible and in bounded memory.

An epoch permutes blocks of neighbouring rows, fills a buffer with blocks and permutes the buffer. Every permutation is
drawn from (seed, epoch, buffer), never from a running generator, so any batch can be found again from its number:
that is what makes resuming exact. numpy only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError

# Neighbouring rows belong to one user; 64 of them are one read and little of a 65,536-row buffer.
_BLOCK_ROWS = 64
_CHUNK_ROWS = 16_384

Floats = NDArray[np.float32]


class Rows(Protocol):
    """A matrix of activations that need not fit in memory. `ShardReader` is one."""

    @property
    def n(self) -> int:
        """Number of rows."""

    @property
    def d(self) -> int:
        """Length of a row."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal content: a checkpoint only goes on with the data it began with."""

    def read(self, start: int, stop: int) -> Floats:
        """Rows start..stop-1, float32 [stop - start, d]."""


class ArrayRows:
    """`Rows` of an array in memory."""

    def __init__(self, x: Floats) -> None:
        """`x` float32 [n, d]."""
        self._x = x
        self.n, self.d = x.shape

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the values."""
        return hashlib.sha256(np.ascontiguousarray(self._x).tobytes()).hexdigest()

    def read(self, start: int, stop: int) -> Floats:
        """A view."""
        return self._x[start:stop]


@dataclass(frozen=True)
class ShuffledBatches:
    """Batches of `batch_size` rows, every row once an epoch; the last batch of an epoch may be shorter."""

    rows: Rows
    batch_size: int
    buffer_rows: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """Batches an epoch."""
        return math.ceil(self.rows.n / self.batch_size)

    def from_step(self, step: int, steps: int) -> Iterator[Floats]:
        """Batches number `step` up to `steps` - 1, counted over all epochs."""
        while step < steps:
            epoch, batch = divmod(step, self.per_epoch)
            for x in self.epoch(epoch, batch):
                yield x
                step += 1
                if step == steps:
                    return

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Floats]:
        """Batches of one epoch from number `first` on, each float32 [<= batch_size, d]."""
        blocks = _generator(self.seed, epoch).permutation(math.ceil(self.rows.n / _BLOCK_ROWS))
        sizes = np.minimum((blocks + 1) * _BLOCK_ROWS, self.rows.n) - blocks * _BLOCK_ROWS
        blocks_at_once = max(1, self.buffer_rows // _BLOCK_ROWS)
        skip = first * self.batch_size
        left: list[Floats] = []
        for number, at in enumerate(range(0, len(blocks), blocks_at_once)):
            size = int(sizes[at : at + blocks_at_once].sum())
            if skip >= size:
                skip -= size
                continue
            buffer = self._load(blocks[at : at + blocks_at_once])
            order = _generator(self.seed, epoch, number).permutation(size)[skip:]
            skip = 0
            while sum(map(len, left)) + len(order) >= self.batch_size:
                taken = self.batch_size - sum(map(len, left))
                yield np.concatenate([*left, buffer[order[:taken]]])
                left, order = [], order[taken:]
            if len(order):
                left.append(buffer[order])
        if left:
            yield np.concatenate(left)

    def _load(self, blocks: NDArray[np.int64]) -> Floats:
        starts = [int(block) * _BLOCK_ROWS for block in blocks]
        return np.concatenate([self.rows.read(at, min(at + _BLOCK_ROWS, self.rows.n)) for at in starts])


@dataclass(frozen=True)
class Normalisation:
    """x_n = (x - mean) / scale has mean 0 and mean square norm 1. `mean_norm` is the mean |x|."""

    mean: Floats
    scale: float
    mean_norm: float

    def apply(self, x: Floats) -> Floats:
        """Normalised rows float32 [n, d]."""
        return (x - self.mean) * np.float32(1.0 / self.scale)


def measure_normalisation(rows: Rows) -> Normalisation:
    """One pass in float64, merging chunk means, so that a mean far from 0 costs no digits.

    InvalidRequestError when there are too few rows, a value is not finite or all rows are equal.
    """
    mean = np.zeros(rows.d)
    squares = norms = 0.0
    seen = 0
    for chunk in chunks(rows):
        if not np.isfinite(chunk).all():
            raise InvalidRequestError("activations hold NaN or infinity; check the recommender's output")
        x = chunk.astype(np.float64)
        shift = x.mean(axis=0) - mean
        squares += float(np.square(x - x.mean(axis=0)).sum())
        squares += float(shift @ shift) * seen * len(x) / (seen + len(x))
        norms += float(np.linalg.norm(x, axis=1).sum())
        seen += len(x)
        mean += shift * len(x) / seen
    if seen < 2 or not squares > 0:
        raise InvalidRequestError(f"{seen} activation rows without any variance cannot be explained; collect more")
    return Normalisation(mean.astype(np.float32), math.sqrt(squares / seen), norms / seen)


def chunks(rows: Rows, size: int = _CHUNK_ROWS) -> Iterator[Floats]:
    """All rows in order, up to `size` at a time."""
    for at in range(0, rows.n, size):
        yield rows.read(at, min(at + size, rows.n))


def evenly_spaced(rows: Rows, count: int) -> Floats:
    """About `count` rows, in blocks spread over the whole; all of them when there are no more."""
    if rows.n <= count:
        return rows.read(0, rows.n)
    starts = np.linspace(0, rows.n - _BLOCK_ROWS, max(1, count // _BLOCK_ROWS)).astype(int)
    return np.concatenate([rows.read(int(at), int(at) + _BLOCK_ROWS) for at in starts])


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)
