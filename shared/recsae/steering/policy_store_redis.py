"""Policies in Redis: one script checks the revision, writes policy and revision history and records the event.

Keys: `recsae:policies` (hash, id -> JSON), `recsae:policy-revisions:<id>` (list, newest first),
`recsae:policy-key:<key>` (hash, what a call with that key stored), `recsae:kill-switches` (hash, model or "*" -> JSON).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis

from recsae.errors import RecsaeError
from recsae.steering.kill_switch import EVERY_MODEL, KillSwitch
from recsae.steering.policies import Policy
from recsae.steering.policy_json import policy_from_json, policy_to_json
from recsae.steering.policy_store import (
    NO_KEY,
    REVISIONS_KEPT,
    Idempotency,
    PolicySnapshot,
    Written,
    changed_meanwhile,
    key_reused,
    oldest_first,
    switch_from_json,
    switch_to_json,
    unknown_policy,
)
from recsae.store.acknowledging import AcknowledgedWrites
from recsae.store.events import EVENTS, RECORD_LUA, REVISION, Change, change_arguments
from recsae.store.redis import translated

POLICIES = "recsae:policies"
REVISIONS = "recsae:policy-revisions:"
KEYS = "recsae:policy-key:"
KILL_SWITCHES = "recsae:kill-switches"
_KEY_TTL_S = 7 * 24 * 3600
_EVERY_MODEL_FIELD = "*"  # no model is called that: names hold letters, digits and ._-

# KEYS: events, revision, policies, idempotency key, revision history.
# ARGV 7..12: policy id, revision it must be stored at (0 = not at all), JSON, fingerprint ("" = no key), key TTL, most
# revisions kept. Returns what happened, then: the plan revision and the policy JSON, or the revision stored.
# A repeated call writes too (the key lives on), so that waiting for its write waits for the first one's as well.
# A policy of a release that kept no history begins its history with what is there.
_WRITE = (
    RECORD_LUA
    + """
if ARGV[10] ~= '' then
  local known = redis.call('HMGET', KEYS[4], 'fingerprint', 'revision', 'policy')
  if known[1] and known[1] ~= ARGV[10] then return {'key_reused'} end
  if known[1] then
    redis.call('EXPIRE', KEYS[4], ARGV[11])
    return {'written', known[2], known[3]}
  end
end
local before = redis.call('HGET', KEYS[3], ARGV[7])
local stored = before and cjson.decode(before).revision or '0'
if tostring(stored) ~= ARGV[8] then return {'conflict', tostring(stored)} end
redis.call('HSET', KEYS[3], ARGV[7], ARGV[9])
if before and redis.call('EXISTS', KEYS[5]) == 0 then redis.call('LPUSH', KEYS[5], before) end
redis.call('LPUSH', KEYS[5], ARGV[9])
redis.call('LTRIM', KEYS[5], 0, tonumber(ARGV[12]) - 1)
local revision = record(before, ARGV[9])
if ARGV[10] ~= '' then
  redis.call('HSET', KEYS[4], 'fingerprint', ARGV[10], 'revision', revision, 'policy', ARGV[9])
  redis.call('EXPIRE', KEYS[4], ARGV[11])
end
return {'written', tostring(revision), ARGV[9]}
"""
)

# KEYS: events, revision, kill switches. ARGV 7, 8: field, JSON.
_SWITCH = (
    RECORD_LUA
    + """
local before = redis.call('HGET', KEYS[3], ARGV[7])
redis.call('HSET', KEYS[3], ARGV[7], ARGV[8])
return tostring(record(before, ARGV[8]))
"""
)


class RedisPolicyStore:
    """A `PolicyStore` on the `state` server."""

    def __init__(self, client: redis.Redis, replicas: int | None = None) -> None:
        """`client` decodes responses; `replicas` must have a write, as in `AcknowledgedWrites`."""
        self._client: Any = client
        self._writes = AcknowledgedWrites(client, replicas)
        self._script = client.register_script(_WRITE)
        self._switch = client.register_script(_SWITCH)

    def create(self, policy: Policy, change: Change, idempotency: Idempotency) -> Written:
        """See `PolicyStore`."""
        return self._write(policy, 0, change, idempotency)

    def replace(self, policy: Policy, change: Change, idempotency: Idempotency = NO_KEY) -> Written:
        """See `PolicyStore`."""
        return self._write(policy, policy.revision - 1, change, idempotency)

    def repeated(self, idempotency: Idempotency) -> Written | None:
        """See `PolicyStore`."""
        if not idempotency.key:
            return None
        with translated("looking up an idempotency key"):
            fingerprint, revision, text = self._client.hmget(
                KEYS + idempotency.key, "fingerprint", "revision", "policy"
            )
        if fingerprint is None:
            return None
        if fingerprint != idempotency.fingerprint:
            raise key_reused()
        # Also says that what that call wrote is durable, which it may have given up waiting for.
        self._writes.run(lambda one: one.expire(KEYS + idempotency.key, _KEY_TTL_S), "confirming an earlier call")
        return Written(policy_from_json(text), int(revision))

    def get(self, policy_id: str) -> Policy:
        """See `PolicyStore`."""
        with translated("reading a policy"):
            text = self._client.hget(POLICIES, policy_id)
        if text is None:
            raise unknown_policy(policy_id)
        return policy_from_json(text)

    def revisions(self, policy_id: str) -> tuple[Policy, ...]:
        """See `PolicyStore`."""
        with translated("reading a policy's revisions"), self._client.pipeline(transaction=True) as pipeline:
            pipeline.hget(POLICIES, policy_id)
            pipeline.lrange(REVISIONS + policy_id, 0, REVISIONS_KEPT - 1)
            stored, texts = pipeline.execute()
        if stored is None:
            raise unknown_policy(policy_id)
        return tuple(policy_from_json(text) for text in texts or [stored])

    def snapshot(self) -> PolicySnapshot:
        """See `PolicyStore`."""
        with translated("reading the policies"), self._client.pipeline(transaction=True) as pipeline:
            pipeline.hgetall(POLICIES)
            pipeline.get(REVISION)
            pipeline.hgetall(KILL_SWITCHES)
            texts, revision, switches = pipeline.execute()
        policies: list[Policy] = []
        unreadable: list[str] = []
        for policy_id, text in texts.items():
            try:
                policies.append(policy_from_json(text))
            except RecsaeError:
                unreadable.append(policy_id)
        return PolicySnapshot(
            int(revision or 0), oldest_first(policies), tuple(sorted(unreadable)), _kill_switches(switches)
        )

    def set_kill_switch(self, switch: KillSwitch, change: Change) -> int:
        """See `PolicyStore`."""
        field = switch.model or _EVERY_MODEL_FIELD
        arguments = [*change_arguments(change, f"kill-switch/{field}"), field, switch_to_json(switch)]
        return int(
            self._writes.run(
                lambda one: self._switch(keys=[EVENTS, REVISION, KILL_SWITCHES], args=arguments, client=one),
                f"setting the kill switch of {switch.model or 'every model'}",
            )
        )

    def _write(self, policy: Policy, stored_revision: int, change: Change, idempotency: Idempotency) -> Written:
        keys = [EVENTS, REVISION, POLICIES, KEYS + idempotency.key, REVISIONS + policy.id]
        arguments: list[str | int] = [
            *change_arguments(change, policy.id),
            *(policy.id, str(stored_revision), policy_to_json(policy), idempotency.fingerprint, _KEY_TTL_S),
            REVISIONS_KEPT,
        ]
        outcome, *facts = self._writes.run(
            lambda one: self._script(keys=keys, args=arguments, client=one), f"writing policy {policy.name!r}"
        )
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


def _kill_switches(texts: Mapping[str, str]) -> dict[str, KillSwitch]:
    """The switches by model; one that cannot be read is taken as on, since somebody may have meant that."""
    switches: dict[str, KillSwitch] = {}
    for field, text in texts.items():
        model = EVERY_MODEL if field == _EVERY_MODEL_FIELD else field
        try:
            switches[model] = switch_from_json(text)
        except (ValueError, TypeError, KeyError):
            switches[model] = KillSwitch(model, True, 0.0, "", "what is stored cannot be read; set the switch again")
    return switches
