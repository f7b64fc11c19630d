"""The worked example outside Python keeps the contract, and no interpreter can keep it from answering."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from tests.integration.conformance.node_example import EXAMPLE, installed, serving_node
from tests.integration.conformance.small_exporter import serving
from tests.integration.conformance.small_interpreter import SmallInterpreter

from recsae.conformance.outcomes import Verdict
from recsae.conformance.over_grpc import GrpcService
from recsae.conformance.suite import run
from recsae.rpc.client import channel
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc, steering_pb2

# Far beyond what a call takes, also on a busy machine.
PATIENT = ("--deadline-ms", "10000")


class Lying(SmallInterpreter):
    """Sends NaN for rows it says it steered."""

    def Steer(self, request: steering_pb2.SteerRequest, context: grpc.ServicerContext) -> steering_pb2.SteerResponse:
        answer = super().Steer(request, context)
        rows = from_tensor(answer.activations, name="activations", dtype=np.float32)
        answer.activations.CopyFrom(to_tensor(np.full_like(rows, np.nan)))
        return answer


class OfAnotherVersion(SmallInterpreter):
    """Steers by a plan for another model version."""

    def Steer(self, request: steering_pb2.SteerRequest, context: grpc.ServicerContext) -> steering_pb2.SteerResponse:
        answer = super().Steer(request, context)
        for receipt in answer.receipts:
            receipt.triple.model_version = "f" * 16
        return answer


def recommend(address: str, request_id: str) -> recommender_pb2.RecommendResponse:
    history = common_pb2.History(item_ids=["film-1", "film-6", "film-3"])
    with channel(address) as opened:
        stub = recommender_pb2_grpc.RecommenderStub(opened)
        request = recommender_pb2.RecommendRequest(history=history, k=5)
        answer: recommender_pb2.RecommendResponse = stub.Recommend(
            request, timeout=30, metadata=(("x-request-id", request_id),)
        )
    return answer


@pytest.fixture(scope="module")
def bare() -> recommender_pb2.RecommendResponse:
    """What the example recommends when it knows no interpreter."""
    with serving_node() as address:
        return recommend(address, "r-0")


def test_the_node_example_passes_every_check_that_applies() -> None:
    with (
        serving(SmallInterpreter().add_to) as interpreter,
        serving_node() as address,
        channel(address) as opened,
        channel(interpreter) as steers,
    ):
        outcomes = list(run(GrpcService(opened, steers)))
    assert [one for one in outcomes if one.verdict in (Verdict.FAILED, Verdict.DOUBTFUL)] == []
    shown = outcomes[0].note.partition(",")[0]
    assert shown in (EXAMPLE / "README.md").read_text(), "the README shows another version of the model"
    skipped = {one.check.name for one in outcomes if one.verdict == Verdict.SKIPPED}
    assert skipped == {
        "activations.other-hooks",
        "subjects.attributes",
        "ranking.passthrough",
        "pages.users",
        "pages.segment",
        "serving.health",
    }


def test_node_recommends_steered_where_a_policy_matches_and_bare_where_none_does(
    bare: recommender_pb2.RecommendResponse,
) -> None:
    with (
        serving(SmallInterpreter().add_to) as interpreter,
        serving_node("--interpreter", interpreter, *PATIENT) as address,
    ):
        steered, unsteered = recommend(address, "r-0"), recommend(address, "r-1")
    assert [ref.policy_id for ref in steered.receipt.applied] == ["p-1"]
    assert steered.items != bare.items
    assert unsteered.receipt.reason == common_pb2.UNSTEERED_REASON_NONE_MATCHED
    assert unsteered.items == bare.items


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Lying, common_pb2.UNSTEERED_REASON_INVALID_CHANGE),
        (OfAnotherVersion, common_pb2.UNSTEERED_REASON_VERSION_MISMATCH),
    ],
)
def test_node_is_not_misled_by_a_lying_interpreter(
    kind: type[SmallInterpreter], reason: int, bare: recommender_pb2.RecommendResponse
) -> None:
    with serving(kind().add_to) as interpreter, serving_node("--interpreter", interpreter, *PATIENT) as address:
        answer = recommend(address, "r-0")
    assert (answer.items, answer.receipt.reason) == (bare.items, reason)


def test_node_answers_unsteered_when_the_interpreter_is_away_or_hangs(
    bare: recommender_pb2.RecommendResponse,
) -> None:
    with serving_node("--interpreter", "127.0.0.1:1", *PATIENT) as address:
        answer = recommend(address, "r-0")
    assert (answer.items, answer.receipt.reason) == (bare.items, common_pb2.UNSTEERED_REASON_ERROR)
    with silence() as nobody, serving_node("--interpreter", nobody, "--deadline-ms", "50") as address:
        answer = recommend(address, "r-0")
    assert (answer.items, answer.receipt.reason) == (bare.items, common_pb2.UNSTEERED_REASON_DEADLINE)


def test_items_are_what_their_script_makes() -> None:
    made = subprocess.run(["node", "make-items.js"], cwd=installed(), capture_output=True, text=True, check=True)
    assert made.stdout == (EXAMPLE / "items.json").read_text()


@contextmanager
def silence() -> Iterator[str]:
    """An address that takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
