"""Ids of items and users, and the numbers a model knows them by.

Ids are strings everywhere in the contract; what number a model gives each is its own business. Not here: what is
done with them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.store.pseudonyms import pseudonym

Indices = NDArray[np.int64]


class Vocabulary:
    """Ids in a fixed order. An id's *place* counts from 0 in that order, its *index* is the model's own number."""

    def __init__(self, ids: Sequence[object] | Mapping[object, int], what: str = "item") -> None:
        """A sequence is numbered from 1, as embedding tables are whose row 0 is padding; a mapping names each index.

        Ids become strings. InvalidRequestError when none or twice the same came.
        """
        self.ids = tuple(str(one) for one in ids)
        numbers = ids.values() if isinstance(ids, Mapping) else range(1, len(self.ids) + 1)
        self.indices: Indices = np.fromiter(numbers, np.int64, len(self.ids))
        self._places = {one: place for place, one in enumerate(self.ids)}
        self._ids_by_index: dict[int, str] = dict(zip(self.indices.tolist(), self.ids, strict=True))
        if not self.ids:
            raise InvalidRequestError(f"no {what} ids came; name at least one {what}")
        if len(self._places) < len(self.ids) or len(np.unique(self.indices)) < len(self.ids):
            raise InvalidRequestError(f"two {what}s share an id or an index; give each its own")

    def __len__(self) -> int:
        return len(self.ids)

    def places_of_known(self, ids: Iterable[str]) -> Indices:
        """Places of those ids that are known, in order, int64 [<= n]."""
        return np.array([place for one in ids if (place := self._places.get(one)) is not None], dtype=np.int64)

    def places_of(self, ids: Sequence[str]) -> Indices:
        """Places of all ids, int64 [n]; InvalidRequestError names one that is not known."""
        places = self.places_of_known(ids)
        if len(places) < len(ids):
            unknown = next(one for one in ids if one not in self._places)
            raise InvalidRequestError(f"{unknown!r} is none of the model's {len(self)} ids; leave it out")
        return places

    def id_of_index(self, index: int) -> str:
        """The id of an index of the model; KeyError when it has none."""
        return self._ids_by_index[index]

    def place_of(self, one: str) -> int | None:
        """Place of an id; None when it is not known."""
        return self._places.get(one)


class Users:
    """The users a model knows by id, by their own ids or by pseudonyms."""

    def __init__(self, vocabulary: Vocabulary, unknown: int, pseudonym_key: bytes | None) -> None:
        """`unknown` is the index of anybody else. With a key they are listed by pseudonym and found by both."""
        self.vocabulary = vocabulary
        self._unknown = unknown
        self._key = pseudonym_key
        self._by_pseudonym: dict[str, int] | None = None
        self._lock = threading.Lock()

    def place_of(self, user_id: str) -> int | None:
        """Place of a user by id or pseudonym; None for anybody else."""
        place = self.vocabulary.place_of(user_id)
        return self._pseudonyms().get(user_id) if place is None and user_id and self._key is not None else place

    def index_of(self, user_id: str) -> int:
        """The model's number of a user, by id or pseudonym; `unknown` for anybody else."""
        place = self.place_of(user_id)
        return self._unknown if place is None else int(self.vocabulary.indices[place])

    def own_id(self, user_id: str) -> str:
        """The id the model's own data know a user by; ids of strangers as they came."""
        place = self.place_of(user_id)
        return user_id if place is None else self.vocabulary.ids[place]

    def shown(self, user_id: str) -> str:
        """What a user is called in listings."""
        return user_id if self._key is None else pseudonym(self._key, user_id)

    def _pseudonyms(self) -> dict[str, int]:
        """Made when the first one is asked for: a hash per user."""
        with self._lock:
            if self._by_pseudonym is None:
                key = self._key or b""
                self._by_pseudonym = {pseudonym(key, one): place for place, one in enumerate(self.vocabulary.ids)}
            return self._by_pseudonym
