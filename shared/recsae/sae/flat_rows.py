"""Shards of multi-interest models as an SAE reads them: a row per interest instead of a row per subject.

A shard keeps the interests of a subject in one row, [interests x d], so that a row has one user, position and item
everywhere. An SAE explains one vector: it is trained and judged on these rows. Not here: what a subject shows in any of
its interests (`pooling`). numpy only.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from recsae.sae.shards import ShardReader

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


class FlatRows:
    """`recsae.sae.batches.Rows` of a reader: n x interests rows of d; a subject's interests follow each other."""

    def __init__(self, reader: ShardReader) -> None:
        """Reads nothing yet."""
        self._reader, self.interests = reader, reader.interests
        self.n, self.d = reader.n * self.interests, reader.d // self.interests

    @property
    def fingerprint(self) -> str:
        """The reader's, where a row is a subject; else another than that of the same numbers as longer rows."""
        whole = self._reader.fingerprint
        return whole if self.interests == 1 else hashlib.sha256(f"{whole} x {self.interests}".encode()).hexdigest()

    def read(self, start: int, stop: int) -> Floats:
        """Rows start..stop-1, float32 [stop - start, d]."""
        first, last = start // self.interests, -(-stop // self.interests)
        block = self._reader.read(first, last).reshape(-1, self.d)
        return block[start - first * self.interests : stop - first * self.interests]

    def users(self, start: int, stop: int) -> Ints:
        """`user` of rows start..stop-1: the same for all interests of a subject."""
        first, last = start // self.interests, -(-stop // self.interests)
        users = np.repeat(self._reader.users(first, last), self.interests)
        return users[start - first * self.interests : stop - first * self.interests]
