"""The SDK's server: the contract over gRPC, who may call it, and what it needs installed."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from recsae.errors import (
    FailedPreconditionError,
    InvalidRequestError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from recsae.pipeline.recommender_client import RecommenderClient
from recsae.recommenders.description import Hook
from recsae.rpc.client import ClientOptions, channel
from recsae.rpc.status import error_from
from recsae.sdk.exporter import Exporter
from recsae.sdk.model import Batch, DotProduct, Floats, Head, ModelCard
from recsae.sdk.serving import Serving, serve
from recsae.sdk.vocabulary import Vocabulary
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc

DIM, N_ITEMS = 4, 30
VECTORS = np.random.default_rng(0).standard_normal((N_ITEMS + 1, DIM)).astype(np.float32)


class Sum:
    """The smallest model there is: an activation is the sum of the history's item vectors."""

    def __init__(self, head: Head | None = None, name: str = "sum") -> None:
        items = Vocabulary([f"i-{item}" for item in range(1, N_ITEMS + 1)])
        self.card = ModelCard(name, "0123456789abcdef", (Hook("sum", "user", DIM),), items, max_history=5)
        self.head = head

    def embed(self, batch: Batch, hook: str) -> Floats:
        return np.stack([VECTORS[history].sum(0) for history in batch.histories])

    def embed_positions(self, batch: Batch, hook: str) -> Floats | None:
        return None


@pytest.fixture
def serving() -> Iterator[Serving]:
    with Exporter(Sum(DotProduct(VECTORS[1:]))).serve() as served:
        yield served


@pytest.fixture
def opened(serving: Serving) -> Iterator[grpc.Channel]:
    with channel(f"127.0.0.1:{serving.port}") as one:
        yield one


def test_the_pipelines_client_reads_the_model_as_it_is(opened: grpc.Channel) -> None:
    client = RecommenderClient(opened)
    model = client.describe("sum")
    assert (model.name, model.version, model.hook, model.dim, model.item_count) == (
        "sum",
        "0123456789abcdef",
        "sum",
        DIM,
        N_ITEMS,
    )
    items = list(client.items(model))
    assert [one for page in items for one in page.item_ids] == [f"i-{item}" for item in range(1, N_ITEMS + 1)]
    np.testing.assert_allclose(np.concatenate([page.activations for page in items]), VECTORS[1:], atol=1e-5)
    vectors = client.item_vectors(model)
    assert vectors is not None
    np.testing.assert_array_equal(vectors.vectors, VECTORS[1:])


def test_errors_come_with_their_status_a_sentence_and_the_request_id(opened: grpc.Channel) -> None:
    stub = recommender_pb2_grpc.ActivationExporterStub(opened)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ExportActivations(recommender_pb2.ExportActivationsRequest(model_version="f" * 16), timeout=5)
    assert isinstance(error_from(caught.value), FailedPreconditionError)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ExportActivations(recommender_pb2.ExportActivationsRequest(), timeout=5)
    assert "set histories, subjects, users or items" in str(error_from(caught.value))


def test_an_unforeseen_error_shows_no_internals(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Sum()
    broken: dict[str, Floats] = {}
    monkeypatch.setattr(model, "embed", lambda batch, hook: broken["secret"])
    with Exporter(model).serve() as served, channel(f"127.0.0.1:{served.port}") as opened:
        stub = recommender_pb2_grpc.ActivationExporterStub(opened)
        given = recommender_pb2.HistoryList(histories=[common_pb2.History(item_ids=["i-1"])])
        with pytest.raises(grpc.RpcError) as caught:
            stub.ExportActivations(recommender_pb2.ExportActivationsRequest(histories=given), timeout=5)
    answer: Any = caught.value
    assert answer.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in answer.details()
    assert "request id" in answer.details()


def test_a_model_without_a_head_serves_no_lists_and_a_host_keeps_recommending_to_itself(opened: grpc.Channel) -> None:
    stub = recommender_pb2_grpc.RecommenderStub(opened)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Recommend(recommender_pb2.RecommendRequest(user_id="u"), timeout=5)
    answer: Any = caught.value
    assert answer.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "ask the recommender it belongs to" in answer.details()
    with Exporter(Sum()).serve() as headless, channel(f"127.0.0.1:{headless.port}") as other:
        with pytest.raises(grpc.RpcError) as caught:
            recommender_pb2_grpc.RecommenderStub(other).Rank(recommender_pb2.RankRequest(), timeout=5)
        answer = caught.value
        assert answer.code() is grpc.StatusCode.UNIMPLEMENTED


def test_health_and_reflection_are_served(opened: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(opened)
    for service in ("", "recsae.v1.ActivationExporter", "recsae.v1.Recommender"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_port_that_is_taken_is_named(serving: Serving) -> None:
    with pytest.raises(FailedPreconditionError, match=f"127.0.0.1:{serving.port} cannot be bound"):
        Exporter(Sum()).serve(f"127.0.0.1:{serving.port}")


def test_other_machines_need_tls_and_a_token() -> None:
    exporter = Exporter(Sum())
    with pytest.raises(InvalidRequestError, match="can be reached from other machines"):
        exporter.serve("0.0.0.0:0")
    with pytest.raises(InvalidRequestError, match="can be reached from other machines"):
        exporter.serve("0.0.0.0:0", tokens=["t" * 24])
    with pytest.raises(InvalidRequestError, match="shorter than 16"):
        exporter.serve(tokens=["short"])


def test_calls_without_the_token_are_refused_and_health_checks_are_not() -> None:
    token = "t" * 24
    with Exporter(Sum()).serve(tokens=[token]) as served:
        address = f"127.0.0.1:{served.port}"
        with channel(address, ClientOptions(token=token)) as known, channel(address) as stranger:
            assert RecommenderClient(known).describe("").name == "sum"
            with pytest.raises(UnauthenticatedError, match="no bearer token came"):
                RecommenderClient(stranger).describe("")
            answer = health_pb2_grpc.HealthStub(stranger).Check(health_pb2.HealthCheckRequest(), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("form", ["{}", "shop:{}", "shop:viewer:{}"])
def test_a_token_is_its_secret_in_every_form_it_may_be_written(form: str) -> None:
    secret = "t" * 24
    with Exporter(Sum()).serve(tokens=[form.format(secret)]) as served:
        address = f"127.0.0.1:{served.port}"
        with (
            channel(address, ClientOptions(token=secret)) as known,
            channel(address, ClientOptions(token=f"viewer:{secret}")) as stranger,
        ):
            assert RecommenderClient(known).describe("").name == "sum"
            with pytest.raises(UnauthenticatedError, match="not one of this server's"):
                RecommenderClient(stranger).describe("")


def test_several_models_share_an_address_by_name() -> None:
    first, second = Exporter(Sum()), Exporter(Sum(DotProduct(VECTORS[1:]), name="other"))
    with serve([first, second], "127.0.0.1:0") as served, channel(f"127.0.0.1:{served.port}") as opened:
        client = RecommenderClient(opened)
        assert client.describe("").name == "sum"
        assert client.describe("other").dot_product
        stub = recommender_pb2_grpc.ActivationExporterStub(opened)
        answer = stub.GetModel(recommender_pb2.GetModelRequest(), timeout=5)
        assert list(answer.available_models) == ["sum", "other"]
        with pytest.raises(NotFoundError, match="it has 'sum', 'other'"):
            client.describe("third")
    with pytest.raises(InvalidRequestError, match="by different names"):
        serve([first, first], "127.0.0.1:0")


def test_a_server_runs_until_it_is_stopped_though_nobody_holds_it() -> None:
    held = weakref.ref(Exporter(Sum()).serve())
    gc.collect()
    served = held()
    assert served is not None
    served.stop()
    del served
    gc.collect()
    assert held() is None


def test_a_stopped_server_is_gone() -> None:
    served = Exporter(Sum()).serve()
    served.stop()
    with channel(f"127.0.0.1:{served.port}") as opened:
        stub = recommender_pb2_grpc.ActivationExporterStub(opened)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetModel(recommender_pb2.GetModelRequest(), timeout=5)
    assert isinstance(error_from(caught.value), UnavailableError)


BASE = ("numpy", "grpc", "google.protobuf")
NOT_BASE = (
    *("structlog", "pydantic", "pydantic_settings", "prometheus_client", "redis", "fsspec", "safetensors", "onnx"),
    *("onnxruntime", "scipy", "grpc_status", "grpc_health", "grpc_reflection", "google.rpc", "celery", "httpx"),
)


@pytest.mark.parametrize("module", ["recsae.sdk.exporter", "recsae.sdk.torch"])
def test_exporting_and_following_plans_need_the_base_dependencies_alone(module: str) -> None:
    """In a process where everything else cannot be imported: a model is served, and a refusal keeps its sentence."""
    code = f"""
    import importlib, sys

    class Missing:
        def find_spec(self, name, path=None, target=None):
            banned = {NOT_BASE!r}{"" if module.endswith("torch") else " + ('torch',)"}
            if any(name == one or name.startswith(one + ".") for one in banned):
                raise ImportError(name + " is not installed here")

    sys.meta_path.insert(0, Missing())
    importlib.import_module({module!r})
    import recsae.steering.follower
    import grpc, numpy as np
    from recsae.errors import RecsaeError
    from recsae.recommenders.description import Hook
    from recsae.rpc.client import channel
    from recsae.rpc.status import error_from
    from recsae.sdk.exporter import Exporter
    from recsae.sdk.model import ModelCard
    from recsae.sdk.vocabulary import Vocabulary
    from recsae.v1 import recommender_pb2 as pb, recommender_pb2_grpc as services

    class Ones:
        card = ModelCard("ones", "0" * 16, (Hook("h", "user", 2),), Vocabulary(["a", "b"]))
        head = None
        def embed(self, batch, hook):
            return np.ones((len(batch), 2), np.float32)
        def embed_positions(self, batch, hook):
            return None

    with Exporter(Ones()).serve() as served, channel(f"127.0.0.1:{{served.port}}") as opened:
        stub = services.ActivationExporterStub(opened)
        page = stub.ExportActivations(pb.ExportActivationsRequest(items=pb.ItemPage()), timeout=20)
        print(len(page.batch.subjects))
        try:
            stub.GetModel(pb.GetModelRequest(model="other"), timeout=20)
        except grpc.RpcError as error:
            print(type(error_from(error)).__name__, error_from(error))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["2", "NotFoundError this server has no model 'other'; it has 'ones'"]
