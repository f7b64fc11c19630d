"""Where the recommender finds a user's history and attributes: a snapshot of a data set, or Redis.

Both are bounded. Not here: the interpreter's state, which no recommender opens.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import redis

from recsae.datasets.schema import load_dataset
from recsae.errors import InvalidRequestError

AttributeValue = str | float
_MOST_TAILS = 100_000


@dataclass(frozen=True)
class UserPage:
    """User ids and the cursor of the next page, "" after the last."""

    user_ids: tuple[str, ...]
    next_cursor: str


class HistoryStore(Protocol):
    """Histories of item ids, oldest first, by user id."""

    def get(self, user_id: str) -> tuple[str, ...]:
        """The newest items of a user, oldest first; empty for an unknown user."""

    def append(self, user_id: str, item_ids: Sequence[str]) -> None:
        """Adds newer items; what exceeds the bound is dropped from the oldest end."""

    def attributes(self, user_id: str) -> Mapping[str, AttributeValue]:
        """Attributes for segments; empty for an unknown user."""

    def users(self, cursor: str, limit: int) -> UserPage:
        """A page of users in a stable order."""


class SnapshotHistoryStore:
    """Histories of a saved data set; appended items live in memory only, for the most recently active users."""

    def __init__(self, folder: str, *, longest: int = 1000) -> None:
        """Reads the folder `recsae.datasets.schema.save_dataset` wrote."""
        dataset = load_dataset(folder)
        self._dataset = dataset
        self._longest = longest
        self._index = {user_id: number for number, user_id in enumerate(dataset.users.ids)}
        self._sorted_ids = sorted(self._index)
        self._tails: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, user_id: str) -> tuple[str, ...]:
        """See `HistoryStore`."""
        with self._lock:
            tail = self._tails.get(user_id, ())
        number = self._index.get(user_id)
        if number is None:
            return tail
        ids = self._dataset.items.ids
        stored = tuple(ids[item - 1] for item in self._dataset.histories.of(number)[-self._longest :])
        return (stored + tail)[-self._longest :]

    def append(self, user_id: str, item_ids: Sequence[str]) -> None:
        """See `HistoryStore`."""
        with self._lock:
            self._tails[user_id] = (self._tails.pop(user_id, ()) + tuple(item_ids))[-self._longest :]
            if len(self._tails) > _MOST_TAILS:
                self._tails.popitem(last=False)

    def attributes(self, user_id: str) -> Mapping[str, AttributeValue]:
        """See `HistoryStore`."""
        number = self._index.get(user_id)
        if number is None:
            return {}
        columns = self._dataset.users.columns
        return {name: _typed(values[number]) for name, values in columns.items() if values[number]}

    def users(self, cursor: str, limit: int) -> UserPage:
        """See `HistoryStore`; sorted by id, and the cursor is the last id seen."""
        start = bisect_right(self._sorted_ids, cursor) if cursor else 0
        page = self._sorted_ids[start : start + limit]
        more = start + limit < len(self._sorted_ids)
        return UserPage(tuple(page), page[-1] if more else "")


class RedisHistoryStore:
    """One bounded, expiring list per user, and one hash of attributes."""

    def __init__(self, url: str, *, longest: int = 1000, expire_s: int = 90 * 86_400, timeout_s: float = 0.5) -> None:
        """`timeout_s` bounds every call, so that a slow store cannot hold a recommendation."""
        self._redis = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        )
        self._longest = longest
        self._expire_s = expire_s

    def get(self, user_id: str) -> tuple[str, ...]:
        """See `HistoryStore`."""
        return tuple(str(item) for item in self._redis.lrange(_history_key(user_id), 0, -1))

    def append(self, user_id: str, item_ids: Sequence[str]) -> None:
        """See `HistoryStore`."""
        if not item_ids:
            return
        key = _history_key(user_id)
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.rpush(key, *item_ids)
            pipeline.ltrim(key, -self._longest, -1)
            pipeline.expire(key, self._expire_s)
            pipeline.execute()

    def set_attributes(self, user_id: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Replaces a user's attributes."""
        key = _attributes_key(user_id)
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(key)
            if attributes:
                pipeline.hset(key, mapping={name: str(value) for name, value in attributes.items()})
                pipeline.expire(key, self._expire_s)
            pipeline.execute()

    def attributes(self, user_id: str) -> Mapping[str, AttributeValue]:
        """See `HistoryStore`."""
        stored = self._redis.hgetall(_attributes_key(user_id))
        return {str(name): _typed(str(value)) for name, value in stored.items()}

    def users(self, cursor: str, limit: int) -> UserPage:
        """See `HistoryStore`; SCAN order: a user appended meanwhile may be missed, none present throughout is."""
        position, keys = self._redis.scan(int(cursor or 0), match=_history_key("*"), count=limit)
        prefix = len(_history_key(""))
        return UserPage(tuple(str(key)[prefix:] for key in keys), "" if position == 0 else str(position))


def open_history_store(url: str) -> HistoryStore:
    """`file:FOLDER` (a saved data set) or `redis://...`; InvalidRequestError for anything else."""
    if url.startswith("file:"):
        return SnapshotHistoryStore(url.removeprefix("file:"))
    if url.startswith(("redis://", "rediss://", "unix://")):
        return RedisHistoryStore(url)
    raise InvalidRequestError(f"{url!r} is no history store; write file:FOLDER or redis://HOST:PORT/DB")


def _history_key(user_id: str) -> str:
    return f"recsae:history:{user_id}"


def _attributes_key(user_id: str) -> str:
    return f"recsae:attributes:{user_id}"


def _typed(text: str) -> AttributeValue:
    try:
        return float(text)
    except ValueError:
        return text
