"""A short form of `make bench-faults`: real processes broken under load, every single answer judged."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.fault_judge import judge
from benchmarks.fault_load import ADDING, Asked, Written
from benchmarks.fault_world import MODEL, Reference, World, publish_world
from benchmarks.faults import SCENARIOS, run

from recsae.v1 import common_pb2, recommender_pb2

TOLD = ("interpreter killed", "answers corrupted")
SECONDS, RATE = 2.0, 15.0


def test_no_recommendation_fails_or_is_wrongly_steered_while_parts_of_the_platform_do(tmp_path: Path) -> None:
    chosen = [scenario for scenario in SCENARIOS if scenario.name in TOLD]
    for outcome in run(chosen, tmp_path, seconds=SECONDS, rate=RATE):
        verdict = outcome.verdict
        assert not verdict.examples, outcome.name
        assert (verdict.failed, verdict.wrong, verdict.unexplained) == (0, 0, 0)
        assert verdict.steered > 0
        assert outcome.recovery_s < 30, f"{outcome.name}: not every recommender steers again"
        if outcome.name == "interpreter killed":
            assert verdict.reasons["breaker_open"] > 0, "the fault was never felt"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return publish_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def reference(world: World) -> Reference:
    return Reference(world)


MADE = Written("made", ("u-1",), ADDING, window_end=1e9, made=[100.0, 101.0], ended=[200.0, 201.0], id="p-1")


def answer(reference: Reference, *, steered: bool, says: bool, sent: float, damage: float = 0.0) -> Asked:
    listed = reference.listed("u-1", [ADDING] if steered else [])
    receipt = common_pb2.Receipt(triple=common_pb2.Triple(model_version=reference.world.version), delta_norm=1.0)
    if says:
        receipt.applied.add(policy_id="p-1", revision=1)
    else:
        receipt.reason = common_pb2.UNSTEERED_REASON_NONE_MATCHED
    items = [common_pb2.ScoredItem(item_id=item, score=score + damage) for item, score in listed]
    reply = recommender_pb2.RecommendResponse(items=items, receipt=receipt)
    return Asked(MODEL, "u-1", sent, sent + 0.01, reply)


@pytest.mark.parametrize(
    ("steered", "says", "sent", "damage", "wrong"),
    [
        (True, True, 150.0, 0.0, 0),
        (False, False, 50.0, 0.0, 0),
        (False, False, 250.0, 0.0, 0),
        (True, False, 50.0, 0.0, 1),  # changed and not told
        (False, True, 150.0, 0.0, 1),  # told and not changed
        (True, True, 50.0, 0.0, 1),  # before there was one
        (True, True, 210.0, 0.0, 1),  # long after its end
        (False, False, 150.0, 0.0, 1),  # nothing matched, it says, and one is in force
        (True, True, 150.0, 1e-4, 1),  # a score that is a little off
        (False, False, 50.0, 1e-6, 1),  # bare, and not bit for bit
    ],
)
def test_the_judge_sees_what_is_wrong(
    reference: Reference, steered: bool, says: bool, sent: float, damage: float, wrong: int
) -> None:
    verdict = judge([answer(reference, steered=steered, says=says, sent=sent, damage=damage)], [MADE], reference, 6.0)
    assert (verdict.wrong, verdict.failed, verdict.unexplained) == (wrong, 0, 0), verdict.examples


def test_the_judge_counts_failures_and_answers_that_do_not_explain_themselves(reference: Reference) -> None:
    silent = answer(reference, steered=False, says=False, sent=50.0)
    assert silent.reply is not None
    silent.reply.receipt.reason = common_pb2.UNSTEERED_REASON_UNSPECIFIED
    verdict = judge([silent, Asked(MODEL, "u-1", 1.0, 2.0, None, "no answer")], [], reference, 6.0)
    assert (verdict.failed, verdict.unexplained, verdict.wrong) == (1, 1, 0)
