"""A recommender in numpy alone, plugged in beside RecSAE: item vectors, a user is the fading sum of what they consumed.

    python examples/python/exporter.py 127.0.0.1:50061
    recsae conformance 127.0.0.1:50061

It needs what `pip install recsae` brings. Yours keeps its model and writes the two methods.
"""

import hashlib
import sys

import numpy as np
from numpy.typing import NDArray

from recsae.recommenders.description import Hook
from recsae.sdk.exporter import Exporter
from recsae.sdk.model import Batch, DotProduct, ModelCard
from recsae.sdk.vocabulary import Vocabulary

Floats = NDArray[np.float32]


class FadingSums:
    """The newest item counts fully, each one before it nine tenths of the next."""

    def __init__(self, item_ids: list[str], vectors: Floats) -> None:
        """`vectors` float32 [items, d]."""
        self._vectors = np.vstack([np.zeros_like(vectors[:1]), vectors])  # row 0 is nobody: indices count from 1
        self.head = DotProduct(vectors)
        self.card = ModelCard(
            name="fading-sums",
            version=hashlib.sha256(vectors.tobytes()).hexdigest()[:16],
            hooks=(Hook("sum", "user", vectors.shape[1]),),
            items=Vocabulary(item_ids),
            max_history=20,
        )

    def embed_positions(self, batch: Batch, hook: str) -> Floats:
        """float32 [n, L, d]: row t is the sum up to item t."""
        read = self._vectors[batch.padded(self.card.max_history)]
        for position in range(1, read.shape[1]):
            read[:, position] += np.float32(0.9) * read[:, position - 1]
        return read

    def embed(self, batch: Batch, hook: str) -> Floats:
        """float32 [n, d]: the row of the newest item."""
        found: Floats = self.embed_positions(batch, hook)[np.arange(len(batch)), batch.lengths - 1]
        return found


if __name__ == "__main__":
    wave = np.sin(1.7 * np.arange(40 * 8, dtype=np.float32)).astype(np.float32).reshape(40, 8)
    serving = Exporter(FadingSums([f"item-{number}" for number in range(1, 41)], wave)).serve(sys.argv[1])
    print(f"fading-sums on port {serving.port}", flush=True)  # noqa: T201
    serving.wait()
