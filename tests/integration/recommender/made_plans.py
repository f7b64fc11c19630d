"""Plans for the small model, and how tests ask for its lists."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from recsae.pipeline.triples import Triple
from recsae.sae.weights import SaeWeights
from recsae.steering.plans import Plan, PlanOperation, PlanPolicy, PlanSet
from recsae.steering.policies import OperationKind, Scope, Window
from recsae.steering.receipts import PolicyRef
from recsae.steering.segments import Equals
from recsae.steering.wire_plans import plan_set_message
from recsae.v1 import recommender_pb2, recommender_pb2_grpc

Stub = recommender_pb2_grpc.RecommenderStub

DIM, WIDTH, K = 16, 64, 8
SAE = "5ae" + "0" * 13
DICTIONARY = "d1c" + "0" * 13
FOR_DK = Scope(segment=Equals("country", "DK"))  # users u-1, u-3, u-5 ...


def plans(
    version: str,
    weights: SaeWeights,
    *,
    revision: int = 1,
    kinds: Sequence[OperationKind] = (OperationKind.ADD, OperationKind.SET),
    scope: Scope = FOR_DK,
    value: float = 0.5,
    norm_budget: float = 5.0,
    kill_switch: bool = False,
    window: Window | None = None,
) -> bytes:
    operations = tuple(
        PlanOperation(latent=latent, kind=kind, value=value, decoder_row=weights.w_dec[latent])
        for latent, kind in enumerate(kinds)
    )
    policies = (PlanPolicy(PolicyRef("p-1", 3), operations, scope, window or Window(), "salt"),) if kinds else ()
    plan = Plan(
        revision=revision,
        model="tiny",
        triple=Triple(version, SAE, DICTIONARY),
        policies=policies,
        dim=DIM,
        hook="sequence",
        compiled_at=time.time(),
        norm_budget=norm_budget,
        kill_switch=kill_switch,
    )
    return plan_set_message(PlanSet(revision, (plan,))).SerializeToString()


def ask(stub: Stub, user: str, **values: Any) -> recommender_pb2.RecommendResponse:
    return stub.Recommend(recommender_pb2.RecommendRequest(user_id=user, **values), timeout=20)


def pairs(reply: recommender_pb2.RecommendResponse) -> list[tuple[str, float]]:
    return [(item.item_id, item.score) for item in reply.items]


def until(claim: Callable[[], bool], seconds: float = 20) -> None:
    """Asks until the claim holds: a plan takes effect between two requests, at a moment only replies tell."""
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.01)


def reason_is(stub: Stub, user: str, reason: int) -> Callable[[], bool]:
    return lambda: ask(stub, user).receipt.reason == reason
