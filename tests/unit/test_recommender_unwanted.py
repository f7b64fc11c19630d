"""Requests without steering, and lists of shadow policies, inside a batch of the recommender."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsae.pipeline.triples import Triple
from recsae.recommenders.runtime import OnnxRecommender
from recsae.recommenders.synthetic import tiny_bundle, tiny_family_bundle
from recsae.rpc.deadline import Deadline
from recsae.steering.delta import Steered, Steerer
from recsae.steering.matching import SteerContext
from recsae.steering.plans import Floats, Plan, PlanOperation, PlanPolicy
from recsae.steering.policies import OperationKind, Scope, Window
from recsae.steering.receipts import PolicyRef, UnsteeredReason
from recsae_recommender.pipeline import Job, ModelPipeline
from recsae_recommender.ranking import RankAsk, rank_rows
from recsae_recommender.rows import embed_rows
from recsae_recommender.shadows import shadow_list, shadow_rows
from recsae_recommender.unwanted import steer_wanted

DIM, VERSION = 4, "m" * 16
TRIPLE = Triple(VERSION, "s" * 16, "d" * 16)


def steerer(dim: int = DIM, value: float = 0.5) -> Steerer:
    row = np.zeros(dim, np.float32)
    row[0] = 1.0
    operation = PlanOperation(0, OperationKind.ADD, value, row)
    policy = PlanPolicy(PolicyRef("p-1", 1), (operation,), Scope(), Window(), "salt")
    return Steerer(Plan(3, "tiny", TRIPLE, (policy,), dim, "", 0.0, norm_budget=100.0))


def contexts(n: int) -> list[SteerContext]:
    return [SteerContext(user_id=f"u-{place}") for place in range(n)]


def steer_all(activation: Floats, sizes: Sequence[int]) -> Steered:
    return steerer().steer_groups(activation, contexts(len(sizes)), sizes, 0.0)


def steer_each(activation: Floats, places: Sequence[int]) -> Steered:
    """Requests of one row each."""
    return steer_all(activation, [1] * len(places))


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1], [2, 1, 3, 2]])
def test_unwanted_rows_stay_bit_for_bit_and_neighbours_are_steered_as_without_them(sizes: list[int]) -> None:
    x = np.random.default_rng(0).standard_normal((sum(sizes), DIM)).astype(np.float32)
    before = x.copy()
    wanted = np.array([True, False, True, False])
    found = steer_wanted(
        lambda own, places: steer_all(own, [sizes[place] for place in places]), x, sizes, wanted, VERSION
    )
    whole = steer_all(x, sizes)
    rows = np.repeat(wanted, sizes)
    assert np.array_equal(x, before)
    assert found.activation[~rows].tobytes() == x[~rows].tobytes()
    assert found.activation[rows].tobytes() == whole.activation[rows].tobytes()
    assert not np.array_equal(whole.activation[~rows], x[~rows])
    assert [receipt.reason for receipt in found.receipts] == [UnsteeredReason.STEERED, UnsteeredReason.NOT_WANTED] * 2
    assert found.receipts[0] == whole.receipts[0]
    assert found.receipts[1].triple == Triple(VERSION)
    assert found.receipts[1].plan_revision == 0


def test_a_batch_that_wants_no_steering_at_all_is_the_very_array_and_asks_nobody() -> None:
    x = np.ones((2, DIM), np.float32)
    asked: list[int] = []

    def steer(activation: Floats, places: Sequence[int]) -> Steered:
        asked.append(len(places))
        return steer_each(activation, places)

    found = steer_wanted(steer, x, [1, 1], np.zeros(2, bool), VERSION)
    assert found.activation is x
    assert asked == []
    assert {receipt.reason for receipt in found.receipts} == {UnsteeredReason.NOT_WANTED}


def test_where_no_wanted_row_changes_the_very_array_comes_back() -> None:
    x = np.ones((2, DIM), np.float32)

    def steer(activation: Floats, places: Sequence[int]) -> Steered:
        return Steerer(replace(steerer().plan, policies=())).steer(activation, contexts(len(places)), 0.0)

    assert steer_wanted(steer, x, [1, 1], np.array([True, False]), VERSION).activation is x


def test_shadows_and_errors_keep_their_request_when_neighbours_are_left_out() -> None:
    x, error = np.ones((3, DIM), np.float32), RuntimeError("seen")

    def steer(activation: Floats, places: Sequence[int]) -> Steered:
        return replace(steer_each(activation, places), error=error, shadows={1: activation[1:2] * 2})

    found = steer_wanted(steer, x, [1, 1, 1], np.array([True, False, True]), VERSION)
    assert list(found.shadows) == [2]
    assert found.error is error


class Shadowing:
    """Steering that serves everybody as they are and would have moved the rows of some by `by`."""

    def __init__(self, requests: Sequence[int], by: float) -> None:
        self.requests, self.by = requests, by

    def steer(
        self, activation: Floats, who: Sequence[SteerContext], sizes: Sequence[int], deadlines: Sequence[Deadline]
    ) -> Steered:
        ends = np.cumsum(sizes)
        moved = {
            request: activation[ends[request] - sizes[request] : ends[request]] + np.float32(self.by)
            for request in self.requests
        }
        bare = Steerer(replace(steerer(activation.shape[1]).plan, policies=())).steer(activation, who, 0.0)
        return replace(bare, shadows=moved)


@pytest.mark.parametrize("family", ["sasrec", "comirec", "din"])
def test_a_shadow_list_is_the_list_those_rows_would_have_got_in_the_batch(tmp_path: Path, family: str) -> None:
    model = OnnxRecommender(tiny_family_bundle(family, tmp_path))
    asks = [RankAsk(k=3), RankAsk(k=2, candidates=np.array([1, 2, 4])), RankAsk(k=4, exclude=np.array([1]))]
    jobs = [Job(np.array([1 + place, 3]), SteerContext(), ask) for place, ask in enumerate(asks)]
    inputs = model.inputs([job.history for job in jobs], [""] * 3, [{}] * 3)
    rows = embed_rows(model, inputs, asks)
    moved = rows.activation + np.float32(0.75)
    expected = rank_rows(model, rows.lists(moved), rows.passthrough, asks, rows.candidates)
    plain = rank_rows(model, rows.lists(rows.activation), rows.passthrough, asks, rows.candidates)
    served = ModelPipeline(model, Shadowing([0, 2], 0.75), None).serve(jobs)  # type: ignore[arg-type]
    assert [ranking.items for ranking in served] == plain
    assert served[1].shadow is None
    for place in (0, 2):
        shadow = served[place].shadow
        assert shadow is not None
        found = shadow_list(model, shadow.copied())
        assert found.indices == expected[place].indices
        np.testing.assert_allclose(found.scores, expected[place].scores, rtol=1e-5)
    assert any(plain[place].scores != expected[place].scores for place in (0, 2))


def test_what_waits_to_be_ranked_holds_nothing_of_its_batch(tmp_path: Path) -> None:
    model = OnnxRecommender(tiny_bundle(tmp_path))
    asks = [RankAsk(k=3)] * 4
    rows = embed_rows(model, model.inputs([np.array([1, 2])] * 4, [""] * 4, [{}] * 4), asks)
    shadow = shadow_rows(rows, {1: rows.activation[1:2]}, asks)[1]
    kept = shadow.copied()
    assert kept.rows.activation.base is None
    assert all(tensor.base is None for tensor in kept.rows.passthrough.values())
    assert kept.nbytes == shadow.nbytes >= kept.rows.activation.nbytes
