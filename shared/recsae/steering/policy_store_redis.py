"""Policies in Redis: one hash, and one script that checks the revision, writes the policy and records the event."""

from __future__ import annotations

from typing import Any

import redis

from recsae.errors import RecsaeError
from recsae.steering.policies import Policy
from recsae.steering.policy_json import policy_from_json, policy_to_json
from recsae.steering.policy_store import (
    Idempotency,
    PolicySnapshot,
    Written,
    changed_meanwhile,
    key_reused,
    oldest_first,
    unknown_policy,
)
from recsae.store.events import EVENTS, RECORD_LUA, REVISION, Change, change_arguments
from recsae.store.redis import translated

_POLICIES = "recsae:policies"
_KEY_TTL_S = 7 * 24 * 3600

# KEYS: events, revision, policies, idempotency key.
# ARGV 7..11: policy id, revision it must be stored at (0 = not at all), JSON, fingerprint ("" = no key), key TTL.
# Returns what happened, then: the plan revision and the policy JSON, or the revision stored.
_WRITE = (
    RECORD_LUA
    + """
if ARGV[10] ~= '' then
  local known = redis.call('HMGET', KEYS[4], 'fingerprint', 'revision', 'policy')
  if known[1] and known[1] ~= ARGV[10] then return {'key_reused'} end
  if known[1] then return {'written', known[2], known[3]} end
end
local before = redis.call('HGET', KEYS[3], ARGV[7])
local stored = before and cjson.decode(before).revision or '0'
if tostring(stored) ~= ARGV[8] then return {'conflict', tostring(stored)} end
redis.call('HSET', KEYS[3], ARGV[7], ARGV[9])
local revision = record(before, ARGV[9])
if ARGV[10] ~= '' then
  redis.call('HSET', KEYS[4], 'fingerprint', ARGV[10], 'revision', revision, 'policy', ARGV[9])
  redis.call('EXPIRE', KEYS[4], ARGV[11])
end
return {'written', tostring(revision), ARGV[9]}
"""
)


class RedisPolicyStore:
    """A `PolicyStore` on the `state` server."""

    def __init__(self, client: redis.Redis) -> None:
        """`client` decodes responses."""
        self._client: Any = client
        self._script = client.register_script(_WRITE)

    def create(self, policy: Policy, change: Change, idempotency: Idempotency) -> Written:
        """See `PolicyStore`."""
        return self._write(policy, 0, change, idempotency)

    def replace(self, policy: Policy, change: Change) -> Written:
        """See `PolicyStore`."""
        return self._write(policy, policy.revision - 1, change, Idempotency())

    def get(self, policy_id: str) -> Policy:
        """See `PolicyStore`."""
        with translated("reading a policy"):
            text = self._client.hget(_POLICIES, policy_id)
        if text is None:
            raise unknown_policy(policy_id)
        return policy_from_json(text)

    def snapshot(self) -> PolicySnapshot:
        """See `PolicyStore`."""
        with translated("reading the policies"), self._client.pipeline(transaction=True) as pipeline:
            pipeline.hgetall(_POLICIES)
            pipeline.get(REVISION)
            texts, revision = pipeline.execute()
        policies: list[Policy] = []
        unreadable: list[str] = []
        for policy_id, text in texts.items():
            try:
                policies.append(policy_from_json(text))
            except RecsaeError:
                unreadable.append(policy_id)
        return PolicySnapshot(int(revision or 0), oldest_first(policies), tuple(sorted(unreadable)))

    def _write(self, policy: Policy, stored_revision: int, change: Change, idempotency: Idempotency) -> Written:
        keys = [EVENTS, REVISION, _POLICIES, f"recsae:policy-key:{idempotency.key}"]
        arguments: list[str | int] = [
            *change_arguments(change, policy.id),
            *(policy.id, str(stored_revision), policy_to_json(policy), idempotency.fingerprint, _KEY_TTL_S),
        ]
        with translated(f"writing policy {policy.name!r}"):
            outcome, *facts = self._script(keys=keys, args=arguments)
        match outcome:
            case "written":
                return Written(policy_from_json(facts[1]), int(facts[0]))
            case "key_reused":
                raise key_reused()
            case "conflict" if facts[0] == "0":
                raise unknown_policy(policy.id)
            case "conflict":
                raise changed_meanwhile(policy, int(facts[0]))
        raise RecsaeError(f"the state server answered {outcome!r} to a policy write")
