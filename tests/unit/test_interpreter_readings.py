"""What the interpreter asks recommenders and takes from their answers, over gRPC with a server that records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.rpc.client import channel
from recsae.rpc.deadline import Deadline
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc
from recsae_interpreter.readings import HeadRows, Reading, Subject
from recsae_interpreter.recommender import GrpcRecommender, NotOfferedError

D, INTERESTS = 4, 2
HOOKS = {
    "plain": [recommender_pb2.HookInfo(name="final", dim=D), recommender_pb2.HookInfo(name="block_0", dim=D)],
    "several": [
        recommender_pb2.HookInfo(name="final", dim=D, rows=recommender_pb2.ROW_KIND_INTEREST, interests=INTERESTS)
    ],
    "pairs": [recommender_pb2.HookInfo(name="final", dim=D, rows=recommender_pb2.ROW_KIND_PAIR)],
}


class Server(recommender_pb2_grpc.ActivationExporterServicer, recommender_pb2_grpc.RecommenderServicer):
    """Keeps what it was asked; its answers count up."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answers_hook = ""

    def ExportActivations(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    def ExportItems(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    def Recommend(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    def GetModel(self, request: recommender_pb2.GetModelRequest, context: Any) -> recommender_pb2.GetModelResponse:
        self.asked.append(request)
        info = recommender_pb2.ModelInfo(name=request.model, version="v1", hooks=HOOKS[request.model])
        return recommender_pb2.GetModelResponse(model=info)

    def Embed(self, request: recommender_pb2.EmbedRequest, context: Any) -> recommender_pb2.EmbedResponse:
        self.asked.append(request)
        items = list(request.candidate_item_ids)
        rows = {"plain": 1, "several": INTERESTS, "pairs": len(items)}[request.model]
        interest = request.model == "several"
        subjects = [
            common_pb2.RowSubject(interest=row * interest, item_id=items[row] if items else "") for row in range(rows)
        ]
        x = np.arange(rows * D, dtype=np.float32).reshape(rows, D)
        batch = common_pb2.ActivationBatch(
            model=request.model, model_version="v1", hook=self.answers_hook, activations=to_tensor(x),
            subjects=subjects, passthrough=[common_pb2.NamedTensor(name="aside", tensor=to_tensor(x[:, :1]))],
        )  # fmt: skip
        return recommender_pb2.EmbedResponse(batch=batch, history=common_pb2.History(item_ids=["i-1", "i-2"]))

    def Rank(self, request: recommender_pb2.RankRequest, context: Any) -> recommender_pb2.RankResponse:
        self.asked.append(request)
        rows = request.activations.shape[0]
        lists = {"plain": rows, "several": rows // INTERESTS, "pairs": len(request.candidates)}[request.model]
        return recommender_pb2.RankResponse(lists=[recommender_pb2.RankedList()] * lists, model_version="v1")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def serve() -> Iterator[Callable[..., GrpcRecommender]]:
    """A client of a server that implements what is added to it."""
    opened: list[Any] = []

    def start(*adding: Callable[[grpc.Server], None]) -> GrpcRecommender:
        running = grpc.server(ThreadPoolExecutor(2))
        for add in adding:
            add(running)
        port = running.add_insecure_port("127.0.0.1:0")
        running.start()
        connection = channel(f"127.0.0.1:{port}")
        opened.append((running, connection))
        return GrpcRecommender(connection, timeout_s=5)

    yield start
    for running, connection in opened:
        connection.close()
        running.stop(None).wait()


@pytest.fixture
def recommender(server: Server, serve: Callable[..., GrpcRecommender]) -> GrpcRecommender:
    return serve(
        lambda running: recommender_pb2_grpc.add_ActivationExporterServicer_to_server(server, running),
        lambda running: recommender_pb2_grpc.add_RecommenderServicer_to_server(server, running),
    )


def test_an_address_is_asked_for_by_name_and_hook_with_all_that_is_known_of_the_subject(
    recommender: GrpcRecommender, server: Server
) -> None:
    subject = Subject("ann", ["i-1"], {"age": 25.0, "vip": True, "city": "Ulm"})
    found = recommender.embed("plain@block_0", subject, Deadline())
    asked = server.asked[0]
    assert (asked.model, asked.hook, asked.user_id, list(asked.history.item_ids)) == (
        "plain",
        "block_0",
        "ann",
        ["i-1"],
    )
    assert (asked.attributes["age"].number, asked.attributes["vip"].flag, asked.attributes["city"].text) == (
        25.0, True, "Ulm",
    )  # fmt: skip
    assert (found.model, found.hook, found.rows, found.history) == ("plain", "block_0", "subject", ("i-1", "i-2"))
    assert not recommender.embed("plain", Subject("ann"), Deadline()).item_ids
    assert not server.asked[-1].HasField("history")
    assert sum(isinstance(one, recommender_pb2.GetModelRequest) for one in server.asked) == 1


def test_rows_of_another_hook_than_asked_for_are_refused(recommender: GrpcRecommender, server: Server) -> None:
    server.answers_hook = "final"
    assert recommender.embed("plain", Subject("ann"), Deadline()).hook == "final"
    with pytest.raises(FailedPreconditionError, match="answered hook 'final' of plain@block_0"):
        recommender.embed("plain@block_0", Subject("ann"), Deadline())


def test_the_rows_of_a_list_follow_each_other_with_what_crossed_the_cut(
    recommender: GrpcRecommender, server: Server
) -> None:
    reading = recommender.embed("several", Subject("ann"), Deadline())
    changed = reading.activations + 100
    lists = [HeadRows.of(reading), HeadRows.of(reading, changed)]
    assert len(recommender.rank(reading, lists, k=3, deadline=Deadline())) == 2
    asked = server.asked[-1]
    np.testing.assert_array_equal(
        from_tensor(asked.activations, name="x"), np.concatenate([reading.activations, changed])
    )
    aside = from_tensor(asked.passthrough[0].tensor, name="aside")
    np.testing.assert_array_equal(aside[:, 0], [0, D, 0, D])
    assert [list(one.item_ids) for one in asked.exclude] == [["i-1", "i-2"]] * 2
    recommender.rank(reading, lists, k=3, deadline=Deadline(), candidates=["i-9"])
    assert [list(one.item_ids) for one in server.asked[-1].candidates] == [["i-9"]] * 2
    assert not server.asked[-1].exclude


def test_a_list_of_pairs_ranks_the_items_of_its_own_rows(recommender: GrpcRecommender, server: Server) -> None:
    reading = recommender.embed("pairs", Subject("ann"), Deadline(), ["i-7", "i-8", "i-9"])
    assert reading.item_ids == ("i-7", "i-8", "i-9")
    some = np.array([2, 0])
    lists = [HeadRows.of(reading), HeadRows(reading.activations[some], some)]
    recommender.rank(reading, lists, k=3, deadline=Deadline())
    asked = server.asked[-1]
    assert [list(one.item_ids) for one in asked.candidates] == [["i-7", "i-8", "i-9"], ["i-9", "i-7"]]
    np.testing.assert_array_equal(from_tensor(asked.passthrough[0].tensor, name="a")[:, 0], [0, 4, 8, 8, 0])
    assert not asked.exclude


def test_many_lists_are_asked_for_in_calls_of_bounded_size(recommender: GrpcRecommender, server: Server) -> None:
    reading = recommender.embed("several", Subject("ann"), Deadline())
    lists = [HeadRows.of(reading)] * 1_500
    assert len(recommender.rank(reading, lists, k=1, deadline=Deadline())) == 1_500
    calls = [one for one in server.asked if isinstance(one, recommender_pb2.RankRequest)]
    assert [one.activations.shape[0] for one in calls] == [1_024 * INTERESTS, 476 * INTERESTS]
    # A list of 1 MiB: three of them are within what any gRPC server takes.
    wide = Reading("several", "v1", np.zeros((INTERESTS, 1 << 17), np.float32), rows="interest")
    recommender.rank(wide, [HeadRows.of(wide)] * 4, k=1, deadline=Deadline())
    assert [one.activations.shape[0] for one in server.asked[-2:]] == [3 * INTERESTS, INTERESTS]


def test_a_hook_a_model_does_not_have_is_refused_with_those_it_has(recommender: GrpcRecommender) -> None:
    facts = recommender.describe("plain", "", Deadline())
    with pytest.raises(InvalidRequestError, match="no hook 'block_7'; its hooks are final, block_0"):
        facts.hook("block_7")
    assert facts.hook("") is facts.hooks[0]


def test_lists_of_another_number_or_version_are_refused(recommender: GrpcRecommender) -> None:
    old = Reading("plain", "v0", np.zeros((1, D), np.float32))
    with pytest.raises(FailedPreconditionError, match="version v1 when asked for 1 of version v0"):
        recommender.rank(old, [HeadRows.of(old)], k=1, deadline=Deadline())


def test_a_server_that_only_exports_says_so_when_asked_to_rank(
    server: Server, serve: Callable[..., GrpcRecommender]
) -> None:
    exporter = serve(lambda running: recommender_pb2_grpc.add_ActivationExporterServicer_to_server(server, running))
    reading = exporter.embed("plain", Subject("ann"), Deadline())
    with pytest.raises(NotOfferedError, match="does not implement what RankRequest asks for"):
        exporter.rank(reading, [HeadRows.of(reading)], k=1, deadline=Deadline())
