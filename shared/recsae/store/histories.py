"""Where a recommender finds a user's history and attributes. What is kept is bounded in length and, in Redis, in time.

Here: the contract, the store in memory, and the choice by URL. The others are `histories_file` and
`histories_redis`. Not here: the interpreter's state, which no recommender opens.
"""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from recsae.datasets.attributes import AttributeValue
from recsae.errors import InvalidRequestError

LONGEST_HISTORY = 1000
DAY_S = 86_400
TTL_S = 90 * DAY_S
_REDIS = ("redis://", "rediss://", "unix://")


class UserPage(NamedTuple):
    """User ids and the cursor of the next page, "" after the last."""

    user_ids: tuple[str, ...]
    next_cursor: str


class HistoryStore(Protocol):
    """Histories of item ids, oldest first, by user id."""

    def get(self, user_id: str) -> tuple[str, ...]:
        """The newest items of a user, oldest first; empty for an unknown user."""

    def append(self, user_id: str, item_ids: Sequence[str]) -> None:
        """Adds newer items, oldest of them first; what exceeds the bound is dropped from the oldest end.

        InvalidRequestError for an empty user or item id. No items = nothing happens.
        """

    def attributes(self, user_id: str) -> Mapping[str, AttributeValue]:
        """Attributes for segments; empty for an unknown user."""

    def users(self, cursor: str, limit: int) -> UserPage:
        """At most `limit` (>= 1) users with a history, in order of their ids, after `cursor`; "" = from the start.

        Any id may be a cursor: a page can be gone on from any of its users.

        A user who has a history throughout is on exactly one page, whatever is appended meanwhile; a page may be
        short, even empty, before the last.
        """


class MemoryHistoryStore:
    """Histories in this process: for tests and small embeddings. Bounded per user, not in users or time."""

    def __init__(self, *, longest: int = LONGEST_HISTORY) -> None:
        """`longest` = items kept per user."""
        self._longest = longest
        self._histories: dict[str, tuple[str, ...]] = {}
        self._attributes: dict[str, dict[str, AttributeValue]] = {}
        self._sorted_ids: list[str] = []
        self._lock = threading.Lock()

    def get(self, user_id: str) -> tuple[str, ...]:
        """See `HistoryStore`."""
        return self._histories.get(user_id, ())

    def append(self, user_id: str, item_ids: Sequence[str]) -> None:
        """See `HistoryStore`."""
        check_ids(user_id, item_ids)
        if not item_ids:
            return
        with self._lock:
            if user_id not in self._histories:
                insort(self._sorted_ids, user_id)
            self._histories[user_id] = (*self._histories.get(user_id, ()), *item_ids)[-self._longest :]

    def set_attributes(self, user_id: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Replaces a user's attributes."""
        self._attributes[user_id] = dict(attributes)

    def attributes(self, user_id: str) -> Mapping[str, AttributeValue]:
        """See `HistoryStore`."""
        return self._attributes.get(user_id, {})

    def users(self, cursor: str, limit: int) -> UserPage:
        """See `HistoryStore`."""
        with self._lock:
            return page_of(self._sorted_ids, cursor, limit)


class AsideStore:
    """Another store, each call of which is made by `aside`: in a thread of its own, where the caller's is shared."""

    def __init__(self, store: HistoryStore, aside: Callable[..., Any]) -> None:
        """`aside` calls the function it is given with the arguments that follow, and returns its result."""
        self._store = store
        self._aside = aside

    def get(self, user_id: str) -> tuple[str, ...]:
        """See `HistoryStore`."""
        found: tuple[str, ...] = self._aside(self._store.get, user_id)
        return found

    def append(self, user_id: str, item_ids: Sequence[str]) -> None:
        """See `HistoryStore`."""
        self._aside(self._store.append, user_id, item_ids)

    def attributes(self, user_id: str) -> Mapping[str, AttributeValue]:
        """See `HistoryStore`."""
        found: Mapping[str, AttributeValue] = self._aside(self._store.attributes, user_id)
        return found

    def users(self, cursor: str, limit: int) -> UserPage:
        """See `HistoryStore`."""
        found: UserPage = self._aside(self._store.users, cursor, limit)
        return found


def is_remote(url: str) -> bool:
    """True when a store's answers come over a network, and may take their time."""
    return url.startswith(_REDIS)


def open_history_store(url: str, *, longest: int = LONGEST_HISTORY, ttl_s: int = TTL_S) -> HistoryStore:
    """`file:FOLDER` (a saved data set), `redis://...` or `memory:`; InvalidRequestError for anything else.

    `longest` = items kept per user, `ttl_s` = seconds without an append after which Redis forgets a user.
    """
    if url.startswith("file:"):
        from recsae.store.histories_file import FileHistoryStore

        return FileHistoryStore(Path(url.removeprefix("file:").removeprefix("//")), longest=longest)
    if is_remote(url):
        from recsae.store.histories_redis import RedisHistoryStore

        return RedisHistoryStore(url, longest=longest, ttl_s=ttl_s)
    if url == "memory:":
        return MemoryHistoryStore(longest=longest)
    scheme = url.split(":")[0]  # the rest may hold a password
    raise InvalidRequestError(f"{scheme!r} is no history store; write file:FOLDER or redis://HOST:PORT/DB")


def check_ids(user_id: str, item_ids: Sequence[str]) -> None:
    """InvalidRequestError for an empty user or item id."""
    if not user_id:
        raise InvalidRequestError("the user id is empty; a history belongs to somebody")
    if not all(item_ids):
        raise InvalidRequestError("an item id is empty; leave it out")


def page_of(sorted_ids: Sequence[str], cursor: str, limit: int) -> UserPage:
    """The page of sorted ids after `cursor`, the last id seen."""
    check_limit(limit)
    start = bisect_right(sorted_ids, cursor) if cursor else 0
    page = tuple(sorted_ids[start : start + limit])
    return UserPage(page, page[-1] if start + limit < len(sorted_ids) else "")


def check_limit(limit: int) -> None:
    """InvalidRequestError for a page that could hold nobody."""
    if limit < 1:
        raise InvalidRequestError(f"a page of {limit} users holds nobody; ask for at least 1")
