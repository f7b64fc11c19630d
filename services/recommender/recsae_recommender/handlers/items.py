"""Use case: the items of a model with the vectors its head scores them by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.recommenders.runtime import OnnxRecommender
from recsae_recommender.handlers.sources import ItemPage, item_range
from recsae_recommender.models import ModelTable


@dataclass(frozen=True)
class ItemsQuery:
    """Which items."""

    page: ItemPage
    model: str = ""
    model_version: str = ""


@dataclass(frozen=True)
class ItemsPage:
    """Items in index order; vectors float32 [n, d] and biases float32 [n] of a dot-product head, else None."""

    recommender: OnnxRecommender
    item_ids: Sequence[str]
    titles: Sequence[str]
    vectors: NDArray[np.float32] | None
    biases: NDArray[np.float32] | None
    next_cursor: str


class ItemsHandler:
    """Lists items page by page."""

    def __init__(self, models: ModelTable) -> None:
        """Keeps its collaborators."""
        self._models = models

    def __call__(self, query: ItemsQuery) -> ItemsPage:
        """One page; FailedPreconditionError for another model version."""
        recommender = self._models.get(query.model, query.model_version).recommender
        first, last, cursor = item_range(recommender, query.page)
        vectors, biases = recommender.item_vectors, recommender.item_bias
        return ItemsPage(
            recommender=recommender,
            item_ids=recommender.bundle.item_ids[first - 1 : last - 1],
            titles=recommender.bundle.titles[first - 1 : last - 1],
            vectors=None if vectors is None else vectors[first:last],
            biases=None if biases is None else biases[first:last],
            next_cursor=cursor,
        )
