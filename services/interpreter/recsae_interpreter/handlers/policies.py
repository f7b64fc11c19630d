"""Use cases of a policy's life: create, read, list, take back, audit.

Each write names who (the authenticated principal) and why; the store makes write and audit event one step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from time import time

from recsae.errors import ConflictError, FailedPreconditionError, InvalidRequestError
from recsae.rpc.request import RequestInfo
from recsae.steering.plans import Basis
from recsae.steering.policies import (
    Operation,
    Policy,
    PolicyDraft,
    PolicyState,
    new_policy,
    reverted,
    validate_draft,
    validate_reason,
)
from recsae.steering.policy_store import Idempotency, PolicyStore, Written
from recsae.steering.safety import Effects, HandleUse, expanded, find_handle, outside_safe_range
from recsae.store.events import AuditEvent, AuditTrail, change_now
from recsae_interpreter.library import Library
from recsae_interpreter.loading import LoadedTriple
from recsae_interpreter.policy_view import as_shown

DEFAULT_EVENTS = 100
MOST_EVENTS = 1_000


@dataclass(frozen=True)
class HandleDose:
    """The facet of a handle, and the dose."""

    facet: str
    dose: float


@dataclass(frozen=True)
class CreateQuery:
    """A draft, why, the caller's key, and the request as bytes, which recognise a repeated call.

    `handles` are turned besides the draft's operations.
    """

    draft: PolicyDraft
    reason: str
    idempotency_key: str
    request: bytes
    handles: tuple[HandleDose, ...] = ()
    allow_outside_safe_range: bool = False


class PoliciesHandler:
    """Owns the life of policies."""

    def __init__(self, policies: PolicyStore, trail: AuditTrail, library: Library) -> None:
        """Keeps its collaborators."""
        self._policies = policies
        self._trail = trail
        self._library = library

    def create(self, query: CreateQuery, info: RequestInfo) -> Written:
        """A live policy, once it is stored with its event. InvalidRequestError, NotFoundError as they say.

        FailedPreconditionError when it is not known to be safe and that was not asked for, and for a hook that can only
        be read.
        """
        validate_reason(query.reason)
        now = time()
        asked = query.draft
        uses = handle_uses(query.handles, self._library.model(asked.model)) if query.handles else ()
        draft = replace(asked, operations=expanded(asked.operations, uses))
        validate_draft(draft, now)
        loaded = self._library.model(draft.model)
        check_steerable(loaded)
        draft = replace(draft, model=loaded.model)  # its first hook may have been named
        check_concepts(draft.operations, loaded.basis)
        outside = outside_safe_range(asked.operations, uses, effects_of(loaded))
        if outside and not query.allow_outside_safe_range:
            raise FailedPreconditionError(outside)
        version = loaded.basis.triple.dictionary_version
        policy = new_policy(
            draft, actor=info.principal, now=now, dictionary_version=version, outside_safe_range=outside
        )
        idempotency = Idempotency.of(query.idempotency_key, actor=info.principal, request=query.request)
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


def check_concepts(operations: tuple[Operation, ...], basis: Basis) -> None:
    """InvalidRequestError names the first concept that is not a live one of the promoted dictionary."""
    for operation in operations:
        if operation.concept_id not in basis.latents:
            raise InvalidRequestError(
                f"concept {operation.concept_id!r} is no live concept of dictionary {basis.triple.dictionary_version}, "
                f"which is promoted for {basis.model}; list or search for its id"
            )


def check_steerable(loaded: LoadedTriple) -> None:
    """FailedPreconditionError for a hook that can only be read."""
    if not loaded.steerable:
        raise FailedPreconditionError(loaded.read_only("steer the concepts of the model's first hook instead"))


def handle_uses(handles: Iterable[HandleDose], loaded: LoadedTriple) -> tuple[HandleUse, ...]:
    """Handles of the promoted dictionary by their facets; NotFoundError names those there are."""
    check_steerable(loaded)
    return tuple(find_handle(loaded.dictionary.handles, one.facet, one.dose) for one in handles)


def effects_of(loaded: LoadedTriple) -> Effects:
    """What is known of a concept's effects, by its id."""
    return lambda concept_id: loaded.dictionary.by_id(concept_id).causal


def _at(policy: Policy, revision: int) -> Policy:
    return replace(policy, revision=revision)
