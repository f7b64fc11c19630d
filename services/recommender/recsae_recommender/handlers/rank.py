"""Use case: the head alone, from activations the caller has. No steering, no observation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.recommenders.runtime import OnnxRecommender
from recsae.rpc.limits import MOST_ITEM_IDS, MOST_LISTS, MOST_RANK_ROWS, at_most, list_length
from recsae_recommender.models import ModelTable
from recsae_recommender.ranking import RankAsk, RankedList, rank_rows


@dataclass(frozen=True)
class RankQuery:
    """Activations float32 [n, d]; the rows of a list follow each other: one, or one per interest or candidate.

    `exclude` and `candidates` have one entry per list or none at all.
    """

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
    lists: list[RankedList]


class RankHandler:
    """Ranks items from activations."""

    def __init__(self, models: ModelTable) -> None:
        """Keeps its collaborators."""
        self._models = models

    def __call__(self, query: RankQuery) -> RankedLists:
        """The lists in row order; InvalidRequestError and FailedPreconditionError as they say."""
        k = list_length(query.k)
        recommender = self._models.get(query.model, query.model_version).recommender
        lists = _lists(query, recommender)
        if not lists:
            return RankedLists(recommender, [])
        asks = [
            RankAsk(
                k=k,
                exclude=_exclude(recommender, query.exclude[place] if query.exclude else ()),
                candidates=_candidates(recommender, query.candidates[place] if query.candidates else ()),
            )
            for place in range(lists)
        ]
        return RankedLists(recommender, _rank(query, recommender, asks))


def _lists(query: RankQuery, recommender: OnnxRecommender) -> int:
    """How many lists are asked for; InvalidRequestError for what does not fit together."""
    hook, rows = recommender.hooks[0], len(query.activations)
    if query.activations.ndim != 2 or query.activations.shape[1] != hook.dim:
        raise InvalidRequestError(f"activations have shape {list(query.activations.shape)}; send [n, {hook.dim}]")
    if hook.rows == "pair":
        lists, wanted = len(query.candidates), sum(len(ids) for ids in query.candidates)
        if wanted != rows or not all(query.candidates):
            raise InvalidRequestError(
                f"{rows} activation rows came for {wanted} candidates of {lists} lists; model {recommender.name} "
                "scores pairs: send one row per candidate, in order, and the candidates of each list"
            )
    else:
        lists = rows // hook.interests
        if lists * hook.interests != rows:
            raise InvalidRequestError(f"{rows} activation rows came; send {hook.interests}, one per interest, per list")
    if lists > MOST_LISTS or rows > MOST_RANK_ROWS:
        raise InvalidRequestError(
            f"{rows} activation rows of {lists} lists came; send at most {MOST_LISTS} lists and {MOST_RANK_ROWS} rows"
        )
    for what, given in (("exclude", query.exclude), ("candidates", query.candidates)):
        if given and len(given) != lists:
            raise InvalidRequestError(f"{what} has {len(given)} lists for {lists}; send one per list or none")
    for name, tensor in query.passthrough.items():
        if not tensor.ndim or tensor.shape[0] != rows:
            raise InvalidRequestError(f"passthrough {name!r} has shape {list(tensor.shape)}; send {rows} rows")
    return lists


def _rank(query: RankQuery, recommender: OnnxRecommender, asks: Sequence[RankAsk]) -> list[RankedList]:
    hook, x = recommender.hooks[0], query.activations
    if hook.rows == "pair":
        return _rank_pairs(query, recommender, asks)
    if hook.rows == "interest":
        # What crosses is the subject's: its rows carry it alike.
        crossing = {name: tensor[:: hook.interests] for name, tensor in query.passthrough.items()}
        return rank_rows(recommender, x.reshape(-1, hook.interests, hook.dim), crossing, asks)
    return rank_rows(recommender, x, query.passthrough, asks)


def _rank_pairs(query: RankQuery, recommender: OnnxRecommender, asks: Sequence[RankAsk]) -> list[RankedList]:
    """List by list: side by side, lists of unequal length would take the room of the longest each."""
    lists, end = [], 0
    for ask in asks:
        assert ask.candidates is not None, "a list of pairs names its candidates"
        own = slice(end, end + len(ask.candidates))
        end = own.stop
        crossing = {name: tensor[own][None] for name, tensor in query.passthrough.items()}
        lists += rank_rows(recommender, query.activations[own][None], crossing, [ask], ask.candidates[None])
    return lists


def _exclude(recommender: OnnxRecommender, item_ids: Sequence[str]) -> NDArray[np.int64]:
    at_most(len(item_ids), MOST_ITEM_IDS, "exclude")
    return recommender.bundle.index_of_known(item_ids)


def _candidates(recommender: OnnxRecommender, item_ids: Sequence[str]) -> NDArray[np.int64] | None:
    at_most(len(item_ids), MOST_ITEM_IDS, "candidates")
    return recommender.bundle.index_of(item_ids) if item_ids else None
