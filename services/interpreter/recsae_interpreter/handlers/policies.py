"""Use cases of policies: create, read, list, take back, audit. Not here: changing one that there is (`policy_changes`).

Each write names who (the authenticated principal) and why; the store makes write and audit event one step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import time

from recsae.errors import ConflictError, InvalidRequestError
from recsae.rpc.request import RequestInfo
from recsae.steering.policies import (
    Policy,
    PolicyDraft,
    PolicyState,
    new_policy,
    reverted,
    validate_reason,
)
from recsae.steering.policy_store import Idempotency, PolicyStore, Written
from recsae.store.events import AuditEvent, AuditTrail, change_now
from recsae_interpreter.handlers.policy_checks import HandleDose, check_allowed, checked_draft
from recsae_interpreter.library import Library
from recsae_interpreter.policy_view import as_shown

DEFAULT_EVENTS = 100
MOST_EVENTS = 1_000


@dataclass(frozen=True)
class CreateQuery:
    """A draft, why, the caller's key, and the request as bytes, which recognise a repeated call.

    `handles` are turned besides the draft's operations. It begins as `state`: draft, shadow or live.
    """

    draft: PolicyDraft
    reason: str
    idempotency_key: str
    request: bytes
    handles: tuple[HandleDose, ...] = ()
    allow_outside_safe_range: bool = False
    state: PolicyState = PolicyState.LIVE


class PoliciesHandler:
    """Owns the life of policies."""

    def __init__(self, policies: PolicyStore, trail: AuditTrail, library: Library) -> None:
        """Keeps its collaborators."""
        self._policies = policies
        self._trail = trail
        self._library = library

    def create(self, query: CreateQuery, info: RequestInfo) -> Written:
        """A policy, once it is stored with its event. InvalidRequestError, NotFoundError as they say.

        FailedPreconditionError when a live one is not known to be safe and that was not asked for, and for a hook that
        can only be read; PermissionDeniedError when it was asked for by anyone but an admin.
        """
        validate_reason(query.reason)
        idempotency = Idempotency.of(query.idempotency_key, actor=info.principal, request=query.request)
        if (known := self._policies.repeated(idempotency)) is not None:
            return self._shown(known)
        now = time()
        checked = checked_draft(query.draft, query.handles, self._library, now=now, state=query.state)
        outside = checked.outside_safe_range
        check_allowed(outside, query.state, allow=query.allow_outside_safe_range, info=info)
        policy = new_policy(
            checked.draft,
            actor=info.principal,
            now=now,
            state=query.state,
            dictionary_version=checked.dictionary_version,
            outside_safe_range=outside,
        )
        change = change_now(
            actor=info.principal, action="policy.create", reason=query.reason, request_id=info.request_id
        )
        return self._shown(self._policies.create(policy, change, idempotency))

    def get(self, policy_id: str) -> Policy:
        """The policy; NotFoundError when there is none."""
        return as_shown(self._policies.get(policy_id), self._library.shelf, time())

    def listed(self, model: str, *, include_ended: bool) -> list[Policy]:
        """Policies, oldest first; of one model when named."""
        shelf, now = self._library.shelf, time()
        shown = [as_shown(policy, shelf, now) for policy in self._policies.snapshot().policies]
        return [one for one in shown if model in ("", one.model) and (include_ended or not one.state.ended)]

    def revisions(self, policy_id: str) -> tuple[Policy, ...]:
        """The revisions kept of a policy, newest first, each as it was written; NotFoundError when there is none."""
        return self._policies.revisions(policy_id)

    def delete(self, policy_id: str, revision: int, reason: str, info: RequestInfo) -> Written:
        """Takes a policy out of force; one taken back already stays as it is.

        ConflictError when `revision` is given and no longer the policy's.
        """
        validate_reason(reason)
        snapshot = self._policies.snapshot()
        stored = next((one for one in snapshot.policies if one.id == policy_id), None)
        if stored is None:
            stored = self._policies.get(policy_id)
        if stored.state is PolicyState.REVERTED:
            return Written(stored, snapshot.revision)
        change = change_now(actor=info.principal, action="policy.delete", reason=reason, request_id=info.request_id)
        # From the revision the caller saw, the store itself refuses what has moved on.
        base = stored if revision == 0 else _at(stored, revision)
        try:
            return self._policies.replace(reverted(base, reason=reason, now=change.at), change)
        except ConflictError:
            if revision:
                raise
        # Somebody changed it in between and the caller said whatever it is: each turn, someone else got on.
        return self.delete(policy_id, 0, reason, info)

    def audit(self, subject: str, limit: int, before_id: str = "") -> list[AuditEvent]:
        """Events, newest first; of one policy when named, only those before an event when it is named."""
        if limit > MOST_EVENTS:
            raise InvalidRequestError(f"limit {limit}; ask for at most {MOST_EVENTS} events")
        return self._trail.events(subject, limit or DEFAULT_EVENTS, before_id)

    def _shown(self, written: Written) -> Written:
        return Written(as_shown(written.policy, self._library.shelf, time()), written.plan_revision)


def _at(policy: Policy, revision: int) -> Policy:
    return replace(policy, revision=revision)
