"""Use case: which concepts tell two groups of users apart.

Embed every user (recommender, in batches) -> encode -> pool the rows of a user -> contrast
(`recsae.concepts.contrast`). Only codes are kept, so memory is bounded by users times rows of a user times k.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.contrast import Contrast, Group, contrast
from recsae.concepts.records import ConceptRecord
from recsae.concepts.row_pooling import pool_rows
from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.pipeline.triples import Triple
from recsae.recommenders.address import split_address
from recsae.rpc.deadline import Deadline
from recsae_interpreter.handlers.candidates import check_candidates
from recsae_interpreter.library import Library
from recsae_interpreter.loading import LoadedTriple
from recsae_interpreter.readings import Subject
from recsae_interpreter.recommender import Recommender

MOST_USERS = 2_000
MOST_DIFFERENCES = 500
MOST_CANDIDATES = 100
DEFAULT_DIFFERENCES = 20
_ROWS_AT_ONCE = 256
# Stored users are embedded one by one; a few at a time hide the round trips and leave the recommender room for others.
_USERS_AT_ONCE = 8


@dataclass(frozen=True)
class UserGroup:
    """Users of the recommender's history store, and users given by their histories."""

    user_ids: Sequence[str] = ()
    histories: Sequence[Sequence[str]] = ()

    @property
    def size(self) -> int:
        """Number of users."""
        return len(self.user_ids) + len(self.histories)


@dataclass(frozen=True)
class CompareQuery:
    """Two groups of one model; limit 0 = 20 concepts.

    `candidates` pair every user with the same items, of a hook with a row per pair.
    """

    model: str
    a: UserGroup
    b: UserGroup
    limit: int = 0
    candidates: Sequence[str] = ()
    deadline: Deadline = field(default_factory=Deadline)


@dataclass(frozen=True)
class Compared:
    """The contrast of all latents, and the concepts to show, most telling first."""

    contrast: Contrast
    concepts: tuple[ConceptRecord, ...]
    triple: Triple
    model: str = ""


class CompareHandler:
    """Compares groups."""

    def __init__(self, library: Library, recommender: Recommender) -> None:
        """Keeps its collaborators."""
        self._library = library
        self._recommender = recommender

    def __call__(self, query: CompareQuery) -> Compared:
        """The comparison; InvalidRequestError for groups that are too small or too large."""
        _check(query)
        loaded = self._library.model(query.model)
        self._check_model(loaded, query)
        a, b = (self._group(loaded, group, query) for group in (query.a, query.b))
        found = contrast(a, b, loaded.dictionary.width)
        shown = found.tested[: query.limit or DEFAULT_DIFFERENCES].tolist()
        return Compared(
            found, tuple(loaded.dictionary.by_latent(latent) for latent in shown), loaded.triple, loaded.model
        )

    def _check_model(self, loaded: LoadedTriple, query: CompareQuery) -> None:
        """InvalidRequestError where this model cannot tell such users apart."""
        facts = self._recommender.describe(loaded.model, loaded.triple.model_version, query.deadline)
        hook = facts.hook(split_address(loaded.model).hook)
        if facts.ignores_history and (query.a.histories or query.b.histories):
            raise InvalidRequestError(f"model {facts.name} ignores histories; name users by their ids")
        if hook.rows == "pair" and not query.candidates and (query.a.user_ids or query.b.user_ids):
            raise InvalidRequestError(
                f"hook {hook.name!r} of model {facts.name} has a row per candidate item; name candidate_item_ids, or "
                "give users by their histories, whose newest items are then the candidates"
            )
        if hook.rows != "pair" and query.candidates:
            raise InvalidRequestError(
                f"hook {hook.name!r} of model {facts.name} reads no candidates; leave candidate_item_ids out"
            )

    def _group(self, loaded: LoadedTriple, group: UserGroup, query: CompareQuery) -> Group:
        latents, strengths, users = [], [], []
        for activations, user in self._activations(loaded, group, query):
            codes = loaded.sae.encode(activations)
            latents.append(codes.indices)
            strengths.append(loaded.dictionary.strengths(codes.indices, codes.values))
            users.append(user)
        pooled = pool_rows(np.concatenate(latents), np.concatenate(strengths), np.concatenate(users))
        return Group(pooled.latents, pooled.strengths, pooled.subject)

    def _activations(
        self, loaded: LoadedTriple, group: UserGroup, query: CompareQuery
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Batches of activations [n, d] and whose they are, by place in the group: stored users, then histories."""
        version = loaded.triple.model_version
        if group.user_ids:
            with ThreadPoolExecutor(_USERS_AT_ONCE) as pool:
                rows = list(pool.map(lambda one: self._embed(loaded, one, query), group.user_ids))
            yield np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(one) for one in rows])
        histories_at_once = max(1, _ROWS_AT_ONCE // max(1, len(query.candidates)))
        for at in range(0, len(group.histories), histories_at_once):
            batch = group.histories[at : at + histories_at_once]
            found = self._recommender.embed_histories(loaded.model, version, batch, query.deadline, query.candidates)
            check_version(found.model_version, version)
            yield found.activations, found.subject + len(group.user_ids) + at

    def _embed(self, loaded: LoadedTriple, user_id: str, query: CompareQuery) -> NDArray[np.float32]:
        reading = self._recommender.embed(loaded.model, Subject(user_id), query.deadline, query.candidates)
        check_version(reading.model_version, loaded.triple.model_version)
        return reading.activations


def _check(query: CompareQuery) -> None:
    if query.limit > MOST_DIFFERENCES:
        raise InvalidRequestError(f"limit {query.limit}; ask for at most {MOST_DIFFERENCES}")
    for name, group in (("a", query.a), ("b", query.b)):
        if not 2 <= group.size <= MOST_USERS:
            raise InvalidRequestError(f"group {name} has {group.size} users; give 2 to {MOST_USERS:,}")
        repeated = len(group.user_ids) - len(set(group.user_ids))
        if repeated:
            raise InvalidRequestError(f"group {name} names {repeated} users twice; name each once")
    check_candidates(query.candidates, MOST_CANDIDATES)


def check_version(found: str, wanted: str) -> None:
    """FailedPreconditionError where another version of the model is served than the promoted dictionary is of."""
    if found != wanted:
        raise FailedPreconditionError(
            f"the recommender serves version {found or '(unknown)'} of the model, the promoted dictionary is of "
            f"{wanted}; promote a dictionary of the version that is served"
        )
