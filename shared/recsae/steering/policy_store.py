"""Keeping policies: every write is checked against a revision and is one step with its audit event.

Not here: what a policy may say (`policies`) and the Redis store (`policy_store_redis`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from recsae.errors import ConflictError, InvalidRequestError, NotFoundError
from recsae.steering.policies import Policy
from recsae.steering.policy_json import policy_from_json, policy_to_json
from recsae.store.events import Change, InMemoryTrail

MAX_KEY = 64


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


@dataclass(frozen=True)
class Written:
    """A stored policy, and the plan revision from which it counts."""

    policy: Policy
    plan_revision: int


@dataclass(frozen=True)
class PolicySnapshot:
    """All policies as of one revision, oldest first.

    `unreadable` holds the ids of stored policies this release cannot read (a newer one wrote them): they are out of
    force here, and the others are not.
    """

    revision: int
    policies: tuple[Policy, ...]
    unreadable: tuple[str, ...] = ()


class PolicyStore(Protocol):
    """Where policies live."""

    def create(self, policy: Policy, change: Change, idempotency: Idempotency) -> Written:
        """Stores a new policy; for a key seen before, returns what that call stored.

        ConflictError when the key was used for another request.
        """

    def replace(self, policy: Policy, change: Change) -> Written:
        """Stores `policy` when the stored revision is the one before its own.

        ConflictError when somebody else changed it first, NotFoundError when there is none.
        """

    def get(self, policy_id: str) -> Policy:
        """The policy; NotFoundError when there is none."""

    def snapshot(self) -> PolicySnapshot:
        """All policies and the revision they are of, read in one step."""


class InMemoryPolicyStore:
    """A store for tests and single-process use."""

    def __init__(self, trail: InMemoryTrail | None = None) -> None:
        """Records into `trail`."""
        self.trail = trail or InMemoryTrail()
        self._policies: dict[str, Policy] = {}
        self._keys: dict[str, tuple[str, Written]] = {}

    def create(self, policy: Policy, change: Change, idempotency: Idempotency) -> Written:
        """See `PolicyStore`."""
        with self.trail.lock:
            if idempotency.key in self._keys:
                fingerprint, written = self._keys[idempotency.key]
                if fingerprint != idempotency.fingerprint:
                    raise key_reused()
                return written
            if policy.id in self._policies:
                raise changed_meanwhile(policy, self._policies[policy.id].revision)
            written = self._write(policy, change, before="")
            if idempotency.key:
                self._keys[idempotency.key] = (idempotency.fingerprint, written)
            return written

    def replace(self, policy: Policy, change: Change) -> Written:
        """See `PolicyStore`."""
        with self.trail.lock:
            stored = self.get(policy.id)
            if stored.revision != policy.revision - 1:
                raise changed_meanwhile(policy, stored.revision)
            return self._write(policy, change, before=policy_to_json(stored))

    def get(self, policy_id: str) -> Policy:
        """See `PolicyStore`."""
        with self.trail.lock:
            if policy_id not in self._policies:
                raise unknown_policy(policy_id)
            return self._policies[policy_id]

    def snapshot(self) -> PolicySnapshot:
        """See `PolicyStore`."""
        with self.trail.lock:
            return PolicySnapshot(self.trail.revision(), oldest_first(self._policies.values()))

    def _write(self, policy: Policy, change: Change, before: str) -> Written:
        text = policy_to_json(policy)
        self._policies[policy.id] = policy_from_json(text)
        return Written(self._policies[policy.id], self.trail.record(change, policy.id, before, text))


def oldest_first(policies: Iterable[Policy]) -> tuple[Policy, ...]:
    """Policies by the time they were made."""
    return tuple(sorted(policies, key=lambda policy: (policy.created_at, policy.id)))


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
