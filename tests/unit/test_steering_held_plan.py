"""The plan a recommender holds: what is taken, what is kept, when it is too old."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from recsae.errors import RecsaeError, UnavailableError
from recsae.pipeline.triples import Triple
from recsae.steering.delta import Encode, Steerer
from recsae.steering.encoder import SparseLatents
from recsae.steering.held_plan import Arrival, HeldPlan
from recsae.steering.matching import SteerContext
from recsae.steering.plans import Floats, Plan, PlanOperation, PlanPolicy, PlanSet
from recsae.steering.policies import OperationKind, Scope, Window
from recsae.steering.receipts import PolicyRef, UnsteeredReason

MODEL_VERSION = "a" * 16
ROW = np.array([1, 0, 0, 0], np.float32)


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


class Fetcher:
    """Fetches a trivial encoder, unless told to fail."""

    def __init__(self) -> None:
        self.fails = False
        self.asked: list[str] = []

    def __call__(self, sae_version: str, dim: int) -> Encode:
        self.asked.append(sae_version)
        if self.fails:
            raise UnavailableError("the interpreter does not answer")

        def encode(x: Floats) -> SparseLatents:
            return SparseLatents(np.zeros((len(x), 1), np.int64), np.ones((len(x), 1), np.float32))

        return encode


def plan_set(revision: int, kind: OperationKind = OperationKind.ADD, **changes: Any) -> PlanSet:
    policy = PlanPolicy(PolicyRef("p-1", 1), (PlanOperation(0, kind, 0.5, ROW),), Scope(), Window(), "salt")
    plan = Plan(revision, "m", Triple(MODEL_VERSION, "b" * 16, "c" * 16), (policy,), 4, "sequence", 0.0)
    return PlanSet(revision, (replace(plan, **changes),))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fetcher() -> Fetcher:
    return Fetcher()


@pytest.fixture
def held(clock: Clock, fetcher: Fetcher) -> HeldPlan:
    return HeldPlan("m", MODEL_VERSION, fetcher, max_age_s=600, clock=clock)


def steered(held: HeldPlan) -> UnsteeredReason:
    current = held.current()
    if not isinstance(current, Steerer):
        return current
    return current.steer(np.ones((1, 4), np.float32), [SteerContext()], 0.0).receipts[0].reason


def test_before_the_first_plan_there_is_none(held: HeldPlan) -> None:
    assert (held.current(), held.revision, held.age_s) == (UnsteeredReason.NO_PLAN, 0, float("inf"))


def test_sets_without_this_model_version_say_no_sae_once_a_second_one_agrees(held: HeldPlan) -> None:
    other = Triple("f" * 16, "b" * 16, "c" * 16)
    assert held.take(plan_set(3, triple=other)) == Arrival(False)
    assert held.current() is UnsteeredReason.NO_PLAN
    assert held.take(plan_set(3, triple=other)).taken
    assert (held.current(), held.revision) == (UnsteeredReason.NO_SAE_FOR_MODEL, 3)


def test_a_plan_that_went_missing_on_the_way_leaves_the_one_held(held: HeldPlan) -> None:
    held.take(plan_set(3))
    assert held.take(PlanSet(3, ())) == Arrival(False)
    assert steered(held) is UnsteeredReason.STEERED
    assert held.take(plan_set(3)).taken
    assert held.take(PlanSet(4, ())) == Arrival(False), "it takes two in a row"


@pytest.mark.parametrize(
    "change", [{"dim": 5}, {"norm_budget": -1.0}, {"model": "other"}, {"triple": Triple(MODEL_VERSION, "", "c")}]
)
def test_a_plan_that_does_not_verify_leaves_the_last_good_one(held: HeldPlan, change: dict[str, Any]) -> None:
    held.take(plan_set(3))
    arrival = held.take(plan_set(4, **change))
    assert not arrival.taken
    assert isinstance(arrival.error, RecsaeError)
    assert held.revision == 3
    assert steered(held) is UnsteeredReason.STEERED
    assert not held.confirm(4), "a heartbeat for the plan that was refused must not keep the old one young"


def test_a_plan_nobody_confirms_grows_too_old_and_a_heartbeat_of_its_revision_renews_it(
    held: HeldPlan, clock: Clock
) -> None:
    held.take(plan_set(3))
    clock.now += 599
    assert steered(held) is UnsteeredReason.STEERED
    assert held.confirm(3)
    clock.now += 599
    assert steered(held) is UnsteeredReason.STEERED
    clock.now += 1
    assert steered(held) is UnsteeredReason.PLAN_TOO_OLD
    assert held.age_s == 600


def test_the_encoder_is_fetched_once_per_sae_and_only_when_an_operation_reads_latents(
    held: HeldPlan, fetcher: Fetcher
) -> None:
    held.take(plan_set(1))
    assert fetcher.asked == []
    for revision in (2, 3):
        held.take(plan_set(revision, OperationKind.SCALE))
    assert fetcher.asked == ["b" * 16]
    held.take(plan_set(4, OperationKind.SCALE, triple=Triple(MODEL_VERSION, "d" * 16, "e" * 16)))
    assert fetcher.asked == ["b" * 16, "d" * 16]


def test_a_plan_whose_encoder_cannot_be_fetched_is_taken_and_completed_later(held: HeldPlan, fetcher: Fetcher) -> None:
    fetcher.fails = True
    arrival = held.take(plan_set(2, OperationKind.SCALE))
    assert arrival.taken
    assert isinstance(arrival.error, UnavailableError)
    assert held.revision == 2
    assert steered(held) is UnsteeredReason.ERROR
    fetcher.fails = False
    assert held.retry_encoder().error is None
    assert steered(held) is UnsteeredReason.STEERED
    asked = len(fetcher.asked)
    held.retry_encoder()
    assert len(fetcher.asked) == asked


def test_after_a_refused_set_of_the_same_revision_nothing_confirms_the_old_one_until_a_good_one_came(
    held: HeldPlan, clock: Clock
) -> None:
    held.take(plan_set(3))
    assert not held.take(plan_set(3, dim=5)).taken, "a promotion changes plans and not their revision"
    clock.now += 10
    assert not held.confirm(3)
    assert (held.age_s, steered(held)) == (10, UnsteeredReason.STEERED)
    assert held.take(plan_set(3)).taken
    assert held.confirm(3)


def test_a_set_whose_revision_is_not_its_plans_is_refused(held: HeldPlan) -> None:
    held.take(plan_set(3))
    assert not held.take(replace(plan_set(4), revision=5)).taken
    assert held.revision == 3


def test_the_time_of_windows_is_the_interpreters_once_it_said(clock: Clock, fetcher: Fetcher) -> None:
    wall = Clock(1_000_000.0)
    held = HeldPlan("m", MODEL_VERSION, fetcher, clock=clock, wall=wall)
    assert (held.now(), held.clock_offset_s) == (1_000_000.0, 0.0)
    held.take(plan_set(3), sent_at=1_003_600.0)
    assert (held.now(), held.clock_offset_s) == (1_003_600.0, 3600.0)
    clock.now += 2
    wall.now += 2
    held.confirm(3, sent_at=1_003_602.0)
    assert (held.now(), held.clock_offset_s) == (1_003_602.0, 3600.0)
