"""Whom a request is about: history, user and attributes, given or stored, as one model reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError, InvalidRequestError, NotFoundError
from recsae.recommenders.runtime import OnnxRecommender
from recsae.rpc.limits import MOST_HISTORY
from recsae.steering.segments import Attribute
from recsae.store.histories import AsideStore, HistoryStore
from recsae_recommender.pseudonymous_users import PseudonymousUsers

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Subject:
    """A user or a bare history, seen by one model."""

    user_id: str
    """As the request named it."""
    item_ids: Sequence[str]
    """The history as it was given or stored, oldest first."""
    indices: NDArray[np.int64]
    """Those of its items the model knows, oldest first."""
    attributes: Mapping[str, Attribute]
    """What is known about the user, overridden by what the request says."""
    known_as: str = ""
    """Id the model was trained with this user under; empty for anybody else."""


class SubjectReader:
    """Reads subjects of one model from requests and from its history store."""

    def __init__(
        self, store: HistoryStore | None, pseudonym_key: bytes = b"", aside: Callable[..., Any] | None = None
    ) -> None:
        """Without a store every request has to carry its history; without a key no pseudonym is understood.

        A store whose answers take their time is asked by `aside`, which calls the function it is given with the
        arguments that follow, and returns its result.
        """
        if aside is None:
            self._store, self._pseudonyms = store, PseudonymousUsers(store, pseudonym_key)
        else:
            self._store = None if store is None else AsideStore(store, aside)
            self._pseudonyms = PseudonymousUsers(store, pseudonym_key, aside=aside)

    def read(
        self,
        recommender: OnnxRecommender,
        user_id: str,
        history: Sequence[str] | None,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> Subject:
        """The subject of one request; a history and attributes given win over the stored ones.

        NotFoundError for an unknown user, InvalidRequestError when no item of the history is one of the model's,
        unless the model answers subjects without history.
        """
        if history is None and not user_id:
            raise InvalidRequestError("neither a user id nor a history came; send one of them")
        item_ids = self._stored(recommender, user_id) if history is None else history
        if len(item_ids) > MOST_HISTORY:
            raise InvalidRequestError(f"the history has {len(item_ids)} items; send the newest {MOST_HISTORY}")
        indices = recommender.bundle.index_of_known(item_ids)
        if not len(indices) and needs_history(recommender):
            raise InvalidRequestError(
                f"none of the {len(item_ids)} items of the history is known to model {recommender.name} "
                f"{recommender.version}; send a history with at least one of its items"
            )
        known = {**self._served_attributes(recommender, user_id), **(attributes or {})}
        return Subject(user_id, item_ids, indices, known, self.known_as(recommender, user_id))

    def known_as(self, recommender: OnnxRecommender, user_id: str) -> str:
        """The id a model was trained with this user under, "" when it never saw it or reads no users."""
        if not user_id or not recommender.reads.user:
            return ""
        if recommender.bundle.user_index(user_id):
            return user_id
        hidden = self._pseudonyms.of(user_id)
        return hidden if hidden and recommender.bundle.user_index(hidden) else ""

    def require_store(self) -> HistoryStore:
        """The store; FailedPreconditionError when this server has none."""
        if self._store is None:
            raise FailedPreconditionError(
                "this server has no history store; send histories, or set RECSAE_RECOMMENDER_HISTORY"
            )
        return self._store

    def attributes(self, recommender: OnnxRecommender, user_id: str) -> Mapping[str, Attribute]:
        """What the store knows about a user, named by id or, where the model reads attributes, by pseudonym.

        Whatever the store raises: what is learnt from rows must not be learnt from attributes that went missing.
        """
        if self._store is None or not user_id:
            return {}
        found = dict(self._store.attributes(user_id))
        if found or not recommender.reads.attributes:
            return found
        behind = self._pseudonyms.behind(user_id)
        return dict(self._store.attributes(behind)) if behind else found

    def _served_attributes(self, recommender: OnnxRecommender, user_id: str) -> Mapping[str, Attribute]:
        """As `attributes`: features at most, so a store that fails to give them fails no recommendation."""
        try:
            return self.attributes(recommender, user_id)
        except Exception as error:
            _log.warning("attributes_unavailable", exc_info=error)
            return {}

    def _stored(self, recommender: OnnxRecommender, user_id: str) -> Sequence[str]:
        if self._store is None and not needs_history(recommender):
            return ()
        history = self.require_store().get(user_id)
        if not history and needs_history(recommender):
            raise NotFoundError(f"user {user_id!r} is not in the history store; send a history in the request")
        return history


def needs_history(recommender: OnnxRecommender) -> bool:
    """Whether a subject without a known item cannot be answered."""
    return recommender.reads.history and not recommender.reads.empty_history
