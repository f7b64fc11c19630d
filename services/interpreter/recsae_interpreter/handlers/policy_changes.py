"""Use cases of a policy that there is: say something else, move to another state, bring an earlier revision back.

Each is checked against the revision the caller saw and is one step with its audit event. Without one ("whatever it
is") a change that somebody else overtakes is decided again on what they made. Not here: making and taking back
(`policies`), and which moves there are (`recsae.steering.policy_life`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import time

from recsae.errors import ConflictError, FailedPreconditionError, InvalidRequestError, PermissionDeniedError
from recsae.rpc.request import RequestInfo
from recsae.rpc.roles import Role
from recsae.steering.plans import suspension
from recsae.steering.policies import Policy, PolicyDraft, PolicyState, validate_reason
from recsae.steering.policy_life import (
    brought_back,
    check_move,
    check_not_final,
    check_revision,
    draft_of,
    moved,
    updated,
)
from recsae.steering.policy_store import Idempotency, PolicyStore, Written
from recsae.store.events import change_now
from recsae_interpreter.handlers.policy_checks import HandleDose, check_allowed, checked_draft
from recsae_interpreter.library import Library
from recsae_interpreter.policy_view import as_shown


@dataclass(frozen=True)
class ChangeQuery:
    """Which policy at which revision (0 = whatever it is), why, the caller's key, and the request as bytes."""

    policy_id: str
    revision: int
    reason: str
    idempotency_key: str = ""
    request: bytes = b""


@dataclass(frozen=True)
class UpdateQuery:
    """What the policy shall say; `handles` are turned besides the draft's operations."""

    change: ChangeQuery
    draft: PolicyDraft
    handles: tuple[HandleDose, ...] = field(default=())
    allow_outside_safe_range: bool = False


class PolicyChanges:
    """Changes policies."""

    def __init__(self, policies: PolicyStore, library: Library) -> None:
        """Keeps its collaborators."""
        self._policies = policies
        self._library = library

    def update(self, query: UpdateQuery, info: RequestInfo) -> Written:
        """The policy saying something else, in the state it is in. A live one is checked as a new live one would be.

        ConflictError when it has moved on from the revision the caller saw, which has to be given; otherwise as
        `PoliciesHandler.create`.
        """
        if query.change.revision < 1:
            raise InvalidRequestError(
                "revision is 0; send the revision you saw, so that nobody's change is overwritten"
            )

        def say(stored: Policy, now: float) -> Policy:
            check_not_final(stored)
            asked = replace(query.draft, model=stored.model) if not query.draft.model else query.draft
            asked = replace(asked, model=self._library.model(asked.model).model)
            checked = checked_draft(asked, query.handles, self._library, now=now, state=stored.state)
            check_allowed(checked.outside_safe_range, stored.state, allow=query.allow_outside_safe_range, info=info)
            return updated(
                stored,
                checked.draft,
                now=now,
                dictionary_version=checked.dictionary_version,
                outside_safe_range=checked.outside_safe_range,
            )

        return self._written("policy.update", query.change, info, say)

    def set_state(self, query: ChangeQuery, to: PolicyState, *, allow: bool, info: RequestInfo) -> Written:
        """The policy in another state; one that is in it already stays as it is.

        What goes live is checked as a new live one would be; `allow` as in `PoliciesHandler.create`.
        FailedPreconditionError for a move that there is not, and for a concept in doubt since the policy was made.
        """

        def move(stored: Policy, now: float) -> Policy:
            check_move(stored, to, now)
            if to is not PolicyState.LIVE:
                check_allowed("", to, allow=allow, info=info)
                return stored if stored.state is to else moved(stored, to, reason=query.reason, now=now)
            if as_shown(stored, self._library.shelf, now).state is to:
                return stored
            return self._live(stored, now, allow=allow, info=info, reason=query.reason)

        return self._written("policy.state", query, info, move)

    def revert(self, query: ChangeQuery, to_revision: int, info: RequestInfo) -> Written:
        """An earlier revision, content and state, as a new one; `to_revision` 0 = the one before.

        See `brought_back`. PermissionDeniedError when that would put in force again what an admin had allowed outside
        its safe range, and the caller is none.
        """

        def bring_back(stored: Policy, now: float) -> Policy:
            kept = self._policies.revisions(stored.id)
            back = brought_back(stored, kept, to_revision, reason=query.reason, now=now)
            if back.state is PolicyState.LIVE and back.outside_safe_range and info.role < Role.ADMIN:
                raise PermissionDeniedError(
                    f"principal {info.principal!r} has role {info.role}, and an admin had allowed that revision "
                    f"({back.outside_safe_range}); bring another one back, or ask an admin"
                )
            return back

        return self._written("policy.revert", query, info, bring_back)

    def _live(self, stored: Policy, now: float, *, allow: bool, info: RequestInfo, reason: str) -> Policy:
        loaded = self._library.model(stored.model)
        # Apart from its safe range, which is judged anew below.
        if why := suspension(replace(stored, state=PolicyState.DRAFT), loaded.basis):
            raise FailedPreconditionError(f"policy {stored.id} cannot go live: {why}")
        live = moved(stored, PolicyState.LIVE, reason=reason, now=now)
        checked = checked_draft(draft_of(live), (), self._library, now=now, state=PolicyState.LIVE)
        check_allowed(checked.outside_safe_range, PolicyState.LIVE, allow=allow, info=info)
        return replace(
            live,
            dictionary_version=checked.dictionary_version,
            outside_safe_range=checked.outside_safe_range,
        )

    def _written(
        self, action: str, query: ChangeQuery, info: RequestInfo, decide: Callable[[Policy, float], Policy]
    ) -> Written:
        """Stores what `decide` makes of the policy at a time, with its event; the very policy = nothing to do."""
        validate_reason(query.reason)
        # The action is part of the fingerprint: messages of two calls may have the same bytes.
        request = action.encode() + b"\0" + query.request
        idempotency = Idempotency.of(query.idempotency_key, actor=info.principal, request=request)
        while (known := self._policies.repeated(idempotency)) is None:
            stored = self._policies.get(query.policy_id)
            check_revision(stored, query.revision)
            change = change_now(actor=info.principal, action=action, reason=query.reason, request_id=info.request_id)
            decided = decide(stored, change.at)
            if decided is stored:
                return self._shown(Written(stored, self._policies.snapshot().revision))
            try:
                return self._shown(self._policies.replace(decided, change, idempotency))
            except ConflictError:
                # With a revision the caller decides; without, each turn somebody else got on.
                if query.revision:
                    raise
        return self._shown(known)

    def _shown(self, written: Written) -> Written:
        return Written(as_shown(written.policy, self._library.shelf, time()), written.plan_revision)
