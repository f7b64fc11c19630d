"""Use case: ranked lists from activations the caller has. No steering happens here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.rpc.deadline import Deadline
from recsae.rpc.limits import MOST_ITEM_IDS, MOST_LISTS, MOST_RANK_ROWS, at_most, check_time, list_length
from recsae.sdk.model import DotProduct, Floats, Head, ModelCard, PairScores
from recsae.sdk.vocabulary import Indices

# Scores held at once, in numbers: 64 MiB of float32.
_MOST_SCORES = 16 << 20
_MASKED = np.float32(-np.inf)


@dataclass(frozen=True)
class RankAsk:
    """What to rank: activations float32 [n, d] and, per list or not at all, item ids to leave out or to rank alone."""

    activations: Floats
    k: int = 0
    exclude: Sequence[Sequence[str]] = ()
    candidates: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class RankedList:
    """Places of items and their scores float32, best first; of equal ones the earlier item first."""

    places: Indices
    scores: Floats


def rank(card: ModelCard, head: Head, ask: RankAsk, deadline: Deadline) -> list[RankedList]:
    """The lists in the order of the rows; InvalidRequestError and FailedPreconditionError as they say."""
    hook, k = card.hooks[0], list_length(ask.k)
    x = ask.activations
    if x.ndim != 2 or x.shape[1] != hook.dim:
        raise InvalidRequestError(f"activations have shape {list(x.shape)}; send [n, {hook.dim}]")
    at_most(len(x), MOST_RANK_ROWS, "activation rows")
    if hook.rows == "pair" or isinstance(head, PairScores):
        return _pairs(card, head, ask, k)
    if len(x) % hook.interests:
        raise InvalidRequestError(f"{len(x)} rows came; send {hook.interests} per list, one per interest")
    lists = len(x) // hook.interests
    _check_lists(ask, lists)
    run = max(1, _MOST_SCORES // (len(card.items) * hook.interests))
    found: list[RankedList] = []
    for start in range(0, lists, run):
        check_time(deadline)
        rows = x[start * hook.interests : (start + run) * hook.interests]
        scores = _scores(card, head, rows, hook.interests)
        for row, own in enumerate(scores):
            masked = _masked(card, own, ask, start + row)
            found.append(_best(masked, k))
    return found


def _scores(card: ModelCard, head: Head, x: Floats, interests: int) -> Floats:
    """Scores float32 [lists, items]; the caller's own array."""
    if isinstance(head, DotProduct):
        scores = head(x)
        return scores if interests == 1 else scores.reshape(-1, interests, scores.shape[1]).max(axis=1)
    scores = head.score(x if interests == 1 else x.reshape(-1, interests, x.shape[1]))
    if scores.shape != (len(x) // interests, len(card.items)):
        raise FailedPreconditionError(
            f"the head of model {card.name} gave scores {list(scores.shape)} for {len(x) // interests} lists of "
            f"{len(card.items)} items; give one score per item"
        )
    return np.array(scores, dtype=np.float32)


def _masked(card: ModelCard, scores: Floats, ask: RankAsk, place: int) -> Floats:
    if ask.candidates and ask.candidates[place]:
        wanted = card.items.places_of(ask.candidates[place])
        kept = np.full_like(scores, _MASKED)
        kept[wanted] = scores[wanted]
        scores = kept
    if ask.exclude:
        scores[card.items.places_of_known(ask.exclude[place])] = _MASKED
    scores[~np.isfinite(scores)] = _MASKED
    return scores


def _best(scores: Floats, k: int) -> RankedList:
    k = min(k, len(scores))
    # The k-th best score cuts; what equals it is kept, so that the order of equals does not hang on the partition.
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    near = np.flatnonzero((scores >= least) & (scores > _MASKED))
    best = near[np.argsort(-scores[near], kind="stable")][:k]
    return RankedList(best, scores[best])


def _pairs(card: ModelCard, head: Head, ask: RankAsk, k: int) -> list[RankedList]:
    """Row r of a list belongs to its candidate r."""
    if not isinstance(head, PairScores) or card.hooks[0].rows != "pair":
        raise FailedPreconditionError(f"model {card.name} has a row per pair and no head for pairs; give it `head=`")
    counts = [len(ids) for ids in ask.candidates]
    if sum(counts) != len(ask.activations) or (len(ask.activations) and not counts):
        raise InvalidRequestError(
            f"{len(ask.activations)} rows came for {sum(counts)} candidates; send one row per candidate of each list"
        )
    _check_lists(ask, len(counts))
    scores = np.asarray(head.score(ask.activations), dtype=np.float32).reshape(-1)
    found, start = [], 0
    for place, ids in enumerate(ask.candidates):
        own = np.full(len(card.items), _MASKED)
        own[card.items.places_of(ids)] = scores[start : start + len(ids)]
        start += len(ids)
        found.append(_best(_masked(card, own, RankAsk(ask.activations, exclude=ask.exclude), place), k))
    return found


def _check_lists(ask: RankAsk, lists: int) -> None:
    at_most(lists, MOST_LISTS, "lists")
    for what, given in (("exclude", ask.exclude), ("candidates", ask.candidates)):
        if given and len(given) != lists:
            raise InvalidRequestError(f"{what} has {len(given)} lists for {lists}; send one per list or none")
        for ids in given:
            at_most(len(ids), MOST_ITEM_IDS, f"item ids of {what}")
