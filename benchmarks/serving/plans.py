"""Steering plans of the benchmark, as an interpreter would compile them, and the encoders they need.

Changes are small, so that no norm budget stops them: a refused change would be cheaper than an applied one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from benchmarks.serving.world import DIM, MODEL, USERS, World
from recsae.pipeline.triples import Triple
from recsae.sae.export import encoder_graph
from recsae.sae.weights import SaeWeights
from recsae.steering.plans import Plan, PlanOperation, PlanPolicy, PlanSet
from recsae.steering.policies import OperationKind, Scope, Window
from recsae.steering.receipts import PolicyRef
from recsae.steering.rollout import rollout_position
from recsae.steering.segments import AllOf, Equals, In, Range
from recsae.steering.wire_plans import plan_set_message

ACTIVE = 32
MANY, MATCHING = 1_000, 5
_SAE, _DICTIONARY = "5ae" + "0" * 13, "d1c" + "0" * 13
_HOOK, _DAY_S = "sequence", 86_400.0


@dataclass(frozen=True)
class Sent:
    """What an interpreter serves: a serialised PlanSet and the encoder its plan names."""

    plans: bytes
    encoder: bytes


def weights(width: int) -> SaeWeights:
    """An SAE with random unit rows."""
    random = np.random.default_rng(width)
    w_dec = random.standard_normal((width, DIM)).astype(np.float32)
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    zeros = np.zeros(DIM, np.float32)
    return SaeWeights(w_dec.copy(), np.zeros(width, np.float32), w_dec, zeros, zeros.copy())


def nothing(world: World, width: int = 2_048) -> Sent:
    """A plan without a policy: the normal state."""
    return _sent(world, weights(width), ())


def for_everyone(world: World, kind: OperationKind, width: int) -> Sent:
    """One policy for every request."""
    sae = weights(width)
    return _sent(world, sae, (_policy("all", sae, kind, Scope()),))


def thousand(world: World) -> Sent:
    """1,000 policies; 5 hold for each user of the world, whatever their country, on five concepts."""
    sae = weights(2_048)
    return _sent(world, sae, many_policies(sae))


def many_policies(sae: SaeWeights) -> tuple[PlanPolicy, ...]:
    """5 for everyone among 995: half name other users, four of ten other segments, a tenth rolls out to few users.

    Rollouts stop short of every user of the world, so that each is hashed for and none holds.
    """
    policies = [_policy(f"open-{number}", sae, OperationKind.ADD, Scope(), latent=number) for number in range(MATCHING)]
    for number in range(MANY - MATCHING):
        salt = f"salt-{number}"
        if number % 10 < 5:
            scope = Scope(user_ids=tuple(f"other-{number}-{user}" for user in range(20)))
        elif number % 10 < 9:
            scope = Scope(segment=_other_segment(number))
        else:
            least = min(rollout_position(salt, f"u-{user}") for user in range(USERS))
            scope = Scope(rollout_percent=least * 100 * 0.99, segment=Equals("country", "DK"))
        policies.insert(
            (number * 7) % len(policies),
            _policy(f"closed-{number}", sae, OperationKind.ADD, scope, latent=number % len(sae.w_dec), salt=salt),
        )
    return tuple(policies)


def _other_segment(number: int) -> AllOf | Equals | In:
    """Predicates over a user's country and a request's surface that hold for nobody here."""
    country = f"country-{number % 200}"
    match number % 4:
        case 0:
            return Equals("country", country)
        case 1:
            return In("country", (country, f"{country}-b", f"{country}-c"))
        case 2:
            return AllOf((Equals("surface", f"surface-{number % 20}"), Equals("country", country)))
    return AllOf((Range("age", 200.0 + number, None), Equals("surface", "home")))


def _policy(
    name: str, sae: SaeWeights, kind: OperationKind, scope: Scope, *, latent: int = 7, salt: str = "salt"
) -> PlanPolicy:
    value = 0.9 if kind is OperationKind.SCALE else 0.05
    operation = PlanOperation(latent, kind, float(np.float32(value)), sae.w_dec[latent])
    window = Window(end=time.time() + 7 * _DAY_S)
    return PlanPolicy(PolicyRef(f"p-{name}", 1), (operation,), scope, window, salt)


def _sent(world: World, sae: SaeWeights, policies: tuple[PlanPolicy, ...]) -> Sent:
    plan = Plan(
        revision=1,
        model=MODEL,
        triple=Triple(world.version, _SAE, _DICTIONARY),
        policies=policies,
        dim=DIM,
        hook=_HOOK,
        compiled_at=time.time(),
    )
    return Sent(plan_set_message(PlanSet(1, (plan,))).SerializeToString(deterministic=True), encoder_graph(sae, ACTIVE))
