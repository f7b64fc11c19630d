"""Steering plans: the policies of one model version with every number they need, and how they are compiled.

What wins where policies meet: policies apply in order of priority (higher first, then the older one, then by id), and
the first matching policy that touches a concept keeps it for that request. The change of all of them together is held
to the norm budget: over it none is applied. Policies in shadow stand in the same order and only ever take part in what
is computed beside: live policies apply as if there were none. Not here: applying a plan (`delta`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.pipeline.triples import Triple
from recsae.steering.policies import Operation, OperationKind, Policy, PolicyState, Scope, Window
from recsae.steering.receipts import PolicyRef

Floats = NDArray[np.float32]

DEFAULT_NORM_BUDGET = 2.0
# Decoder rows have unit norm after every training step; float32 storage moves that by less than this.
_UNIT_TOLERANCE = 1e-3
_MOST_REASONS = 3


@dataclass(frozen=True, eq=False)
class PlanOperation:
    """One operation: a factor for SCALE, else a latent value; `decoder_row` float32 [d] of unit norm."""

    latent: int
    kind: OperationKind
    value: float
    decoder_row: Floats


@dataclass(frozen=True, eq=False)
class PlanPolicy:
    """One policy of a plan; one in `shadow` is computed and logged, without effect."""

    ref: PolicyRef
    operations: tuple[PlanOperation, ...]
    scope: Scope
    window: Window
    salt: str
    shadow: bool = False


@dataclass(frozen=True, eq=False)
class Plan:
    """Policies of one model version in the order of application; `norm_budget` bounds |x' - x| / |x|."""

    revision: int
    model: str
    triple: Triple
    policies: tuple[PlanPolicy, ...]
    dim: int
    hook: str
    compiled_at: float
    norm_budget: float = DEFAULT_NORM_BUDGET
    kill_switch: bool = False

    @property
    def reads_latents(self) -> bool:
        """True when some operation needs the encoder."""
        return any(operation.kind.reads_latents for policy in self.policies for operation in policy.operations)


@dataclass(frozen=True)
class PlanSet:
    """All plans of a model, one per model version that is still served."""

    revision: int
    plans: tuple[Plan, ...]

    def for_version(self, model_version: str) -> Plan | None:
        """The plan of a model version; None when that version has no promoted SAE."""
        return next((plan for plan in self.plans if plan.triple.model_version == model_version), None)


def _no_doubt(concept_id: str, made_for: str) -> str:
    return ""


def _all_safe(operations: tuple[Operation, ...]) -> str:
    return ""


@dataclass(frozen=True)
class Basis:
    """What policies are compiled against: one promoted triple.

    `latents` maps stable concept ids to latents; `p95` float32 [w] is the unit of strength; `w_dec` float32 [w, d].
    `doubt` says of an id and the dictionary it was named for ("" = not known) why it may not mean the same in this one,
    e.g. "was split into c-1, c-2"; "" when it does. `outside_safe_range` says why operations are not known to be safe,
    by what was measured for this dictionary; "" when they are. `steerable` False = the hook can only be read.
    """

    model: str
    triple: Triple
    hook: str
    latents: Mapping[str, int]
    p95: Floats
    w_dec: Floats
    doubt: Callable[[str, str], str] = _no_doubt
    outside_safe_range: Callable[[tuple[Operation, ...]], str] = _all_safe
    steerable: bool = True


def compile_plan(
    policies: Iterable[Policy],
    basis: Basis,
    *,
    revision: int,
    now: float,
    norm_budget: float = DEFAULT_NORM_BUDGET,
    kill_switch: bool = False,
    newest: Basis | None = None,
) -> Plan:
    """The plan of the live and shadow policies of this model that the basis can express; suspended ones are left out.

    `newest` is the production basis, where `basis` is of another version of the model that is still served.
    """
    usable = [
        policy
        for policy in policies
        if policy.model == basis.model
        and policy.state in (PolicyState.LIVE, PolicyState.SHADOW)
        and (policy.window.end is None or now < policy.window.end)
        and not suspension(policy, basis, newest)
    ]
    return Plan(
        revision=revision,
        model=basis.model,
        triple=basis.triple,
        policies=tuple(_compiled(policy, basis) for policy in in_order(usable)),
        dim=int(basis.w_dec.shape[1]),
        hook=basis.hook,
        compiled_at=now,
        norm_budget=float(np.float32(norm_budget)),
        kill_switch=kill_switch,
    )


def in_order(policies: Iterable[Policy]) -> list[Policy]:
    """Order of application: priority descending, then the older policy, then its id."""
    return sorted(policies, key=lambda policy: (-policy.priority, policy.created_at, policy.id))


def suspension(policy: Policy, basis: Basis, newest: Basis | None = None) -> str:
    """Why a policy cannot be in force with this dictionary; "" when it can. It is never re-bound to another concept.

    A concept that is gone, or that may not be what it was when the policy was made, suspends it. A policy made for the
    `newest` dictionary holds for an older one too, where nothing came into doubt between the two.
    """
    if not basis.steerable:
        return f"hook {basis.hook} of {basis.model} can only be read: no policy can be in force there; delete it"
    reasons = [
        f"{operation.concept_id} {why}"
        for operation in policy.operations
        if (why := _doubt(operation.concept_id, policy.dictionary_version, basis, newest))
    ]
    if not reasons:
        return _no_longer_safe(policy, basis)
    # Of sixteen concepts that are gone the first few say enough.
    more = f" and {len(reasons) - _MOST_REASONS} more" if len(reasons) > _MOST_REASONS else ""
    named = "; ".join(reasons[:_MOST_REASONS]) + more
    return f"{named} (promoted: {basis.triple.dictionary_version}); look at it, then update the policy or delete it"


def _no_longer_safe(policy: Policy, basis: Basis) -> str:
    """Why a policy made within its safe range may not steer by a later dictionary; what an admin allowed stays."""
    made_for, promoted = policy.dictionary_version, basis.triple.dictionary_version
    # Of early releases nobody knows whether it was within; in shadow it has no effect.
    if policy.state is not PolicyState.LIVE or policy.outside_safe_range or made_for in ("", promoted):
        return ""
    why = basis.outside_safe_range(policy.operations)
    return f"it was within the safe range of dictionary {made_for}, but by {promoted} {why}" if why else ""


def _doubt(concept_id: str, made_for: str, basis: Basis, newest: Basis | None) -> str:
    why = basis.doubt(concept_id, made_for)
    if why and newest is not None and made_for == newest.triple.dictionary_version:
        why = newest.doubt(concept_id, basis.triple.dictionary_version)
    return why or ("" if concept_id in basis.latents else "is no live concept of the promoted dictionary")


def plan_operation(operation: Operation, basis: Basis) -> PlanOperation:
    """The operation in latent units: strengths become values by the concept's p95."""
    latent = basis.latents[operation.concept_id]
    value = operation.value if operation.kind is OperationKind.SCALE else operation.value * float(basis.p95[latent])
    if operation.kind is OperationKind.ABLATE:
        value = 0.0
    # Plans travel in float32: rounded here, so that whoever holds the plan applies the same bits.
    row = np.ascontiguousarray(basis.w_dec[latent], np.float32)
    return PlanOperation(latent, operation.kind, float(np.float32(value)), row)


def verify_plan(plan: Plan, *, model: str, model_version: str) -> None:
    """InvalidRequestError when a received plan must not be applied: another version, wrong shapes, bad numbers."""
    if plan.model != model or plan.triple.model_version != model_version:
        raise InvalidRequestError(
            f"the plan is for {plan.model} {plan.triple.model_version}, not {model} {model_version}; versions never mix"
        )
    if not plan.triple.sae_version or not plan.triple.dictionary_version or plan.dim < 1:
        raise InvalidRequestError(f"plan {plan.revision} of {model} names no SAE, no dictionary or no dimension")
    if not (math.isfinite(plan.norm_budget) and plan.norm_budget > 0):
        raise InvalidRequestError(f"plan {plan.revision} of {model} has norm budget {plan.norm_budget}; it must be > 0")
    for policy in plan.policies:
        _verify_operations(policy.operations, plan.dim, policy.ref.policy_id)


def _verify_operations(operations: Sequence[PlanOperation], dim: int, policy_id: str) -> None:
    for operation in operations:
        row = operation.decoder_row
        if row.shape != (dim,) or not math.isfinite(operation.value):
            raise InvalidRequestError(f"policy {policy_id}: row {row.shape} or value {operation.value} is wrong")
        # A NaN norm fails the comparison too.
        if not abs(float(np.linalg.norm(row)) - 1.0) <= _UNIT_TOLERANCE:
            raise InvalidRequestError(f"policy {policy_id}: decoder row {operation.latent} is no unit vector")


def _compiled(policy: Policy, basis: Basis) -> PlanPolicy:
    return PlanPolicy(
        ref=PolicyRef(policy.id, policy.revision),
        operations=tuple(plan_operation(operation, basis) for operation in policy.operations),
        scope=policy.scope,
        window=policy.window,
        salt=policy.salt,
        shadow=policy.state is PolicyState.SHADOW,
    )
