"""What every model family keeps: export, a refresh, explanations, steering, and untouched answers without it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import grpc
import numpy as np
import pytest

from recsae.datasets.schema import Dataset
from recsae.pipeline.recommender_client import RecommenderClient
from recsae.pipeline.runs import Run
from recsae.recommenders.inputs import ModelInputs
from recsae.recommenders.ranked import Ranked
from recsae.recommenders.runtime import OnnxRecommender
from recsae.rpc.client import channel
from recsae.rpc.tensors import from_tensor
from recsae.sae.runtime import SparseAutoencoder
from recsae.v1 import (
    common_pb2,
    interpreter_pb2,
    interpreter_pb2_grpc,
    recommender_pb2,
    recommender_pb2_grpc,
    steering_pb2,
    steering_pb2_grpc,
)

CALL_S = 20.0
_USER, _OTHER = 7, 11
_REASON = "the contract suite"


class FamilyPlatform(Protocol):
    """See conftest."""

    family: str
    address: str
    interpreter_address: str
    dataset: Dataset
    bare: OnnxRecommender
    sae: SparseAutoencoder
    run: Run
    exporter: recommender_pb2_grpc.ActivationExporterStub
    recommender: recommender_pb2_grpc.RecommenderStub
    interpreter: interpreter_pb2_grpc.InterpreterStub
    steering: steering_pb2_grpc.SteeringStub

    def read(self, user: int) -> ModelInputs: ...

    def alone(self, user: int, k: int) -> Ranked: ...


def served(platform: FamilyPlatform, user: int, k: int = 10) -> recommender_pb2.RecommendResponse:
    """A list over gRPC for a user of the data set."""
    user_id = platform.dataset.users.ids[user]
    request = recommender_pb2.RecommendRequest(model=platform.family, user_id=user_id, k=k)
    return platform.recommender.Recommend(request, timeout=CALL_S)


def assert_untouched(platform: FamilyPlatform, answer: recommender_pb2.RecommendResponse, user: int) -> None:
    """The answer equals the bare graphs' to the bit."""
    items, scores = platform.alone(user, len(answer.items)).row(0)
    assert [item.item_id for item in answer.items] == platform.bare.bundle.ids_of(items.tolist())
    assert np.array([item.score for item in answer.items], np.float32).tobytes() == scores.tobytes()


@contextmanager
def policy(platform: FamilyPlatform, concept_id: str, strength: float, user: int) -> Iterator[str]:
    """A live policy that adds to a concept for one user, taken back afterwards."""
    operation = steering_pb2.Operation(concept_id=concept_id, kind=steering_pb2.OPERATION_KIND_ADD, value=strength)
    scope = steering_pb2.Scope(user_ids=[platform.dataset.users.ids[user]])
    window = common_pb2.TimeWindow()
    window.end.GetCurrentTime()
    window.end.seconds += 3600
    asked = steering_pb2.Policy(
        name="contract", model=platform.family, operations=[operation], scope=scope, window=window
    )
    made = platform.steering.CreatePolicy(
        steering_pb2.CreatePolicyRequest(policy=asked, reason=_REASON, allow_outside_safe_range=True), timeout=CALL_S
    ).policy
    yield made.id
    platform.steering.DeletePolicy(
        steering_pb2.DeletePolicyRequest(policy_id=made.id, revision=made.revision, reason=_REASON), timeout=CALL_S
    )


def wait_for(platform: FamilyPlatform, user: int, *, steered: bool) -> recommender_pb2.RecommendResponse:
    """The first answer that is steered, or is not any more."""
    deadline = time.monotonic() + 10
    while True:
        answer = served(platform, user)
        if bool(answer.receipt.applied) is steered:
            return answer
        assert time.monotonic() < deadline, f"no answer with steered = {steered}: {answer.receipt}"


def test_the_refresh_trains_an_sae_and_a_dictionary(platform: FamilyPlatform) -> None:
    assert platform.run.triple.dictionary_version
    hook = platform.bare.hooks[0]
    assert platform.sae.d == hook.dim
    assert platform.run.scores["concepts.live"] >= 8
    assert 0 < platform.run.scores["sae.fvu"] < 1
    assert platform.run.scores["rank.ndcg@10_kept"] > 0.5


def test_exported_activations_are_those_of_the_bare_graphs(platform: FamilyPlatform) -> None:
    with channel(platform.address) as connection:
        model = RecommenderClient(connection).describe(platform.family)
    assert model.version == platform.bare.version
    hook = platform.bare.hooks[0]
    user_id = platform.dataset.users.ids[_USER]
    answer = platform.exporter.Embed(
        recommender_pb2.EmbedRequest(model=platform.family, user_id=user_id), timeout=CALL_S
    )
    x = from_tensor(answer.batch.activations, name="activations", dtype=np.float32, shape=(None, hook.dim), finite=True)
    inputs = platform.read(_USER)
    if hook.rows == "pair":
        best = platform.alone(_USER, 10).items
        assert [one.item_id for one in answer.batch.subjects] == platform.bare.bundle.ids_of(best[0].tolist())
        expected = platform.bare.embed_pairs(inputs, best).activation
    else:
        expected = platform.bare.embed(inputs).activation
    assert x.tobytes() == expected.reshape(-1, hook.dim).tobytes()
    assert len(answer.batch.subjects) == {"subject": 1, "interest": hook.interests, "pair": 10}[hook.rows]


def test_without_a_policy_answers_equal_the_bare_model_bit_for_bit(platform: FamilyPlatform) -> None:
    for user in (_USER, _OTHER, 0):
        answer = served(platform, user)
        assert answer.receipt.reason == common_pb2.UNSTEERED_REASON_NONE_MATCHED
        assert answer.triple.sae_version == platform.run.triple.sae_version
        assert_untouched(platform, answer, user)


def test_an_explanation_names_concepts_and_its_parts_add_up_to_the_scores(platform: FamilyPlatform) -> None:
    explained = [(user, explain(platform, user)) for user in range(10)]
    assert all(found.firings for _, found in explained)
    user, found = next((user, found) for user, found in explained if found.explainable)
    listed = {item.item_id: item.score for item in served(platform, user, 5).items}
    assert listed.keys() & {item.item.item_id for item in found.items}
    for item in found.items:
        parts = sum(one.score for one in item.contributions)
        total = item.catalogue_mean + item.base + parts + item.other_concepts + item.unexplained
        assert total == pytest.approx(item.item.score, rel=1e-3, abs=1e-3)
        assert listed.get(item.item.item_id, item.item.score) == pytest.approx(item.item.score, rel=1e-4, abs=1e-4)


def explain(platform: FamilyPlatform, user: int) -> interpreter_pb2.ExplainResponse:
    """Concepts of a user, and five items."""
    request = interpreter_pb2.ExplainRequest(
        model=platform.family, user_id=platform.dataset.users.ids[user], item_limit=5
    )
    return platform.interpreter.Explain(request, timeout=CALL_S)


def test_a_policy_steers_its_user_within_seconds_and_leaves_the_neighbour_alone(platform: FamilyPlatform) -> None:
    concept = strongest_concept(platform, _USER)
    before = served(platform, _USER)
    with policy(platform, concept, 1.0, _USER) as policy_id:
        after = wait_for(platform, _USER, steered=True)
        assert [one.policy_id for one in after.receipt.applied] == [policy_id]
        assert after.receipt.delta_norm > 0
        scores = [[item.score for item in answer.items] for answer in (before, after)]
        assert scores[0] != scores[1]
        neighbour = served(platform, _OTHER)
        assert not neighbour.receipt.applied
        assert_untouched(platform, neighbour, _OTHER)
    assert_untouched(platform, wait_for(platform, _USER, steered=False), _USER)


def test_an_unknown_user_is_answered_where_the_model_can_and_refused_clearly_where_not(
    platform: FamilyPlatform,
) -> None:
    request = recommender_pb2.RecommendRequest(model=platform.family, user_id="nobody-knows-me", k=5)
    reads = platform.bare.reads
    if reads.history and not reads.empty_history:
        with pytest.raises(grpc.RpcError) as refused:
            platform.recommender.Recommend(request, timeout=CALL_S)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    else:
        assert len(platform.recommender.Recommend(request, timeout=CALL_S).items) == 5


def test_unknown_items_of_a_history_are_passed_over(platform: FamilyPlatform) -> None:
    known = [platform.dataset.items.ids[index] for index in (3, 5, 8)]
    answers = [
        platform.recommender.Recommend(
            recommender_pb2.RecommendRequest(
                model=platform.family, user_id=platform.dataset.users.ids[_USER],
                history=common_pb2.History(item_ids=history), k=5,
            ),
            timeout=CALL_S,
        )
        for history in (known, [known[0], "never heard of", *known[1:]])
    ]  # fmt: skip
    assert [item.item_id for item in answers[0].items] == [item.item_id for item in answers[1].items]


def strongest_concept(platform: FamilyPlatform, user: int) -> str:
    """Id of a concept that fires for a user."""
    request = interpreter_pb2.ExplainRequest(model=platform.family, user_id=platform.dataset.users.ids[user])
    deadline = time.monotonic() + 10
    while True:
        found = platform.interpreter.Explain(request, timeout=CALL_S)
        if found.firings:
            return found.firings[0].concept_id
        assert time.monotonic() < deadline
