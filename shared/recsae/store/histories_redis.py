"""Histories in Redis: per user a bounded list that expires and a JSON of attributes; and an index of users by id."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import redis

from recsae.datasets.attributes import AttributeValue
from recsae.errors import UnavailableError
from recsae.store.histories import LONGEST_HISTORY, TTL_S, UserPage, check_ids, check_limit
from recsae.store.urls import readable_url

Result = TypeVar("Result")

_PREFIX = "recsae:history:"
_INDEX = "recsae:history-users"

# KEYS: index of users. ARGV: prefix of histories, least id (for ZRANGEBYLEX), most users.
# Users whose history expired leave the index here: one script, so that an append in between is not lost.
# Returns the ids looked at, then those of them that still have a history.
_PAGE = """
local ids = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[2], '+', 'LIMIT', 0, ARGV[3])
local live = {}
for _, id in ipairs(ids) do
  if redis.call('EXISTS', ARGV[1] .. id) == 1 then
    live[#live + 1] = id
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return {ids, live}
"""


class RedisHistoryStore:
    """A `HistoryStore` shared by recommender replicas."""

    def __init__(self, url: str, *, longest: int = LONGEST_HISTORY, ttl_s: int = TTL_S, timeout_s: float = 0.5) -> None:
        """`longest` = items kept per user; `ttl_s` after the last append a history is gone.

        `timeout_s` bounds every call, so that a slow store cannot hold a recommendation. InvalidRequestError for a
        URL that cannot be read.
        """
        self._redis: Any = redis.Redis.from_url(
            readable_url(url), decode_responses=True, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        )
        self._longest, self._ttl_s = longest, ttl_s
        self._page = self._redis.register_script(_PAGE)

    def get(self, user_id: str) -> tuple[str, ...]:
        """See `HistoryStore`. UnavailableError when Redis does not answer, as for every call here."""
        return tuple(_answer(lambda: self._redis.lrange(_PREFIX + user_id, -self._longest, -1)))

    def append(self, user_id: str, item_ids: Sequence[str]) -> None:
        """See `HistoryStore`."""
        check_ids(user_id, item_ids)
        if not item_ids:
            return
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.rpush(_PREFIX + user_id, *item_ids[-self._longest :])
            pipeline.ltrim(_PREFIX + user_id, -self._longest, -1)
            pipeline.expire(_PREFIX + user_id, self._ttl_s)
            pipeline.expire(_attributes_key(user_id), self._ttl_s)
            pipeline.zadd(_INDEX, {user_id: 0})
            _answer(pipeline.execute)

    def set_attributes(self, user_id: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Replaces a user's attributes; they live as long as the user's history, `ttl_s` after the last change."""
        _answer(lambda: self._redis.set(_attributes_key(user_id), json.dumps(dict(attributes)), ex=self._ttl_s))

    def attributes(self, user_id: str) -> Mapping[str, AttributeValue]:
        """See `HistoryStore`."""
        found: dict[str, AttributeValue] = json.loads(
            _answer(lambda: self._redis.get(_attributes_key(user_id))) or "{}"
        )
        return found

    def users(self, cursor: str, limit: int) -> UserPage:
        """See `HistoryStore`."""
        check_limit(limit)
        least = f"({cursor}" if cursor else "-"
        seen, live = _answer(lambda: self._page(keys=[_INDEX], args=[_PREFIX, least, limit]))
        return UserPage(tuple(live), seen[-1] if len(seen) == limit else "")


def _attributes_key(user_id: str) -> str:
    return f"recsae:attributes:{user_id}"


def _answer(ask: Callable[[], Result]) -> Result:
    try:
        return ask()
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise UnavailableError(f"the history store did not answer ({type(error).__name__}); try again") from error
