"""Policies: what to do to which concepts, for whom and when, and what may be asked for at all.

Pure values. Not here: how they change (`policy_life`), where they are kept (`policy_store`), their numbers (`plans`),
the wire form (`wire`).
Times are seconds since the epoch.
"""

from __future__ import annotations

import math
import secrets
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from recsae.errors import InvalidRequestError
from recsae.steering.segments import Segment, validate_segment

MAX_OPERATIONS = 16
MAX_NAME = 120
MAX_REASON = 500
MAX_PRIORITY = 1_000
MAX_USERS = 10_000
MAX_ID = 256
# What a Timestamp may hold: beyond it a policy could not be stored.
_FIRST_TIME, _LAST_TIME = -62_135_596_800.0, 253_402_300_799.0


class OperationKind(StrEnum):
    """What to do to a concept's strength."""

    ABLATE = "ablate"
    SCALE = "scale"
    ADD = "add"
    SET = "set"
    CAP = "cap"

    @property
    def reads_latents(self) -> bool:
        """True when the change depends on how strongly the concept fires; only then an encoder has to run."""
        return self is not OperationKind.ADD


_RANGES = {
    OperationKind.SCALE: (0.0, 100.0),
    OperationKind.ADD: (-10.0, 10.0),
    OperationKind.SET: (0.0, 10.0),
    OperationKind.CAP: (0.0, 10.0),
}


class PolicyState(StrEnum):
    """State of a policy."""

    DRAFT = "draft"
    SHADOW = "shadow"
    LIVE = "live"
    PAUSED = "paused"
    EXPIRED = "expired"
    REVERTED = "reverted"
    SUSPENDED = "suspended"

    @property
    def ended(self) -> bool:
        """True when it never comes into force again."""
        return self in (PolicyState.EXPIRED, PolicyState.REVERTED)


BEGINNINGS = (PolicyState.DRAFT, PolicyState.SHADOW, PolicyState.LIVE)


@dataclass(frozen=True)
class Operation:
    """One change to one concept: a factor for SCALE, a strength (multiples of p95) for ADD, SET and CAP."""

    concept_id: str
    kind: OperationKind
    value: float = 0.0


@dataclass(frozen=True)
class Scope:
    """For whom: all parts that are set must match; empty = everyone."""

    user_ids: tuple[str, ...] = ()
    segment: Segment | None = None
    rollout_percent: float = 100.0


@dataclass(frozen=True)
class Window:
    """From `start` (inclusive) to `end` (exclusive); None = open."""

    start: float | None = None
    end: float | None = None

    def contains(self, now: float) -> bool:
        """True while the window is open at `now`."""
        return (self.start is None or self.start <= now) and (self.end is None or now < self.end)


@dataclass(frozen=True)
class PolicyDraft:
    """What a caller asks for; the rest of a policy is the server's."""

    name: str
    model: str
    operations: tuple[Operation, ...]
    scope: Scope = field(default_factory=Scope)
    window: Window = field(default_factory=Window)
    priority: int = 0


@dataclass(frozen=True)
class Policy:
    """A steering rule. `revision` counts its changes, from 1, and guards every write.

    `dictionary_version`: the dictionary its concepts were named for; "" where a release before did not write it down.
    `outside_safe_range` says why it is not known to be safe; "" = it was when it was made. A live one was allowed so.
    """

    id: str
    name: str
    model: str
    operations: tuple[Operation, ...]
    scope: Scope
    window: Window
    priority: int
    state: PolicyState
    salt: str
    created_at: float
    updated_at: float
    created_by: str
    state_reason: str = ""
    revision: int = 1
    dictionary_version: str = ""
    outside_safe_range: str = ""


def validate_draft(draft: PolicyDraft, now: float, state: PolicyState = PolicyState.LIVE) -> None:
    """InvalidRequestError names the first thing that can never work in that state, and its range."""
    if not 1 <= len(draft.name.strip()) <= len(draft.name) <= MAX_NAME:
        raise InvalidRequestError(f"name has {len(draft.name)} characters; give 1 to {MAX_NAME}, not only blanks")
    if not draft.model:
        raise InvalidRequestError("model is empty; name the model to steer")
    if not -MAX_PRIORITY <= draft.priority <= MAX_PRIORITY:
        raise InvalidRequestError(f"priority {draft.priority} is out of range; give -{MAX_PRIORITY} to {MAX_PRIORITY}")
    validate_operations(draft.operations)
    validate_scope(draft.scope)
    _validate_window(draft.window, now, end_needed=state is PolicyState.LIVE)


def validate_operations(operations: tuple[Operation, ...]) -> None:
    """InvalidRequestError unless there are 1 to 16 operations in range, each concept at most once."""
    if not 1 <= len(operations) <= MAX_OPERATIONS:
        raise InvalidRequestError(f"{len(operations)} operations came; give 1 to {MAX_OPERATIONS}")
    for operation in operations:
        _validate_operation(operation)
    concept, times = Counter(operation.concept_id for operation in operations).most_common(1)[0]
    if times > 1:
        raise InvalidRequestError(f"concept {concept!r} comes {times} times; give each concept one operation")


def validate_scope(scope: Scope) -> None:
    """InvalidRequestError when a part of the scope is out of bounds."""
    if len(scope.user_ids) > MAX_USERS:
        raise InvalidRequestError(f"{len(scope.user_ids)} user ids came; give at most {MAX_USERS}, or use a segment")
    if any(not 1 <= len(user_id) <= MAX_ID for user_id in scope.user_ids):
        raise InvalidRequestError(f"a user id is empty or longer than {MAX_ID} characters; leave it out")
    if not 0 <= scope.rollout_percent <= 100:
        raise InvalidRequestError(f"rollout_percent {scope.rollout_percent} is out of range; give 0 to 100")
    if scope.segment is not None:
        validate_segment(scope.segment)


def validate_reason(reason: str) -> None:
    """InvalidRequestError unless the audit trail gets a reason of 1 to 500 characters."""
    if not 1 <= len(reason.strip()) <= len(reason) <= MAX_REASON:
        raise InvalidRequestError(f"reason has {len(reason)} characters; say why in 1 to {MAX_REASON}")


def new_policy(
    draft: PolicyDraft,
    *,
    actor: str,
    now: float,
    state: PolicyState = PolicyState.LIVE,
    dictionary_version: str = "",
    outside_safe_range: str = "",
) -> Policy:
    """A policy for a valid draft, with a fresh id and salt. The id sorts by the time it was made.

    InvalidRequestError for a state no policy begins in.
    """
    if state not in BEGINNINGS:
        raise InvalidRequestError(f"a policy cannot begin as {state}; make it {' or '.join(BEGINNINGS)}")
    validate_draft(draft, now, state)
    now = round(now, 6)
    return Policy(
        id=new_id(now),
        name=draft.name,
        model=draft.model,
        operations=draft.operations,
        scope=draft.scope,
        window=draft.window,
        priority=draft.priority,
        state=state,
        salt=secrets.token_hex(8),
        created_at=now,
        updated_at=now,
        created_by=actor,
        dictionary_version=dictionary_version,
        outside_safe_range=outside_safe_range,
    )


def new_id(now: float) -> str:
    """A fresh id that sorts by the time."""
    return f"p-{int(now * 1000):012x}{secrets.token_hex(3)}"


def reverted(policy: Policy, *, reason: str, now: float) -> Policy:
    """The policy taken back, one revision on."""
    return replace(
        policy, state=PolicyState.REVERTED, state_reason=reason, revision=policy.revision + 1, updated_at=now
    )


def as_of(policy: Policy, now: float) -> Policy:
    """The policy as people should see it at `now`: past its end it is expired."""
    if policy.state.ended or policy.window.end is None or now < policy.window.end:
        return policy
    return replace(policy, state=PolicyState.EXPIRED, state_reason="its end has passed")


def utc(at: float | None) -> str:
    """A time in words, e.g. "2026-11-26 21:00 UTC"; seconds since the epoch, None = "never"."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC" if at is not None else "never"


def _validate_operation(operation: Operation) -> None:
    if not 1 <= len(operation.concept_id) <= MAX_ID:
        raise InvalidRequestError(f"a concept id has {len(operation.concept_id)} characters; give 1 to {MAX_ID}")
    if operation.kind not in _RANGES:
        return
    low, high = _RANGES[operation.kind]
    if not (math.isfinite(operation.value) and low <= operation.value <= high):
        raise InvalidRequestError(
            f"{operation.kind} of {operation.concept_id} has value {operation.value:g}; give {low:g} to {high:g}"
        )


def _validate_window(window: Window, now: float, *, end_needed: bool) -> None:
    if window.end is None and end_needed:
        raise InvalidRequestError("the policy has no end; a live policy needs one, e.g. seven days from now")
    if not all(_FIRST_TIME <= at <= _LAST_TIME for at in (window.start, window.end) if at is not None):
        raise InvalidRequestError(
            "the policy's window leaves the years 1 to 9999, which times can name; give other times"
        )
    if window.end is None:
        return
    if window.end <= now:
        raise InvalidRequestError(
            f"the policy's end, {utc(window.end)}, has passed already; give one in the future (it is {utc(now)})"
        )
    if window.start is not None and window.start >= window.end:
        raise InvalidRequestError(
            f"the policy starts {utc(window.start)}, at or after its end {utc(window.end)}; give an earlier start or a "
            "later end"
        )
