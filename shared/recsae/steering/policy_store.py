"""Keeping policies: every write is checked against a revision and is one step with its audit event.

Not here: what a policy may say (`policies`) and the Redis store (`policy_store_redis`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Protocol

from recsae.errors import ConflictError, InvalidRequestError, NotFoundError
from recsae.steering.kill_switch import KillSwitch
from recsae.steering.policies import Policy
from recsae.steering.policy_json import policy_from_json, policy_to_json
from recsae.store.events import Change, InMemoryTrail

MAX_KEY = 64
REVISIONS_KEPT = 50


@dataclass(frozen=True)
class Idempotency:
    """What makes a repeated call recognisable: the caller's key, and a fingerprint of what the call asked for."""

    key: str = ""
    fingerprint: str = ""

    @classmethod
    def of(cls, key: str, *, actor: str, request: bytes) -> Idempotency:
        """InvalidRequestError when the key is too long; the key counts per actor."""
        if len(key) > MAX_KEY:
            raise InvalidRequestError(f"idempotency_key has {len(key)} characters; send at most {MAX_KEY}")
        if not key:
            return cls()
        return cls(
            hashlib.sha256(f"{actor}\0{key}".encode()).hexdigest()[:32], hashlib.sha256(request).hexdigest()[:32]
        )


NO_KEY = Idempotency()


@dataclass(frozen=True)
class Written:
    """A stored policy, and the plan revision from which it counts."""

    policy: Policy
    plan_revision: int


@dataclass(frozen=True)
class PolicySnapshot:
    """All policies as of one revision, oldest first, and the kill switches by model.

    `unreadable` holds the ids of stored policies this release cannot read (a newer one wrote them): they are out of
    force here, and the others are not.
    """

    revision: int
    policies: tuple[Policy, ...]
    unreadable: tuple[str, ...] = ()
    kill_switches: Mapping[str, KillSwitch] = field(default_factory=dict)


class PolicyStore(Protocol):
    """Where policies live."""

    def create(self, policy: Policy, change: Change, idempotency: Idempotency) -> Written:
        """Stores a new policy; for a key seen before, returns what that call stored.

        ConflictError when the key was used for another request.
        """

    def replace(self, policy: Policy, change: Change, idempotency: Idempotency = NO_KEY) -> Written:
        """Stores `policy` when the stored revision is the one before its own; for a key seen before, as `create`.

        ConflictError when somebody else changed it first, NotFoundError when there is none.
        """

    def repeated(self, idempotency: Idempotency) -> Written | None:
        """What the call with that key stored; None when there was none. ConflictError as in `create`."""

    def get(self, policy_id: str) -> Policy:
        """The policy; NotFoundError when there is none."""

    def revisions(self, policy_id: str) -> tuple[Policy, ...]:
        """Its newest revisions, newest first, at most 50; NotFoundError when there is no such policy."""

    def snapshot(self) -> PolicySnapshot:
        """All policies and kill switches and the revision they are of, read in one step."""

    def set_kill_switch(self, switch: KillSwitch, change: Change) -> int:
        """Stores the switch with its event; the plan revision from which it counts."""


class InMemoryPolicyStore:
    """A store for tests and single-process use."""

    def __init__(self, trail: InMemoryTrail | None = None) -> None:
        """Records into `trail`."""
        self.trail = trail or InMemoryTrail()
        self._policies: dict[str, Policy] = {}
        self._revisions: dict[str, list[Policy]] = {}
        self._kill_switches: dict[str, KillSwitch] = {}
        self._keys: dict[str, tuple[str, Written]] = {}

    def create(self, policy: Policy, change: Change, idempotency: Idempotency) -> Written:
        """See `PolicyStore`."""
        with self.trail.lock:
            if (known := self.repeated(idempotency)) is not None:
                return known
            if policy.id in self._policies:
                raise changed_meanwhile(policy, self._policies[policy.id].revision)
            return self._write(policy, change, idempotency, before="")

    def replace(self, policy: Policy, change: Change, idempotency: Idempotency = NO_KEY) -> Written:
        """See `PolicyStore`."""
        with self.trail.lock:
            if (known := self.repeated(idempotency)) is not None:
                return known
            stored = self.get(policy.id)
            if stored.revision != policy.revision - 1:
                raise changed_meanwhile(policy, stored.revision)
            return self._write(policy, change, idempotency, before=policy_to_json(stored))

    def repeated(self, idempotency: Idempotency) -> Written | None:
        """See `PolicyStore`."""
        with self.trail.lock:
            if idempotency.key not in self._keys:
                return None
            fingerprint, written = self._keys[idempotency.key]
            if fingerprint != idempotency.fingerprint:
                raise key_reused()
            return written

    def revisions(self, policy_id: str) -> tuple[Policy, ...]:
        """See `PolicyStore`."""
        with self.trail.lock:
            self.get(policy_id)
            return tuple(reversed(self._revisions[policy_id]))

    def get(self, policy_id: str) -> Policy:
        """See `PolicyStore`."""
        with self.trail.lock:
            if policy_id not in self._policies:
                raise unknown_policy(policy_id)
            return self._policies[policy_id]

    def snapshot(self) -> PolicySnapshot:
        """See `PolicyStore`."""
        with self.trail.lock:
            policies = oldest_first(self._policies.values())
            return PolicySnapshot(self.trail.revision(), policies, kill_switches=dict(self._kill_switches))

    def set_kill_switch(self, switch: KillSwitch, change: Change) -> int:
        """See `PolicyStore`."""
        with self.trail.lock:
            before = self._kill_switches.get(switch.model)
            self._kill_switches[switch.model] = switch
            subject = f"kill-switch/{switch.model or '*'}"
            return self.trail.record(change, subject, switch_to_json(before) if before else "", switch_to_json(switch))

    def _write(self, policy: Policy, change: Change, idempotency: Idempotency, before: str) -> Written:
        text = policy_to_json(policy)
        stored = self._policies[policy.id] = policy_from_json(text)
        kept = self._revisions.setdefault(policy.id, [])
        kept.append(stored)
        del kept[:-REVISIONS_KEPT]
        written = Written(stored, self.trail.record(change, policy.id, before, text))
        if idempotency.key:
            self._keys[idempotency.key] = (idempotency.fingerprint, written)
        return written


def oldest_first(policies: Iterable[Policy]) -> tuple[Policy, ...]:
    """Policies by the time they were made."""
    return tuple(sorted(policies, key=lambda policy: (policy.created_at, policy.id)))


def switch_to_json(switch: KillSwitch) -> str:
    """One line of JSON: how a switch is stored and audited."""
    return json.dumps(asdict(switch), sort_keys=True)


def switch_from_json(text: str) -> KillSwitch:
    """The switch `switch_to_json` was made from; fields a newer release added are ignored."""
    stored = json.loads(text)
    return KillSwitch(**{one.name: stored[one.name] for one in fields(KillSwitch)})


def unknown_policy(policy_id: str) -> NotFoundError:
    """The error of a policy id nobody knows."""
    return NotFoundError(f"no policy {policy_id!r}; list the policies there are")


def changed_meanwhile(policy: Policy, stored_revision: int) -> ConflictError:
    """The error of a write made from an old revision."""
    return ConflictError(
        f"policy {policy.id} is at revision {stored_revision}, the change was made from {policy.revision - 1}; "
        "read it again and decide again"
    )


def key_reused() -> ConflictError:
    """The error of an idempotency key used for two different requests."""
    return ConflictError("this idempotency_key was used for another request; use a new key for a new policy")
