"""Every family trained a little on planted data, served, refreshed and promoted, with an interpreter beside it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import redis
from benchmarks.families.here import Here, refresh, serving
from onnx import TensorProto, helper, numpy_helper

from recsae.cli.commands.data import add_dataset
from recsae.cli.onnx_importing import GraphImport, PublishedIds, import_graph
from recsae.cli.training import train_models
from recsae.cli.workspace import ModelEntry, Workspace
from recsae.datasets.attributes import typed_rows
from recsae.datasets.planted import make_planted
from recsae.datasets.schema import Dataset
from recsae.pipeline.runs import Run, RunConfig
from recsae.recommenders.bundle import TRUNK, ModelBundle
from recsae.recommenders.evaluation import UserFacts
from recsae.recommenders.families.table import FAMILIES
from recsae.recommenders.inputs import ModelInputs
from recsae.recommenders.onnx_study import Statements
from recsae.recommenders.ranked import Ranked
from recsae.recommenders.runtime import OnnxRecommender
from recsae.rpc.client import channel
from recsae.sae.runtime import SparseAutoencoder
from recsae.store.channels import PRODUCTION
from recsae.store.channels_redis import RedisChannelStore
from recsae.store.events import change_now
from recsae.store.pseudonyms import pseudonym
from recsae.store.redis import connect
from recsae.v1 import common_pb2, interpreter_pb2_grpc, recommender_pb2, recommender_pb2_grpc, steering_pb2_grpc
from recsae_interpreter.app import InterpreterApp
from recsae_interpreter.settings import InterpreterSettings

_USERS, _ITEMS = 200, 60
_IMPORTED = "imported"


@dataclass(frozen=True)
class FamilyPlatform:
    """One family behind real services: the recommender at `address`, the interpreter, and what the refresh left."""

    family: str
    address: str
    interpreter_address: str
    dataset: Dataset
    bare: OnnxRecommender
    sae: SparseAutoencoder
    run: Run
    key: bytes
    exporter: recommender_pb2_grpc.ActivationExporterStub
    recommender: recommender_pb2_grpc.RecommenderStub
    interpreter: interpreter_pb2_grpc.InterpreterStub
    steering: steering_pb2_grpc.SteeringStub

    def read(self, user: int) -> ModelInputs:
        """One user as the bare graphs read it, nothing of the platform around them."""
        ids = [pseudonym(self.key, user_id) for user_id in self.dataset.users.ids]
        facts = UserFacts(ids, typed_rows(self.dataset.users.columns, len(ids)))
        return facts.inputs(self.bare, self.dataset.histories, np.array([user]))

    def alone(self, user: int, k: int) -> Ranked:
        """What the bare graphs give one user."""
        seen = np.unique(self.dataset.histories.of(user))[None].astype(np.int64)
        return self.bare.recommend(self.read(user), k=k, exclude=seen)


@pytest.fixture(scope="session")
def planted() -> Dataset:
    """Users with planted tastes, and one attribute nothing depends on."""
    return make_planted(seed=3, n_users=_USERS, n_items=_ITEMS, n_concepts=5, mean_length=20).dataset


@pytest.fixture(scope="module", params=[*(one.name for one in FAMILIES), _IMPORTED])
def platform(
    request: pytest.FixtureRequest, planted: Dataset, _shared_redis: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FamilyPlatform]:
    """The family's platform; `imported` is a SASRec that came as one ONNX graph."""
    workspace = Workspace(tmp_path_factory.mktemp(request.param))
    entry = add_dataset(workspace, planted)
    trained = "sasrec" if request.param == _IMPORTED else request.param
    model = train_models(workspace, entry, family=trained, epochs=3).model
    if request.param == _IMPORTED:
        model = _imported(
            workspace, planted, ModelBundle.from_artifact(workspace.artifacts().fetch("model", model.version))
        )
    with redis.Redis.from_url(_shared_redis.url) as client:
        client.flushall()
    here = Here(workspace.home, Path(entry.folder), workspace.pseudonym_key_file())
    models, store = {model.name: model.version}, workspace.artifacts()
    with serving(here, models) as address, connect(_shared_redis.url) as state:
        run = refresh(here, address, RunConfig(model.name, entry.version, width=64, k=8, epochs=8), threads=1)
        # By hand: so short a training need not pass the gates.
        change = change_now(actor="test", action="channel.promote", reason="a test", request_id="r")
        RedisChannelStore(state).point(model.name, PRODUCTION, run.triple, change)
    port = _free_port()
    explains = f"127.0.0.1:{port}"
    with serving(here, models, interpreter=explains) as address:
        app = InterpreterApp(
            InterpreterSettings(
                port=port,
                metrics_port=0,
                artifacts=workspace.artifacts_url,
                state_url=_shared_redis.url,
                bus_url=_shared_redis.url,
                recommenders=address,
                drain_probe_s=0,
            )
        )
        app.start()
        with channel(address) as served, channel(explains) as interpreter:
            _wait_for_plan(recommender_pb2_grpc.RecommenderStub(served), planted.users.ids[0])
            yield FamilyPlatform(
                family=request.param,
                address=address,
                interpreter_address=explains,
                dataset=planted,
                bare=OnnxRecommender(ModelBundle.from_artifact(store.fetch("model", model.version))),
                sae=SparseAutoencoder.load(store.fetch("sae", run.triple.sae_version).folder, run.triple.sae_version),
                run=run,
                key=workspace.pseudonym_key(),
                exporter=recommender_pb2_grpc.ActivationExporterStub(served),
                recommender=recommender_pb2_grpc.RecommenderStub(served),
                interpreter=interpreter_pb2_grpc.InterpreterStub(interpreter),
                steering=steering_pb2_grpc.SteeringStub(interpreter),
            )
        app.stop()


def _imported(workspace: Workspace, dataset: Dataset, bundle: ModelBundle) -> ModelEntry:
    """The same network as one graph from histories to scores, cut again by `recsae model import`."""
    graph, vectors, bias = onnx.load(bundle.folder / TRUNK), bundle.item_vectors, bundle.item_bias
    assert vectors is not None
    assert bias is not None
    graph.graph.initializer.extend(
        [numpy_helper.from_array(vectors.copy(), "item_vectors"), numpy_helper.from_array(bias.copy(), "item_bias")]
    )
    graph.graph.node.append(helper.make_node("Gemm", ["activation", "item_vectors", "item_bias"], ["scores"], transB=1))
    del graph.graph.output[:]
    graph.graph.output.append(
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", dataset.items.count + 1])
    )
    path = workspace.home / "whole.onnx"
    onnx.save(graph, path)
    asked = GraphImport(path, Statements(), _IMPORTED, ["activation"])
    found = import_graph(workspace, asked, dataset, PublishedIds(workspace, dataset))
    entry = ModelEntry(_IMPORTED, found.version, dataset.name)
    workspace.add_model(entry)
    return entry


def _wait_for_plan(recommender: recommender_pb2_grpc.RecommenderStub, user_id: str) -> None:
    """Until an answer says that the plan of the promoted SAE is there."""
    deadline = time.monotonic() + 20
    request = recommender_pb2.RecommendRequest(user_id=user_id)
    while recommender.Recommend(request, timeout=10.0).receipt.reason != common_pb2.UNSTEERED_REASON_NONE_MATCHED:
        assert time.monotonic() < deadline, "no plan came"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
