"""Requests as rows of activations and back: one row each, one per interest, or one per candidate.

What is between, steering, sees rows alone; a request of several rows is matched once and has one receipt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.recommenders.inputs import ModelInputs, stack_indices
from recsae.recommenders.runtime import OnnxRecommender
from recsae.rpc.limits import MOST_ITEM_IDS, MOST_LISTS
from recsae_recommender.ranking import RankAsk

# Every pair of a request is a run through the trunk: beyond this, a recommender that scores pairs is given a slate.
MOST_PAIRS = 10_000
# Pairs of one batch at most, some 64 MB at d = 256.
_PAIRS_AT_ONCE = 65_536


@dataclass(frozen=True)
class EmbeddedRows:
    """Rows float32 [r, d]; request i owns the next `sizes[i]` of them.

    `candidates` int64 [n, c] of a model that scores pairs (0 = none), else None; `passthrough` as `rank` takes it.
    """

    activation: NDArray[np.float32]
    sizes: Sequence[int]
    candidates: NDArray[np.int64] | None
    passthrough: Mapping[str, NDArray[Any]]

    def lists(self, activation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows [r, d], steered or not, in the shape that `OnnxRecommender.rank` takes: [n, d], or [n, rows, d]."""
        if self.candidates is not None:
            shaped = np.zeros((*self.candidates.shape, activation.shape[1]), np.float32)
            shaped[self.candidates > 0] = activation
            return shaped
        n = len(self.sizes)
        return activation if n == len(activation) else activation.reshape(n, -1, activation.shape[1])


def embed_rows(recommender: OnnxRecommender, inputs: ModelInputs, asks: Sequence[RankAsk]) -> EmbeddedRows:
    """The activations of requests; of pairs, with the candidates that each asks for."""
    hook, n = recommender.hooks[0], len(inputs)
    if hook.rows == "pair":
        candidates = stack_indices([_pair_candidates(recommender, ask) for ask in asks])
        embedded = recommender.embed_pairs(inputs, candidates)
        kept = candidates > 0
        return EmbeddedRows(embedded.activation[kept], kept.sum(axis=1).tolist(), candidates, embedded.passthrough)
    embedded = recommender.embed(inputs)
    rows = embedded.activation if hook.rows == "subject" else embedded.activation.reshape(-1, hook.dim)
    return EmbeddedRows(rows, [hook.interests] * n, None, embedded.passthrough)


def most_together(recommender: OnnxRecommender) -> int:
    """Requests of a batch at most, so that its memory stays bounded: by scores and lists of items, or by pairs."""
    if recommender.hooks[0].rows != "pair":
        return min(MOST_LISTS, recommender.lists_at_once(2 * MOST_ITEM_IDS))
    return max(1, _PAIRS_AT_ONCE // min(recommender.n_items, MOST_PAIRS))


def check_slate(recommender: OnnxRecommender, ask: RankAsk) -> None:
    """InvalidRequestError when pairs are to be scored, no candidates are named and there are too many items."""
    if recommender.hooks[0].rows == "pair" and ask.candidates is None and recommender.n_items > MOST_PAIRS:
        raise InvalidRequestError(
            f"model {recommender.name} scores pairs and has {recommender.n_items} items; send candidate_item_ids, at "
            f"most {MOST_PAIRS}"
        )


def _pair_candidates(recommender: OnnxRecommender, ask: RankAsk) -> NDArray[np.int64]:
    """The candidates of one request, int64 [c]: those it names, or every item, without those it excludes."""
    wanted = np.arange(1, recommender.n_items + 1) if ask.candidates is None else np.unique(ask.candidates)
    return np.setdiff1d(wanted, ask.exclude, assume_unique=True)
