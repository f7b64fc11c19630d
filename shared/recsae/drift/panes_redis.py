"""Panes in Redis: a hash per pane (contribution id -> bytes) that expires, and per series an index by time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

import redis

from recsae.drift.counters import ConceptCounters, Series
from recsae.drift.panes import MAX_CONTRIBUTIONS, RETENTION_S, Pane, in_order, pane_of, pane_start

# KEYS: pane, index of the series, index of the model's series.
# ARGV: contribution id, bytes, start, series JSON, most contributions, retention in seconds.
_ADD = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[5]) then return 0 end
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
local oldest = tonumber(ARGV[3]) - tonumber(ARGV[6])
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. oldest)
redis.call('EXPIRE', KEYS[2], ARGV[6])
redis.call('ZADD', KEYS[3], 'GT', ARGV[3], ARGV[4])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', '(' .. oldest)
redis.call('EXPIRE', KEYS[3], ARGV[6])
return 1
"""


class RedisPaneStore:
    """A `PaneStore` on the `state` server."""

    def __init__(self, client: redis.Redis) -> None:
        """`client` must not decode responses: contributions are bytes."""
        self._client: Any = client
        self._add = client.register_script(_ADD)

    def add(self, series: Series, counters: ConceptCounters, at: float, contribution: str) -> bool:
        """See `PaneStore`."""
        start = pane_start(at)
        return bool(
            self._add(
                keys=[_pane_key(series, start), _index_key(series), _series_key(series.model)],
                args=[contribution, counters.to_bytes(), start, _to_json(series), MAX_CONTRIBUTIONS, RETENTION_S],
            )
        )

    def read(self, series: Series, since: float, until: float) -> list[Pane]:
        """See `PaneStore`."""
        starts = [int(start) for start in self._client.zrangebyscore(_index_key(series), since, f"({until}")]
        found = [(start, self._client.hvals(_pane_key(series, start))) for start in starts]
        return [pane_of(start, contributions) for start, contributions in found if contributions]

    def series(self, model: str) -> list[Series]:
        """See `PaneStore`."""
        return in_order({Series(**json.loads(text)) for text in self._client.zrange(_series_key(model), 0, -1)})


def _to_json(series: Series) -> str:
    return json.dumps(asdict(series), sort_keys=True)


def _index_key(series: Series) -> str:
    digest = hashlib.sha256(_to_json(series).encode()).hexdigest()[:16]
    return f"recsae:drift-panes:{digest}"


def _pane_key(series: Series, start: int) -> str:
    return f"{_index_key(series)}:{start}"


def _series_key(model: str) -> str:
    return f"recsae:drift-series:{model}"
