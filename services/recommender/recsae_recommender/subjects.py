"""Whom a request is about: the history given or stored, as item indices of one model, and the attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError, InvalidRequestError, NotFoundError
from recsae.recommenders.runtime import OnnxRecommender
from recsae.steering.segments import Attribute
from recsae.store.histories import HistoryStore

_LONGEST_HISTORY = 10_000
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Subject:
    """A user or a bare history, seen by one model."""

    user_id: str
    item_ids: Sequence[str]
    """The history as it was given or stored, oldest first."""
    indices: NDArray[np.int64]
    """Those of its items the model knows, oldest first."""
    attributes: Mapping[str, Attribute]


class SubjectReader:
    """Reads subjects from requests and from the history store."""

    def __init__(self, store: HistoryStore | None) -> None:
        """Without a store every request has to carry its history."""
        self._store = store

    def read(self, recommender: OnnxRecommender, user_id: str, history: Sequence[str] | None) -> Subject:
        """The subject of one request; a history given wins over the stored one.

        NotFoundError for an unknown user, InvalidRequestError when no item of the history is one of the model's.
        """
        item_ids = self._stored(user_id) if history is None else history
        if len(item_ids) > _LONGEST_HISTORY:
            raise InvalidRequestError(f"the history has {len(item_ids)} items; send the newest {_LONGEST_HISTORY}")
        indices = recommender.bundle.index_of_known(item_ids)
        if not len(indices):
            raise InvalidRequestError(
                f"none of the {len(item_ids)} items of the history is known to model {recommender.name} "
                f"{recommender.version}; send a history with at least one of its items"
            )
        return Subject(user_id, item_ids, indices, self._attributes(user_id))

    def require_store(self) -> HistoryStore:
        """The store; FailedPreconditionError when this server has none."""
        if self._store is None:
            raise FailedPreconditionError(
                "this server has no history store; send histories, or set RECSAE_RECOMMENDER_HISTORY"
            )
        return self._store

    def _stored(self, user_id: str) -> Sequence[str]:
        if not user_id:
            raise InvalidRequestError("neither a user id nor a history came; send one of them")
        history = self.require_store().get(user_id)
        if not history:
            raise NotFoundError(f"user {user_id!r} is not in the history store; send a history in the request")
        return history

    def _attributes(self, user_id: str) -> Mapping[str, Attribute]:
        """Attributes decide about steering only, so a store that fails to give them fails no recommendation."""
        if self._store is None or not user_id:
            return {}
        try:
            return dict(self._store.attributes(user_id))
        except Exception as error:
            _log.warning("attributes_unavailable", exc_info=error)
            return {}
