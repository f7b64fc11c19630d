"""Plans, plan sets, receipts and triples to and from the messages of the contract."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from recsae.errors import InvalidRequestError
from recsae.pipeline.triples import Triple
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.steering.plans import Plan, PlanOperation, PlanPolicy, PlanSet
from recsae.steering.receipts import PolicyRef, Receipt, ShadowOutcome, UnsteeredReason
from recsae.steering.wire import (
    KINDS,
    kind_from,
    scope_from,
    scope_message,
    seconds,
    timestamp,
    window_from,
    window_message,
)
from recsae.v1 import common_pb2, steering_pb2

_REASONS: dict[UnsteeredReason, common_pb2.UnsteeredReason.ValueType] = {
    reason: common_pb2.UnsteeredReason.Value(f"UNSTEERED_REASON_{reason.name}")
    for reason in UnsteeredReason
    if reason is not UnsteeredReason.STEERED
} | {UnsteeredReason.STEERED: common_pb2.UNSTEERED_REASON_UNSPECIFIED}
_REASONS_BACK = {number: reason for reason, number in _REASONS.items()}


def triple_message(triple: Triple) -> common_pb2.Triple:
    """The message for a triple."""
    return common_pb2.Triple(
        model_version=triple.model_version,
        sae_version=triple.sae_version,
        dictionary_version=triple.dictionary_version,
    )


def triple_from(message: common_pb2.Triple) -> Triple:
    """The triple of a message."""
    return Triple(message.model_version, message.sae_version, message.dictionary_version)


def receipt_message(receipt: Receipt) -> common_pb2.Receipt:
    """The message for a receipt. One goes into every response, so what is not there costs nothing here."""
    message = common_pb2.Receipt(
        reason=_REASONS[receipt.reason],
        plan_revision=receipt.plan_revision,
        triple=triple_message(receipt.triple),
        delta_norm=receipt.delta_norm,
        delta_share=receipt.delta_share,
    )
    for ref in receipt.applied:
        message.applied.add(policy_id=ref.policy_id, revision=ref.revision)
    for ref in receipt.held_out:
        message.held_out.add(policy_id=ref.policy_id, revision=ref.revision)
    if receipt.shadow is not None:
        message.shadow.CopyFrom(_shadow_message(receipt.shadow))
    return message


def receipt_from(message: common_pb2.Receipt) -> Receipt:
    """The receipt of a message; a reason this release does not know reads as ERROR."""
    return Receipt(
        reason=_REASONS_BACK.get(message.reason, UnsteeredReason.ERROR),
        applied=_refs(message.applied),
        plan_revision=message.plan_revision,
        triple=triple_from(message.triple),
        delta_norm=message.delta_norm,
        delta_share=message.delta_share,
        held_out=_refs(message.held_out),
        shadow=_shadow(message.shadow) if message.HasField("shadow") else None,
    )


def plan_set_message(plans: PlanSet) -> steering_pb2.PlanSet:
    """The message for all plans of a model."""
    return steering_pb2.PlanSet(revision=plans.revision, plans=[plan_message(plan) for plan in plans.plans])


def plan_message(plan: Plan) -> steering_pb2.SteeringPlan:
    """The message for a plan, with its digest."""
    message = steering_pb2.SteeringPlan(
        revision=plan.revision,
        model=plan.model,
        triple=triple_message(plan.triple),
        policies=[_plan_policy_message(policy) for policy in plan.policies],
        norm_budget=plan.norm_budget,
        kill_switch=plan.kill_switch,
        compiled_at=timestamp(plan.compiled_at),
        dim=plan.dim,
        hook=plan.hook,
    )
    message.digest = plan_digest(message)
    return message


def plan_digest(message: steering_pb2.SteeringPlan) -> str:
    """SHA-256 of the message's deterministic encoding without a digest, 64 hex digits.

    Other releases of protobuf may encode otherwise, which they do not in practice: fields go by number, there is no map
    in a plan, and what this release does not know is kept as it came.
    """
    bare = message
    if message.digest:
        bare = steering_pb2.SteeringPlan()
        bare.CopyFrom(message)
        bare.ClearField("digest")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def plan_from(message: steering_pb2.SteeringPlan) -> Plan:
    """The plan of a message; InvalidRequestError for malformed tensors, operations or segments, or another digest."""
    if message.digest and plan_digest(message) != message.digest:
        raise InvalidRequestError(
            f"plan {message.revision} of {message.model} is not what its digest {message.digest[:12]} says: it was "
            "changed on its way; ask for the plans again"
        )
    return Plan(
        revision=message.revision,
        model=message.model,
        triple=triple_from(message.triple),
        policies=tuple(_plan_policy(policy, message.dim) for policy in message.policies),
        dim=message.dim,
        hook=message.hook,
        compiled_at=seconds(message.compiled_at),
        norm_budget=message.norm_budget,
        kill_switch=message.kill_switch,
    )


def _ref_messages(refs: Iterable[PolicyRef]) -> list[common_pb2.PolicyRef]:
    return [common_pb2.PolicyRef(policy_id=ref.policy_id, revision=ref.revision) for ref in refs]


def _refs(messages: Iterable[common_pb2.PolicyRef]) -> tuple[PolicyRef, ...]:
    return tuple(PolicyRef(ref.policy_id, ref.revision) for ref in messages)


def _shadow_message(shadow: ShadowOutcome) -> common_pb2.ShadowOutcome:
    return common_pb2.ShadowOutcome(
        policies=_ref_messages(shadow.policies),
        delta_norm=shadow.delta_norm,
        delta_share=shadow.delta_share,
        reason=_REASONS[shadow.reason],
    )


def _shadow(message: common_pb2.ShadowOutcome) -> ShadowOutcome:
    reason = _REASONS_BACK.get(message.reason, UnsteeredReason.ERROR)
    return ShadowOutcome(_refs(message.policies), message.delta_norm, message.delta_share, reason)


def _plan_policy_message(policy: PlanPolicy) -> steering_pb2.PlanPolicy:
    return steering_pb2.PlanPolicy(
        ref=common_pb2.PolicyRef(policy_id=policy.ref.policy_id, revision=policy.ref.revision),
        operations=[
            steering_pb2.PlanOperation(
                latent=operation.latent,
                kind=KINDS[operation.kind],
                value=operation.value,
                decoder_row=to_tensor(operation.decoder_row),
            )
            for operation in policy.operations
        ],
        scope=scope_message(policy.scope),
        window=window_message(policy.window),
        salt=policy.salt,
        shadow=policy.shadow,
    )


def _plan_policy(message: steering_pb2.PlanPolicy, dim: int) -> PlanPolicy:
    return PlanPolicy(
        ref=PolicyRef(message.ref.policy_id, message.ref.revision),
        operations=tuple(_plan_operation(operation, dim) for operation in message.operations),
        scope=scope_from(message.scope),
        window=window_from(message.window),
        salt=message.salt,
        shadow=message.shadow,
    )


def _plan_operation(message: steering_pb2.PlanOperation, dim: int) -> PlanOperation:
    where = f"latent {message.latent}"
    row = from_tensor(message.decoder_row, name=f"decoder row of {where}", dtype=np.float32, shape=(dim,), finite=True)
    return PlanOperation(message.latent, kind_from(message.kind, where=where), message.value, row)
