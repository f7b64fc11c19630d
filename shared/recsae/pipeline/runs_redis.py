"""Run records in Redis: `recsae:run:<id>` holds JSON, `recsae:runs` orders ids by the time they were made.

`recsae:runs:active` names the runs that have not ended, so the sweep reads only those. Each write is one script:
the check of the revision and the write cannot be torn apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import redis

from recsae.errors import ConflictError
from recsae.pipeline.run_json import run_from_json, run_to_json
from recsae.pipeline.run_store import changed_meanwhile, unknown_run
from recsae.pipeline.runs import Run

_PREFIX = "recsae:run:"
_INDEX = "recsae:runs"
_ACTIVE = "recsae:runs:active"
_KEY_TTL_S = 7 * 24 * 3600
_PAGE = 100
_MAX_RUNS = 2_000  # oldest ended records go first; what they published stays in the artifact store

# KEYS: record, index, active, idempotency key.  ARGV: id, JSON, created_at, has key, key TTL, most runs, prefix.
_CREATE = """
if ARGV[4] == '1' then
  local known = redis.call('GET', KEYS[4])
  if known and redis.call('EXISTS', ARGV[7] .. known) == 1 then return known end
end
if redis.call('EXISTS', KEYS[1]) == 1 then return redis.error_reply('EXISTS run id taken') end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
redis.call('SADD', KEYS[3], ARGV[1])
if ARGV[4] == '1' then redis.call('SET', KEYS[4], ARGV[1], 'EX', ARGV[5]) end
local excess = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[6])
if excess > 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, excess - 1)) do
    if redis.call('SISMEMBER', KEYS[3], id) == 0 then
      redis.call('DEL', ARGV[7] .. id)
      redis.call('ZREM', KEYS[2], id)
    end
  end
end
return ARGV[1]
"""

# KEYS: record, active.  ARGV: id, expected revision, JSON, ended.
# Returns -1 when written, -2 when the record is gone, else the revision stored.
_REPLACE = """
local stored = redis.call('GET', KEYS[1])
if not stored then return -2 end
local revision = cjson.decode(stored)['revision']
if revision ~= tonumber(ARGV[2]) then return revision end
redis.call('SET', KEYS[1], ARGV[3])
if ARGV[4] == '1' then redis.call('SREM', KEYS[2], ARGV[1]) else redis.call('SADD', KEYS[2], ARGV[1]) end
return -1
"""


class RedisRunStore:
    """A `RunStore` on the `state` server."""

    def __init__(self, client: redis.Redis) -> None:
        """`client` may decode responses or not."""
        self._client: Any = client
        self._create = client.register_script(_CREATE)
        self._replace = client.register_script(_REPLACE)

    def create(self, run: Run, idempotency_key: str = "") -> Run:
        """See `RunStore`."""
        stored = replace(run, revision=1)
        digest = hashlib.sha256(idempotency_key.encode()).hexdigest()[:32]
        try:
            run_id = self._create(
                keys=[_PREFIX + run.id, _INDEX, _ACTIVE, f"recsae:run-key:{digest}"],
                args=[
                    run.id, run_to_json(stored), run.created_at, int(bool(idempotency_key)),
                    _KEY_TTL_S, _MAX_RUNS, _PREFIX,
                ],
            )  # fmt: skip
        except redis.ResponseError as error:
            if "EXISTS" in str(error):
                raise ConflictError(f"run {run.id} exists already; start again for a new id") from error
            raise
        return self.get(_text(run_id))

    def get(self, run_id: str) -> Run:
        """See `RunStore`."""
        stored = self._client.get(_PREFIX + run_id)
        if stored is None:
            raise unknown_run(run_id)
        return run_from_json(stored)

    def replace(self, run: Run) -> Run:
        """See `RunStore`."""
        stored = replace(run, revision=run.revision + 1)
        answer = int(
            self._replace(
                keys=[_PREFIX + run.id, _ACTIVE],
                args=[run.id, run.revision, run_to_json(stored), int(run.state.ended)],
            )
        )
        if answer == -2:
            raise unknown_run(run.id)
        if answer != -1:
            raise changed_meanwhile(run, answer)
        return stored

    def list(self, model: str = "", limit: int = 20, *, active_only: bool = False) -> list[Run]:
        """See `RunStore`."""
        ids: Iterable[Any] = self._client.zrevrange(_INDEX, 0, -1)
        if active_only:
            active = {_text(name) for name in self._client.smembers(_ACTIVE)}
            ids = [name for name in ids if _text(name) in active]
        keys = [_PREFIX + _text(name) for name in ids]
        found: list[Run] = []
        for start in range(0, len(keys), _PAGE):
            stored = [text for text in self._client.mget(keys[start : start + _PAGE]) if text is not None]
            found += [run for run in map(run_from_json, stored) if model in ("", run.config.model)]
            if len(found) >= limit:
                break
        return found[:limit]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
