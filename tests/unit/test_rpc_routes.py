"""Routes: which server answers for which model."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import pytest

from recsae.errors import InvalidRequestError
from recsae.rpc.routes import Routes, routed_channel
from recsae.v1 import recommender_pb2, recommender_pb2_grpc


class Named(recommender_pb2_grpc.ActivationExporterServicer):
    """Answers with its own name as family, whatever model is asked for."""

    def __init__(self, name: str) -> None:
        self.name = name

    def GetModel(
        self, request: recommender_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.GetModelResponse:
        return recommender_pb2.GetModelResponse(model=recommender_pb2.ModelInfo(name=request.model, family=self.name))


@pytest.fixture
def servers() -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        addresses = {}
        for name in ("here", "there"):
            server = grpc.server(ThreadPoolExecutor(1))
            recommender_pb2_grpc.add_ActivationExporterServicer_to_server(Named(name), server)  # type: ignore[abstract]
            addresses[name] = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            server.start()
            stack.callback(server.stop, None)
        yield addresses


def test_a_call_goes_where_its_model_is_served(servers: dict[str, str]) -> None:
    routes = Routes.parse(f"{servers['here']}, mine={servers['there']}")
    with routed_channel(routes) as channel:
        stub = recommender_pb2_grpc.ActivationExporterStub(channel)
        found = {
            model: stub.GetModel(recommender_pb2.GetModelRequest(model=model), timeout=5).model.family
            for model in ("", "sasrec", "mine")
        }
    assert found == {"": "here", "sasrec": "here", "mine": "there"}


def test_a_model_nobody_serves_is_named(servers: dict[str, str]) -> None:
    with routed_channel(Routes.parse(f"mine={servers['there']}")) as channel:
        stub = recommender_pb2_grpc.ActivationExporterStub(channel)
        with pytest.raises(InvalidRequestError, match="no server is known for model 'other', only for mine"):
            stub.GetModel(recommender_pb2.GetModelRequest(model="other"), timeout=5)


@pytest.mark.parametrize("text", ["127.0.0.1:1", "127.0.0.1:1,a=127.0.0.1:2,b=127.0.0.1:2", "a=h:1"])
def test_routes_are_written_as_they_were_read(text: str) -> None:
    assert str(Routes.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "no address"), ("h:1,h:2", "two addresses"), ("a=h:1,a=h:2", "names a model again"), ("=h:1", "is not")],
)
def test_what_is_no_route_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        Routes.parse(text)
