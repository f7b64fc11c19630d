"""A model whose results depend on its batch is noticed at load and served one request at a time."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from prometheus_client.parser import text_string_to_metric_families

from recsae.recommenders.bundle import publish_bundle
from recsae.rpc.client import channel
from recsae.store.artifacts import ArtifactStore
from recsae.v1 import recommender_pb2, recommender_pb2_grpc
from recsae_recommender.app import RecommenderApp


@pytest.fixture
def leaky_model(artifacts: Path, models: dict[str, str], tmp_path: Path) -> tuple[Path, str]:
    """An artifact store with a model whose trunk adds a little of the batch's mean to every row."""
    folder = tmp_path / "bundle"
    shutil.copytree(artifacts / "model" / models["tiny"], folder)
    graph = onnx.load(folder / "trunk.onnx")
    for node in graph.graph.node:
        node.output[:] = ["own" if name == "activation" else name for name in node.output]
    graph.graph.initializer.append(numpy_helper.from_array(np.array(0.5, dtype=np.float32), "share"))
    graph.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["own"], ["batch_mean"], axes=[0], keepdims=1),
            helper.make_node("Mul", ["batch_mean", "share"], ["leak"]),
            helper.make_node("Add", ["own", "leak"], ["activation"]),
        ]
    )
    onnx.save(graph, folder / "trunk.onnx")
    root = tmp_path / "store"
    return root, publish_bundle(ArtifactStore(str(root)), folder)


def test_model_that_mixes_rows_is_served_one_by_one(
    start_recommender: Callable[..., RecommenderApp], leaky_model: tuple[Path, str]
) -> None:
    root, version = leaky_model
    app = start_recommender(artifacts=root, models=f"tiny={version}")
    assert sample(app, "recsae_batch_invariant") == 0

    def ask(stub: Any, user: int) -> list[tuple[str, float]]:
        reply = stub.Recommend(recommender_pb2.RecommendRequest(user_id=f"u-{user}"), timeout=30)
        return [(item.item_id, item.score) for item in reply.items]

    with channel(f"127.0.0.1:{app.server.port}") as opened, ThreadPoolExecutor(24) as pool:
        stub = recommender_pb2_grpc.RecommenderStub(opened)
        alone = [ask(stub, user) for user in range(24)]
        for _ in range(5):
            assert list(pool.map(lambda user: ask(stub, user), range(24))) == alone
    assert sample(app, "recsae_batch_size_sum") == sample(app, "recsae_batch_size_count")


def test_sound_model_is_batched(start_recommender: Callable[..., RecommenderApp]) -> None:
    app = start_recommender()
    assert sample(app, "recsae_batch_invariant") == 1
    with channel(f"127.0.0.1:{app.server.port}") as opened, ThreadPoolExecutor(32) as pool:
        stub = recommender_pb2_grpc.RecommenderStub(opened)
        request = recommender_pb2.RecommendRequest(user_id="u-3")
        for _ in range(200):  # until some batch held more than one: chance of the scheduler
            list(pool.map(lambda _: stub.Recommend(request, timeout=30), range(32)))
            if sample(app, "recsae_batch_size_sum") > sample(app, "recsae_batch_size_count"):
                return
    raise AssertionError("no two requests were ever computed together")


def sample(app: RecommenderApp, name: str) -> float:
    """The value of one metric's first series as exposed."""
    with urllib.request.urlopen(f"http://127.0.0.1:{app.metrics_port}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    return next(
        one.value for family in text_string_to_metric_families(text) for one in family.samples if one.name == name
    )


def test_a_model_that_cannot_answer_a_request_never_becomes_ready(
    start_recommender: Callable[..., RecommenderApp], artifacts: Path, models: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(artifacts / "model" / models["tiny"], folder)
    graph = onnx.load(folder / "head.onnx")
    for node in graph.graph.node:
        node.input[:] = ["twisted" if name == "activation" else name for name in node.input]
    shape = numpy_helper.from_array(np.array([7, 16], dtype=np.int64), "seven_rows")
    graph.graph.initializer.append(shape)
    graph.graph.node.insert(0, helper.make_node("Reshape", ["activation", "seven_rows"], ["twisted"]))
    onnx.save(graph, folder / "head.onnx")
    root = tmp_path / "store"
    version = publish_bundle(ArtifactStore(str(root)), folder)
    with pytest.raises(Exception, match="Reshape"):  # onnxruntime's own, from the request that warms up
        start_recommender(artifacts=root, models=f"tiny={version}")
