"""Test quality of a served model: what its own ONNX graphs would have returned, beside the popularity baseline.

Full ranking over the catalogue on each user's test item, from everything before it, with consumed items left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.schema import Histories
from recsae.datasets.splits import Split
from recsae.errors import InvalidRequestError
from recsae.recommenders.inputs import Attributes, ModelInputs, stack_indices
from recsae.recommenders.metrics import CUTOFFS, popularity_ranks, ranking_quality, ranks_in_lists
from recsae.recommenders.runtime import OnnxRecommender

_BATCH = 64


@dataclass(frozen=True)
class UserFacts:
    """What a model may read about the users of a split besides histories, [n_users] each or nothing.

    `ids` are those the model was trained under: pseudonyms, of a published bundle.
    """

    ids: Sequence[str] = ()
    attributes: Sequence[Attributes] = ()

    def inputs(self, recommender: OnnxRecommender, inputs: Histories, users: NDArray[np.int64]) -> ModelInputs:
        """Some users as the model reads them."""
        chosen = users.tolist()
        return recommender.inputs(
            [inputs.of(user) for user in chosen],
            [self.ids[user] for user in chosen] if self.ids else (),
            [self.attributes[user] for user in chosen] if self.attributes else (),
        )


@dataclass(frozen=True)
class RecommenderQuality:
    """`hr@k` and `ndcg@k` of the model and of popularity over the same `users` test users."""

    users: int
    model: Mapping[str, float]
    popularity: Mapping[str, float]

    def as_scores(self) -> dict[str, float]:
        """One flat mapping; the baseline's names begin with `popularity_`."""
        return {**self.model, **{f"popularity_{name}": value for name, value in self.popularity.items()}}


def evaluate(
    recommender: OnnxRecommender,
    split: Split,
    cutoffs: Sequence[int] = CUTOFFS,
    max_users: int | None = None,
    facts: UserFacts = UserFacts(),
) -> RecommenderQuality:
    """Quality on the test items of `split`, or of `max_users` of them drawn with a fixed seed.

    Memory is bounded by batches of 64 users. InvalidRequestError when no user has a test item and a history.
    """
    inputs = split.before_test
    users = np.flatnonzero((split.test > 0) & (inputs.lengths > 0))
    if not len(users):
        raise InvalidRequestError("the split has no user with a test item and a history before it; nothing to evaluate")
    if max_users is not None and len(users) > max_users:
        users = np.sort(np.random.default_rng(0).choice(users, max_users, replace=False))
    ranks = listed_ranks(recommender, inputs, split.test, users, depth=max(cutoffs) + 1, facts=facts)
    popular = popularity_ranks(split.train, inputs, split.test, recommender.n_items)[users]
    return RecommenderQuality(len(users), ranking_quality(ranks, cutoffs), ranking_quality(popular, cutoffs))


def listed_ranks(
    recommender: OnnxRecommender,
    inputs: Histories,
    targets: NDArray[np.integer],
    users: NDArray[np.int64],
    depth: int,
    facts: UserFacts = UserFacts(),
) -> NDArray[np.int64]:
    """Ranks int64 [len(users)] of the users' targets, exact below `depth`, from lists of `depth` items."""
    ranks = []
    for start in range(0, len(users), _BATCH):
        batch = users[start : start + _BATCH]
        consumed = stack_indices(inputs.of(int(user)) for user in batch)
        ranked = recommender.recommend(facts.inputs(recommender, inputs, batch), k=depth, exclude=consumed)
        ranks.append(ranks_in_lists(ranked.items, ranked.scores, targets[batch]))
    return np.concatenate(ranks)
