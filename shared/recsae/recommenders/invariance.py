"""Whether batching changes a model's answers on this machine, to the bit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.recommenders.inputs import ModelInputs, made_up_inputs
from recsae.recommenders.runtime import OnnxRecommender

_SIZES = (1, 2, 8, 64)
_K = 20


@dataclass(frozen=True)
class BatchInvariance:
    """Whether a row's bits stayed the same at each batch size tried. `differs` names what changed, e.g. `scores@8`."""

    batch_sizes: tuple[int, ...]
    differs: tuple[str, ...]
    seconds: float

    @property
    def holds(self) -> bool:
        """True when batching changes no bit of any answer."""
        return not self.differs


def batch_invariance(recommender: OnnxRecommender, batch_sizes: Sequence[int] = _SIZES) -> BatchInvariance:
    """Answers made-up requests at each batch size and compares every row bit by bit with its result alone."""
    started = time.perf_counter()
    largest = max(batch_sizes)
    inputs = made_up_inputs(recommender.bundle, largest)
    alone = [_answer(recommender, inputs.take(slice(row, row + 1))) for row in range(largest)]
    differs = []
    for size in batch_sizes:
        starts = range(0, largest, size)
        parts = [_answer(recommender, inputs.take(slice(start, start + size))) for start in starts]
        for position, what in enumerate(("activation", "items", "scores")):
            together = np.concatenate([part[position] for part in parts])
            apart = np.concatenate([answer[position] for answer in alone])
            if together.tobytes() != apart.tobytes():
                differs.append(f"{what}@{size}")
    return BatchInvariance(tuple(batch_sizes), tuple(differs), time.perf_counter() - started)


def _answer(recommender: OnnxRecommender, inputs: ModelInputs) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    if recommender.hooks[0].rows == "pair":
        candidates = np.tile(np.arange(1, min(_K, recommender.n_items) + 1), (len(inputs), 1))
        embedded = recommender.embed_pairs(inputs, candidates)
    else:
        candidates = np.zeros((len(inputs), 0), np.int64)
        embedded = recommender.embed(inputs)
    ranked = recommender.rank(
        embedded.activation, embedded.passthrough, k=_K, exclude=inputs.history, candidates=candidates
    )
    return embedded.activation, ranked.items, ranked.scores
