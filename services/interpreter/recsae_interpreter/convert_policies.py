"""Messages of a policy's life to and from the handlers' values. Nothing here computes.

Not here: previews, plans and steering (`convert_steering`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from recsae.errors import InvalidRequestError
from recsae.steering.kill_switch import KillSwitch
from recsae.steering.matching import SteerContext
from recsae.steering.policies import PolicyState
from recsae.steering.receipts import PolicyRef
from recsae.steering.resolution import OperationVerdict, PolicyVerdict
from recsae.steering.wire import STATES, attributes_from, draft_from, operation_message, timestamp
from recsae.steering.wire_plans import triple_message
from recsae.v1 import common_pb2, steering_pb2
from recsae_interpreter.handlers.policies import CreateQuery
from recsae_interpreter.handlers.policy_changes import ChangeQuery, UpdateQuery
from recsae_interpreter.handlers.policy_checks import HandleDose
from recsae_interpreter.handlers.resolve import Resolution

_STATES_BACK: Mapping[int, PolicyState] = {number: state for state, number in STATES.items()}
_Change = steering_pb2.UpdatePolicyRequest | steering_pb2.SetPolicyStateRequest | steering_pb2.RevertPolicyRequest


def create_query(request: steering_pb2.CreatePolicyRequest) -> CreateQuery:
    """The handler's query for a request; without a state, for a live policy."""
    return CreateQuery(
        draft=draft_from(request.policy),
        reason=request.reason,
        idempotency_key=request.idempotency_key,
        request=request.SerializeToString(deterministic=True),
        handles=handles_from(request.handles),
        allow_outside_safe_range=request.allow_outside_safe_range,
        state=state_from(request.policy.state) if request.policy.state else PolicyState.LIVE,
    )


def update_query(request: steering_pb2.UpdatePolicyRequest) -> UpdateQuery:
    """The handler's query for a request."""
    return UpdateQuery(
        change=change_query(request, request.policy.id),
        draft=draft_from(request.policy),
        handles=handles_from(request.handles),
        allow_outside_safe_range=request.allow_outside_safe_range,
    )


def change_query(request: _Change, policy_id: str) -> ChangeQuery:
    """What every change of a policy says."""
    return ChangeQuery(
        policy_id=policy_id,
        revision=request.revision,
        reason=request.reason,
        idempotency_key=request.idempotency_key,
        request=request.SerializeToString(deterministic=True),
    )


def state_from(number: int) -> PolicyState:
    """The state of a message; InvalidRequestError when none is set or it is not known."""
    state = _STATES_BACK.get(number)
    if state is None:
        raise InvalidRequestError(f"state {number} is none to ask for; set DRAFT, SHADOW, LIVE or PAUSED")
    return state


def handles_from(messages: Iterable[steering_pb2.HandleOperation]) -> tuple[HandleDose, ...]:
    """Handles of repeated messages."""
    return tuple(HandleDose(message.facet, message.dose) for message in messages)


def context_from(message: steering_pb2.SteerContext) -> SteerContext:
    """Whom a row or a request belongs to."""
    return SteerContext(message.user_id, message.request_id, attributes_from(message.attributes))


def switch_message(switch: KillSwitch) -> steering_pb2.KillSwitch:
    """The message for a kill switch."""
    return steering_pb2.KillSwitch(
        model=switch.model, on=switch.on, at=timestamp(switch.at), actor=switch.actor, reason=switch.reason
    )


def resolve_response(found: Resolution) -> steering_pb2.ResolvePoliciesResponse:
    """The response for resolved policies."""
    return steering_pb2.ResolvePoliciesResponse(
        verdicts=[_verdict_message(verdict, found.labels) for verdict in found.verdicts],
        plan_revision=found.plan_revision,
        triple=triple_message(found.triple),
        kill_switch=found.kill_switch,
        model=found.model,
        outside_safe_range=found.outside_safe_range,
    )


def _verdict_message(verdict: PolicyVerdict, labels: Mapping[str, str]) -> steering_pb2.PolicyVerdict:
    policy = verdict.policy
    return steering_pb2.PolicyVerdict(
        ref=_ref(PolicyRef(policy.id, policy.revision)),
        name=policy.name,
        priority=policy.priority,
        state=STATES[policy.state],
        outcome=steering_pb2.PolicyOutcome.Value(f"POLICY_OUTCOME_{verdict.outcome.name}"),
        reason=verdict.reason,
        operations=[_operation_message(one, labels) for one in verdict.operations],
    )


def _operation_message(verdict: OperationVerdict, labels: Mapping[str, str]) -> steering_pb2.OperationVerdict:
    return steering_pb2.OperationVerdict(
        operation=operation_message(verdict.operation),
        label=labels.get(verdict.operation.concept_id, ""),
        won_by=_ref(verdict.won_by),
    )


def _ref(ref: PolicyRef) -> common_pb2.PolicyRef:
    return common_pb2.PolicyRef(policy_id=ref.policy_id, revision=ref.revision)
