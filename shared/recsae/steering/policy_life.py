"""The life of a policy: which states it may move between, and what a change, a move and a way back make of it.

Draft -> shadow -> live -> paused, and back. Expired (past its end) and suspended follow from the time and from the
promoted dictionary and are not stored; reverted is final. Each function gives the next revision, for a store to write
if the one before is still there. Not here: whether operations are safe (`safety`) and who may ask (the handlers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from recsae.errors import ConflictError, FailedPreconditionError, InvalidRequestError, NotFoundError
from recsae.steering.policies import (
    Policy,
    PolicyDraft,
    PolicyState,
    as_of,
    reverted,
    utc,
    validate_draft,
)

DRAFT, SHADOW, LIVE, PAUSED = PolicyState.DRAFT, PolicyState.SHADOW, PolicyState.LIVE, PolicyState.PAUSED
MOVES: Mapping[PolicyState, tuple[PolicyState, ...]] = {
    DRAFT: (SHADOW, LIVE),
    SHADOW: (LIVE, DRAFT, PAUSED),
    LIVE: (PAUSED, SHADOW),
    PAUSED: (LIVE, SHADOW, DRAFT),
}


def check_revision(policy: Policy, seen: int) -> None:
    """ConflictError when the policy is no longer at the revision a caller saw; 0 = whatever it is."""
    if seen not in (0, policy.revision):
        raise ConflictError(
            f"policy {policy.id} is at revision {policy.revision}, the change was made from {seen}; "
            "read it again and decide again"
        )


def check_not_final(policy: Policy) -> None:
    """FailedPreconditionError when the policy was taken back."""
    if policy.state is PolicyState.REVERTED:
        raise FailedPreconditionError(f"policy {policy.id} was taken back, which is final; make a new policy")


def draft_of(policy: Policy) -> PolicyDraft:
    """What a policy says, apart from its state."""
    return PolicyDraft(policy.name, policy.model, policy.operations, policy.scope, policy.window, policy.priority)


def check_move(policy: Policy, to: PolicyState, now: float) -> None:
    """Refuses a move that there is not: InvalidRequestError for no state to ask for, else FailedPreconditionError."""
    if to not in MOVES:
        raise InvalidRequestError(f"a policy cannot be set {to}; ask for one of {', '.join(MOVES)}")
    check_not_final(policy)
    if as_of(policy, now).state is PolicyState.EXPIRED:
        raise FailedPreconditionError(
            f"policy {policy.id} ended at {utc(policy.window.end)}; update its window first, or make a new policy"
        )
    if to is not policy.state and to not in MOVES[policy.state]:
        raise FailedPreconditionError(
            f"policy {policy.id} is {policy.state} and cannot become {to} at once; "
            f"it can become {' or '.join(MOVES[policy.state])}"
        )


def moved(policy: Policy, to: PolicyState, *, reason: str, now: float) -> Policy:
    """The policy in another state, one revision on. Errors of `check_move`; of `validate_draft` for what goes live."""
    check_move(policy, to, now)
    validate_draft(draft_of(policy), now, to)
    return _next(replace(policy, state=to, state_reason=reason if to is PAUSED else ""), policy, now)


def updated(
    policy: Policy, draft: PolicyDraft, *, now: float, dictionary_version: str = "", outside_safe_range: str = ""
) -> Policy:
    """The policy saying something else, in the state it is in and with its salt, one revision on.

    FailedPreconditionError when it was taken back, InvalidRequestError for another model or a draft that cannot work.
    """
    check_not_final(policy)
    if draft.model not in ("", policy.model):
        raise InvalidRequestError(
            f"policy {policy.id} steers {policy.model} and cannot move to {draft.model}; make a new policy there"
        )
    draft = replace(draft, model=policy.model)
    validate_draft(draft, now, policy.state)
    said = replace(
        policy,
        name=draft.name,
        operations=draft.operations,
        scope=draft.scope,
        window=draft.window,
        priority=draft.priority,
        dictionary_version=dictionary_version,
        outside_safe_range=outside_safe_range,
    )
    return _next(said, policy, now)


def brought_back(policy: Policy, revisions: Sequence[Policy], to_revision: int, *, reason: str, now: float) -> Policy:
    """An earlier revision, content and state, as a new one; `to_revision` 0 = the one before.

    `revisions` are those kept, newest first. Of a policy with a single one, the policy taken back. NotFoundError for a
    revision that is not kept; FailedPreconditionError when the policy was taken back, or was live then and that window
    is over.
    """
    check_not_final(policy)
    if to_revision == 0 and policy.revision == 1:
        return reverted(policy, reason=reason, now=now)
    wanted = to_revision or policy.revision - 1
    earlier = next((one for one in revisions if one.revision == wanted), None)
    if wanted >= policy.revision or earlier is None:
        known = ", ".join(str(one.revision) for one in revisions if one.revision < policy.revision) or "none"
        raise NotFoundError(
            f"policy {policy.id} is at revision {policy.revision} and keeps no earlier revision {wanted}; "
            f"those to bring back: {known}"
        )
    if earlier.state is LIVE and as_of(earlier, now).state is PolicyState.EXPIRED:
        raise FailedPreconditionError(
            f"revision {wanted} of policy {policy.id} was live until {utc(earlier.window.end)}, which has passed; "
            "update the policy with a new window instead"
        )
    return _next(earlier, policy, now)


def _next(said: Policy, before: Policy, now: float) -> Policy:
    return replace(said, revision=before.revision + 1, updated_at=round(now, 6))
