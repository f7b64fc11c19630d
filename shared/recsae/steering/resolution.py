"""Which policies win for one request, and why the others do not: the rules of a plan, said policy by policy.

Policies apply in order of priority, then the older one, then by id; the first matching policy that touches a concept
keeps it. Those in shadow are resolved as if they were live too, and take nothing from live ones. Says what matching and
`delta` do; whether the change then stays within its norm budget depends on the activation, and shows in the receipt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from recsae.steering.matching import SteerContext
from recsae.steering.plans import in_order
from recsae.steering.policies import Operation, Policy, PolicyState, Scope, utc
from recsae.steering.receipts import PolicyRef
from recsae.steering.rollout import in_rollout, rollout_position
from recsae.steering.segment_words import segment_text, why_not
from recsae.steering.segments import matches

_MOST_KEEPERS = 3


class Outcome(StrEnum):
    """What becomes of a policy for a request."""

    APPLIES = "applies"
    PARTLY_APPLIES = "partly_applies"
    OVERRULED = "overruled"
    SHADOW = "shadow"
    NOT_IN_SCOPE = "not_in_scope"
    HELD_OUT = "held_out"
    NOT_IN_FORCE = "not_in_force"

    @property
    def changes(self) -> bool:
        """True when some of its operations are applied."""
        return self in (Outcome.APPLIES, Outcome.PARTLY_APPLIES)


@dataclass(frozen=True)
class OperationVerdict:
    """One operation, and the policy that keeps its concept: its own when it applies."""

    operation: Operation
    won_by: PolicyRef


@dataclass(frozen=True)
class PolicyVerdict:
    """One policy, what becomes of it and why; `operations` are empty unless it matches."""

    policy: Policy
    outcome: Outcome
    reason: str
    operations: tuple[OperationVerdict, ...] = ()

    @property
    def applied(self) -> tuple[Operation, ...]:
        """The operations that take effect on the list."""
        if not self.outcome.changes:
            return ()
        return tuple(one.operation for one in self.operations if one.won_by.policy_id == self.policy.id)


@dataclass(frozen=True)
class _Refusal:
    """Why a policy does not hold for a request."""

    outcome: Outcome
    reason: str


def resolve(policies: Iterable[Policy], context: SteerContext, now: float) -> tuple[PolicyVerdict, ...]:
    """A verdict on every policy of one model that has not ended, in the order of application.

    `policies` are as shown at `now` (seconds since the epoch): what is suspended says so. User, request id and
    attributes are those of `context`.
    """
    ordered = in_order(one for one in policies if not one.state.ended)
    refused = {one.id: _refusal(one, context, now) for one in ordered}
    matching = [one for one in ordered if refused[one.id] is None]
    live = _keepers(one for one in matching if one.state is PolicyState.LIVE)
    both = _keepers(matching)
    verdicts = []
    for policy in ordered:
        refusal = refused[policy.id]
        if refusal is not None:
            verdicts.append(PolicyVerdict(policy, refusal.outcome, refusal.reason))
        else:
            keepers = both if policy.state is PolicyState.SHADOW else live
            verdicts.append(_verdict(policy, keepers, context))
    return tuple(verdicts)


def _keepers(matching: Iterable[Policy]) -> dict[str, Policy]:
    """The first policy that touches each concept."""
    keepers: dict[str, Policy] = {}
    for policy in matching:
        for operation in policy.operations:
            keepers.setdefault(operation.concept_id, policy)
    return keepers


def _verdict(policy: Policy, keepers: Mapping[str, Policy], context: SteerContext) -> PolicyVerdict:
    operations = tuple(
        OperationVerdict(one, PolicyRef((keeper := keepers[one.concept_id]).id, keeper.revision))
        for one in policy.operations
    )
    lost = {one.operation.concept_id for one in operations if one.won_by.policy_id != policy.id}
    others = list({keepers[concept].id: keepers[concept] for concept in lost}.values())
    held = _why_it_matches(policy, context)
    if policy.state is PolicyState.SHADOW:
        outcome, then = Outcome.SHADOW, "in shadow it is computed and logged, and changes nothing"
        if others:
            then += f"; live it would leave concepts to {_named(others, policy)}"
    elif not others:
        outcome, then = Outcome.APPLIES, "no policy before it touches its concepts"
    else:
        outcome = Outcome.OVERRULED if len(lost) == len(operations) else Outcome.PARTLY_APPLIES
        then = f"{_named(others, policy)} {'keeps' if len(others) == 1 else 'keep'} {_concepts(lost, policy)}"
    return PolicyVerdict(policy, outcome, f"{held}; {then}", operations)


def _refusal(policy: Policy, context: SteerContext, now: float) -> _Refusal | None:
    if policy.state not in (PolicyState.LIVE, PolicyState.SHADOW):
        why = f": {policy.state_reason}" if policy.state_reason else ""
        return _Refusal(Outcome.NOT_IN_FORCE, f"it is {policy.state}{why}")
    window = policy.window
    if window.start is not None and now < window.start:
        return _Refusal(Outcome.NOT_IN_FORCE, f"it starts at {utc(window.start)}")
    if not window.contains(now):
        return _Refusal(Outcome.NOT_IN_FORCE, f"it ended at {utc(window.end)}")
    scope = policy.scope
    if scope.user_ids and (not context.user_id or context.user_id not in scope.user_ids):
        who = f"user {context.user_id}" if context.user_id else "a request without a user"
        return _Refusal(Outcome.NOT_IN_SCOPE, f"{who} is not among its {_counted(len(scope.user_ids), 'user')}")
    if scope.segment is not None and not matches(scope.segment, context.attributes):
        return _Refusal(Outcome.NOT_IN_SCOPE, why_not(scope.segment, context.attributes))
    if not in_rollout(scope.rollout_percent, policy.salt, context.user_id, context.request_id):
        return _Refusal(Outcome.HELD_OUT, _rollout_words(scope, policy.salt, context))
    return None


def _why_it_matches(policy: Policy, context: SteerContext) -> str:
    scope = policy.scope
    parts = [f"user {context.user_id} is named"] if scope.user_ids else []
    parts += [f"{segment_text(scope.segment)} holds"] if scope.segment is not None else []
    parts += [_rollout_words(scope, policy.salt, context)] if scope.rollout_percent < 100 else []
    return ", ".join(parts) or "it is for everyone"


def _rollout_words(scope: Scope, salt: str, context: SteerContext) -> str:
    key = context.user_id or context.request_id
    if not key:
        return f"it is rolled out to {scope.rollout_percent:g} %, and a request without user and id is in no share"
    who = f"user {context.user_id}" if context.user_id else "this request"
    position = 100 * rollout_position(salt, key)
    return f"{who} stands at {position:.2f} % of its rollout, which reaches {scope.rollout_percent:g} %"


def _named(others: list[Policy], policy: Policy) -> str:
    named = ", ".join(f"{one.id} ({_before(one, policy)})" for one in others[:_MOST_KEEPERS])
    more = len(others) - _MOST_KEEPERS
    return f"{named} and {more} more" if more > 0 else named


def _before(keeper: Policy, policy: Policy) -> str:
    if keeper.priority != policy.priority:
        return f"priority {keeper.priority} before {policy.priority}"
    return "as high a priority and older" if keeper.created_at != policy.created_at else "as high and old, first by id"


def _concepts(lost: set[str], policy: Policy) -> str:
    if len(lost) == len(policy.operations):
        return "all its concepts" if len(lost) > 1 else "its concept"
    return ", ".join(one.concept_id for one in policy.operations if one.concept_id in lost)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
