"""Use case: the head alone, from activations the caller has. No steering, no observation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.recommenders.runtime import OnnxRecommender
from recsae_recommender.handlers.recommend import check_item_ids, list_length
from recsae_recommender.models import ModelTable
from recsae_recommender.ranking import RankAsk, RankedItem, rank_rows

_MOST_ROWS = 1_024


@dataclass(frozen=True)
class RankQuery:
    """Activations float32 [n, d] to rank from; `exclude` and `candidates` have one list per row or none at all."""

    activations: NDArray[np.float32]
    passthrough: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    model: str = ""
    model_version: str = ""
    k: int = 0
    exclude: Sequence[Sequence[str]] = ()
    candidates: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class RankedLists:
    """One list per row and the model that ranked them."""

    recommender: OnnxRecommender
    lists: list[list[RankedItem]]


class RankHandler:
    """Ranks items from activations."""

    def __init__(self, models: ModelTable) -> None:
        """Keeps its collaborators."""
        self._models = models

    def __call__(self, query: RankQuery) -> RankedLists:
        """The lists in row order; InvalidRequestError and FailedPreconditionError as they say."""
        k = list_length(query.k)
        recommender = self._models.get(query.model, query.model_version).recommender
        rows = len(query.activations)
        _check(query, recommender, rows)
        asks = [
            RankAsk(
                k=k,
                exclude=_exclude(recommender, query.exclude[row] if query.exclude else ()),
                candidates=_candidates(recommender, query.candidates[row] if query.candidates else ()),
            )
            for row in range(rows)
        ]
        if not asks:
            return RankedLists(recommender, [])
        return RankedLists(recommender, rank_rows(recommender, query.activations, query.passthrough, asks))


def _check(query: RankQuery, recommender: OnnxRecommender, rows: int) -> None:
    dim = recommender.hooks[0].dim
    if query.activations.ndim != 2 or query.activations.shape[1] != dim:
        raise InvalidRequestError(f"activations have shape {list(query.activations.shape)}; send [n, {dim}]")
    if rows > _MOST_ROWS:
        raise InvalidRequestError(f"{rows} activation rows came; send at most {_MOST_ROWS} in one call")
    for what, lists in (("exclude", query.exclude), ("candidates", query.candidates)):
        if lists and len(lists) != rows:
            raise InvalidRequestError(f"{what} has {len(lists)} lists for {rows} rows; send one per row or none")
    for name, tensor in query.passthrough.items():
        if not tensor.ndim or tensor.shape[0] != rows:
            raise InvalidRequestError(f"passthrough {name!r} has shape {list(tensor.shape)}; send {rows} rows")


def _exclude(recommender: OnnxRecommender, item_ids: Sequence[str]) -> NDArray[np.int64]:
    check_item_ids(item_ids, what="exclude")
    return recommender.bundle.index_of_known(item_ids)


def _candidates(recommender: OnnxRecommender, item_ids: Sequence[str]) -> NDArray[np.int64] | None:
    check_item_ids(item_ids, what="candidates")
    return recommender.bundle.index_of(item_ids) if item_ids else None
