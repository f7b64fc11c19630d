"""Channels in Redis: a hash per model, a list of what production was, and one script per change.

Fields of `recsae:channels:<model>`: `candidate` and `production` (JSON of the channel), `serving:<model version>`
(JSON of the triple) and `served:<model version>` (production's revision when it was last pointed at that version).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import redis

from recsae.pipeline.triples import Triple
from recsae.store.acknowledging import AcknowledgedWrites
from recsae.store.channels import (
    HISTORY_LENGTH,
    PRODUCTION,
    SERVED_VERSIONS,
    Channel,
    ModelChannels,
    channel_from_json,
    check_pointing,
    moved_on,
    nothing_before,
)
from recsae.store.events import EVENTS, RECORD_LUA, REVISION, Change, change_arguments
from recsae.store.redis import translated

_MODELS = "recsae:models"
_SERVING = "serving:"

# KEYS: events, revision, channels, history, models.
# ARGV 7..11: model, channel, triple JSON ("" = the one before), expected revision or "", history length; 12: versions
# served; the time stays a string, since a Lua number would round it.
_POINT = (
    RECORD_LUA
    + """
local channels, name = KEYS[3], ARGV[8]
local stored = redis.call('HGET', channels, name)
local current = stored and cjson.decode(stored) or {revision = 0, triple = {}}
local triple = ARGV[9]
if triple == '' then
  local before = redis.call('LPOP', KEYS[4])
  if not before then return {'nothing_before', ''} end
  triple = cjson.encode(cjson.decode(before).triple)
else
  local same = true
  for part, version in pairs(cjson.decode(triple)) do same = same and current.triple[part] == version end
  if same then
    redis.call('HSET', channels, name, stored) -- a write, so that waiting for it waits for an earlier one too
    return {'same', stored}
  end
  if ARGV[10] ~= '' and tonumber(ARGV[10]) ~= current.revision then
    return {'conflict', tostring(current.revision)}
  end
  if name == 'production' and stored then
    redis.call('LPUSH', KEYS[4], stored)
    redis.call('LTRIM', KEYS[4], 0, tonumber(ARGV[11]) - 1)
  end
end
local revision = current.revision + 1
local after = '{"revision": ' .. revision .. ', "triple": ' .. triple .. ', "updated_at": ' .. ARGV[6] .. '}'
redis.call('HSET', channels, name, after)
redis.call('SADD', KEYS[5], ARGV[7])
if name == 'production' then
  local version = cjson.decode(triple).model_version
  redis.call('HSET', channels, 'serving:' .. version, triple, 'served:' .. version, revision)
  local served = {}
  local fields = redis.call('HGETALL', channels)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 7) == 'served:' then
      table.insert(served, {string.sub(fields[i], 8), tonumber(fields[i + 1])})
    end
  end
  table.sort(served, function(a, b) return a[2] > b[2] end)
  for i = tonumber(ARGV[12]) + 1, #served do
    redis.call('HDEL', channels, 'serving:' .. served[i][1], 'served:' .. served[i][1])
  end
end
record(stored, after)
return {'written', after}
"""
)


class RedisChannelStore:
    """A `ChannelStore` on the `state` server."""

    def __init__(self, client: redis.Redis, replicas: int | None = None) -> None:
        """`client` decodes responses; `replicas` must have a write, as in `AcknowledgedWrites`."""
        self._client: Any = client
        self._writes = AcknowledgedWrites(client, replicas)
        self._script = client.register_script(_POINT)

    def read(self, model: str) -> ModelChannels:
        """See `ChannelStore`."""
        with translated(f"reading the channels of {model}"):
            fields: Mapping[str, str] = self._client.hgetall(_key(model))
        return ModelChannels(
            {name: channel_from_json(name, text) for name, text in fields.items() if ":" not in name},
            {
                name.removeprefix(_SERVING): Triple(**json.loads(text))
                for name, text in fields.items()
                if name.startswith(_SERVING)
            },
        )

    def models(self) -> list[str]:
        """See `ChannelStore`."""
        with translated("listing the models"):
            return sorted(self._client.smembers(_MODELS))

    def point(
        self, model: str, name: str, triple: Triple, change: Change, *, expected_revision: int | None = None
    ) -> Channel:
        """See `ChannelStore`."""
        check_pointing(name, triple)
        expected = "" if expected_revision is None else str(expected_revision)
        outcome, text = self._run(model, name, json.dumps(asdict(triple), sort_keys=True), expected, change)
        if outcome == "conflict":
            raise moved_on(model, name, int(text), expected_revision)
        return channel_from_json(name, text)

    def roll_back(self, model: str, change: Change) -> Channel:
        """See `ChannelStore`."""
        outcome, text = self._run(model, PRODUCTION, "", "", change)
        if outcome == "nothing_before":
            raise nothing_before(model)
        return channel_from_json(PRODUCTION, text)

    def _run(self, model: str, name: str, triple: str, expected: str, change: Change) -> tuple[str, str]:
        keys = [EVENTS, REVISION, _key(model), f"{_key(model)}:history", _MODELS]
        arguments: list[str | int] = [
            *change_arguments(change, f"{model}/{name}"),
            *(model, name, triple, expected, HISTORY_LENGTH, SERVED_VERSIONS),
        ]
        outcome, text = self._writes.run(
            lambda one: self._script(keys=keys, args=arguments, client=one), f"pointing {name} of {model}"
        )
        return outcome, text


def _key(model: str) -> str:
    return f"recsae:channels:{model}"
