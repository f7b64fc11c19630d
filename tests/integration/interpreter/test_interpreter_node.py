"""A recommender in Node, steered by a real interpreter: from the policy to the list, and back when it is gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.integration.conformance.node_example import serving_node

from recsae.concepts.dictionary import ConceptArrays, Dictionary
from recsae.concepts.records import ConceptRecord, ConceptStatus
from recsae.conformance.outcomes import Verdict
from recsae.conformance.over_grpc import GrpcService
from recsae.conformance.suite import run
from recsae.pipeline.triples import Triple
from recsae.rpc.client import channel
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.weights import SaeWeights
from recsae.steering.policies import Window
from recsae.steering.wire import window_message
from recsae.store.artifacts import ArtifactStore
from recsae.store.channels import PRODUCTION
from recsae.store.channels_redis import RedisChannelStore
from recsae.store.events import change_now
from recsae.store.redis import connect
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc, steering_pb2

Start = Callable[..., Any]
MODEL, HOOK, DIM, WIDTH, K = "film-means", "mean", 8, 24, 4


def test_a_policy_steers_a_recommender_in_node_until_the_interpreter_is_gone(
    start_interpreter: Start, published: Any, redis_url: str, tmp_path_factory: pytest.TempPathFactory, stubs: Start
) -> None:
    with serving_node() as address:
        bare = recommend(address)
    triple = publish(ArtifactStore(str(published.root)), tmp_path_factory, bare.triple.model_version)
    with connect(redis_url) as client:
        change = change_now(actor="test", action="channel.promote", reason="a test", request_id="r")
        RedisChannelStore(client).point(MODEL, PRODUCTION, triple, change)
    app = start_interpreter()
    interpreter = f"127.0.0.1:{app.server.port}"
    with serving_node("--interpreter", interpreter, "--deadline-ms", "10000") as address:
        untouched = recommend(address)
        assert untouched.receipt.reason == common_pb2.UNSTEERED_REASON_NONE_MATCHED
        assert untouched.items == bare.items

        policy_id = create_policy(stubs(app.server.port).steering)
        deadline = time.monotonic() + 10
        while not (steered := recommend(address)).receipt.applied:
            assert time.monotonic() < deadline, "the policy never took effect"
        assert [ref.policy_id for ref in steered.receipt.applied] == [policy_id]
        assert steered.triple.sae_version == triple.sae_version
        assert steered.items != bare.items

        with channel(address) as tested, channel(interpreter) as steers:
            outcomes = {one.check.name: one for one in run(GrpcService(tested, steers))}
        assert [one for one in outcomes.values() if one.verdict in (Verdict.FAILED, Verdict.DOUBTFUL)] == []
        assert outcomes["steering.ranked"].verdict == Verdict.PASSED
        assert not outcomes["steering.ranked"].note.startswith("0 of ")

        app.stop()
        alone = recommend(address)
        assert alone.items == bare.items
        assert alone.receipt.reason != common_pb2.UNSTEERED_REASON_UNSPECIFIED


def recommend(address: str) -> recommender_pb2.RecommendResponse:
    history = common_pb2.History(item_ids=["film-1", "film-6", "film-3"])
    with channel(address) as opened:
        stub = recommender_pb2_grpc.RecommenderStub(opened)
        request = recommender_pb2.RecommendRequest(history=history, k=5)
        answer: recommender_pb2.RecommendResponse = stub.Recommend(request, timeout=30)
    return answer


def create_policy(steering: Any) -> str:
    """A live policy that turns one concept up for everyone; its id."""
    operation = steering_pb2.Operation(concept_id="c-3", kind=steering_pb2.OPERATION_KIND_ADD, value=4.0)
    policy = steering_pb2.Policy(
        name="test", model=MODEL, operations=[operation], window=window_message(Window(end=time.time() + 600))
    )
    request = steering_pb2.CreatePolicyRequest(policy=policy, reason="a test", allow_outside_safe_range=True)
    return str(steering.CreatePolicy(request, timeout=10).policy.id)


def publish(store: ArtifactStore, folders: pytest.TempPathFactory, model_version: str) -> Triple:
    """An SAE with random weights for the example's activations, and a dictionary of it."""
    random = np.random.default_rng(0)
    w_dec = random.standard_normal((WIDTH, DIM)).astype(np.float32)
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    zeros = np.zeros(DIM, np.float32)
    weights = SaeWeights(w_dec.copy(), np.zeros(WIDTH, np.float32), w_dec, zeros, zeros.copy())
    folder = folders.mktemp("sae")
    export_sae(weights, K, TrainingFacts(error_p99=10.0, mean_norm=1.0), folder)
    config = {"hook": HOOK, "model": MODEL}
    sae_version = store.publish("sae", folder, config=config, lineage={"model": model_version})
    concepts = tuple(
        ConceptRecord(
            id=f"c-{latent}",
            latent=latent,
            label=f"Concept {latent}",
            status=ConceptStatus.VERIFIED,
            density=0.1,
            p95=0.5,
            confidence=0.9,
        )
        for latent in range(WIDTH)
    )
    halves = np.full(WIDTH, 0.5, np.float32)
    folder = folders.mktemp("dictionary")
    arrays = ConceptArrays(halves, halves, halves, halves, np.full(WIDTH, 0.1, np.float32))
    Dictionary("", model_version, sae_version, concepts, arrays, {}).save(folder)
    lineage = {"model": model_version, "sae": sae_version}
    return Triple(model_version, sae_version, store.publish("dictionary", folder, config=config, lineage=lineage))
