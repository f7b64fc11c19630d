"""Models beside each other in one platform, and subjects of several rows, over gRPC with a real recommender behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
import redis
from tests.integration.interpreter.conftest import DIM, MODEL, N_ITEMS, Published, publish_triple
from tests.integration.interpreter.made_models import INTERESTS, publish_made

from recsae.drift.counters import Series
from recsae.drift.panes_redis import RedisPaneStore
from recsae.pipeline.triples import Triple
from recsae.rpc.tensors import from_tensor
from recsae.steering.policies import Window
from recsae.steering.wire import window_message
from recsae.store.artifacts import ArtifactStore
from recsae.v1 import common_pb2, interpreter_pb2, pipeline_pb2, recommender_pb2, steering_pb2

Start = Callable[..., Any]
AGE = {"age": common_pb2.AttributeValue(number=60.0)}
# Seeds of the triples, by address: their concepts are called c-SEED-LATENT.
SEEDS = {"several": 10, "several@second": 11, "pairs": 12}


@dataclass(frozen=True)
class Platform:
    """Stubs of an interpreter and of the recommender that serves all models, and what is in production by address."""

    interpreter: Any
    recommender: Any
    triples: dict[str, Triple]


@pytest.fixture(scope="session")
def made(published: Published, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Triple]:
    """Triples of the made models and their hooks, in the artifact store of the tiny model."""
    store = ArtifactStore(str(published.root))
    versions = publish_made(store, tmp_path_factory)
    hooks = {"several": "first", "several@second": "second", "pairs": "pair"}
    return {
        address: publish_triple(
            store,
            tmp_path_factory,
            versions[address.partition("@")[0]],
            SEEDS[address],
            model=address,
            hook=hook,
            steerable="@" not in address,
        )
        for address, hook in hooks.items()
    }


@pytest.fixture
def platform(
    start_interpreter: Start,
    start_recommender: Start,
    stubs: Start,
    point: Start,
    published: Published,
    made: dict[str, Triple],
) -> Platform:
    triples = {MODEL: published.triples[0], **made}
    for address, triple in triples.items():
        point(triple, address)
    models = {address: triple.model_version for address, triple in triples.items() if "@" not in address}
    served = ",".join(f"{name}={version}" for name, version in models.items())
    # The recommender is there first: the interpreter asks it, and it waits for the interpreter's plans by itself.
    interpreter = start_interpreter()
    recommender = start_recommender(models=served, interpreter=f"127.0.0.1:{interpreter.server.port}")
    asking = start_interpreter(recommenders=f"127.0.0.1:{recommender.server.port}")
    return Platform(stubs(asking.server.port), stubs(recommender.server.port), triples)


def explain(platform: Platform, model: str, **more: Any) -> interpreter_pb2.ExplainResponse:
    request = interpreter_pb2.ExplainRequest(model=model, **{"user_id": "u-5", **more})
    answer: interpreter_pb2.ExplainResponse = platform.interpreter.interpreter.Explain(request, timeout=10)
    return answer


def recommend(platform: Platform, model: str, **more: Any) -> recommender_pb2.RecommendResponse:
    request = recommender_pb2.RecommendRequest(model=model, **{"user_id": "u-5", "k": 10, **more})
    answer: recommender_pb2.RecommendResponse = platform.recommender.recommender.Recommend(request, timeout=10)
    return answer


def refused(call: Callable[..., object], request: object) -> str:
    with pytest.raises(grpc.RpcError) as error:
        call(request, timeout=10)
    answer: Any = error.value
    assert answer.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT)
    return str(answer.details())


def parts_add_up(explained: interpreter_pb2.ExplainResponse) -> bool:
    for one in explained.items:
        parts = [one.catalogue_mean, one.base, one.other_concepts, one.unexplained]
        total = sum(parts) + sum(part.score for part in one.contributions)
        assert total == pytest.approx(one.item.score, abs=1e-3)
    return bool(explained.items)


def owners(explained: interpreter_pb2.ExplainResponse) -> set[str]:
    return {firing.concept_id.rpartition("-")[0] for firing in explained.firings}


def test_every_address_has_its_own_dictionary(platform: Platform) -> None:
    for address, triple in platform.triples.items():
        explained = explain(platform, address)
        assert explained.triple.dictionary_version == triple.dictionary_version
        assert explained.model == address
        assert owners(explained) == {f"c-{SEEDS.get(address, 0)}"}
        listed = platform.interpreter.interpreter.ListConcepts(interpreter_pb2.ListConceptsRequest(model=address))
        assert (listed.triple.sae_version, listed.model) == (triple.sae_version, address)
        channels = platform.interpreter.pipeline.GetChannels(pipeline_pb2.GetChannelsRequest(model=address)).channels
        assert [one.triple.dictionary_version for one in channels] == [triple.dictionary_version]
    assert explain(platform, "several@first").model == "several"


def test_the_interests_of_a_user_are_explained_together(platform: Platform) -> None:
    explained = explain(platform, "several")
    assert [row.interest for row in explained.rows] == list(range(INTERESTS))
    embedded = platform.recommender.exporter.Embed(recommender_pb2.EmbedRequest(model="several", user_id="u-5"))
    x = from_tensor(embedded.batch.activations, name="x", dtype=np.float32)
    assert x.shape == (INTERESTS, DIM)
    served = recommend(platform, "several")
    assert [one.item for one in explained.items] == list(served.items)
    assert parts_add_up(explained)
    everywhere = {tuple(firing.interests) for firing in explained.firings}
    assert all(interests for interests in everywhere)
    assert len(everywhere) > 1
    again = explain(platform, "several", user_id="", activation=embedded.batch)
    assert list(again.firings) == list(explained.firings)


def test_a_hook_that_can_only_be_read_is_explained_without_items_and_takes_no_steering(platform: Platform) -> None:
    explained = explain(platform, "several@second")
    assert explained.firings
    assert not explained.items
    assert "hook second of model several@second can only be read" in explained.no_items
    operation = steering_pb2.Operation(concept_id="c-11-3", kind=steering_pb2.OPERATION_KIND_ABLATE)
    preview = steering_pb2.PreviewRequest(model="several@second", user_id="u-5", operations=[operation])
    steering = platform.interpreter.steering
    assert "can only be read" in refused(steering.Preview, preview)
    assert "can only be read" in refused(steering.CreatePolicy, policy("several@second", "c-11-3"))


def test_pairs_are_explained_each_from_its_own_row(platform: Platform) -> None:
    explained = explain(platform, "pairs")
    served = recommend(platform, "pairs")
    assert {row.item_id for row in explained.rows} == {item.item_id for item in served.items}
    assert [one.item for one in explained.items] == list(served.items)
    assert parts_add_up(explained)
    fires_for = {firing.concept_id: set(firing.item_ids) for firing in explained.firings}
    for one in explained.items:
        assert {part.concept_id for part in one.contributions} == {
            concept for concept, items in fires_for.items() if one.item.item_id in items
        }
    longer = explain(platform, "pairs", item_limit=14)
    assert len(longer.items) == 14


def test_candidates_and_attributes_are_the_callers(platform: Platform) -> None:
    asked = {"candidate_item_ids": ["i-2", "i-40", "i-9"], "attributes": AGE}
    explained = explain(platform, "pairs", **asked)
    assert [row.item_id for row in explained.rows] == ["i-2", "i-40", "i-9"]
    served = recommend(platform, "pairs", include_seen=True, **asked)
    assert [one.item for one in explained.items] == list(served.items)
    younger = explain(platform, "pairs", candidate_item_ids=asked["candidate_item_ids"])
    assert younger.items[0].item.score != explained.items[0].item.score
    unknown = interpreter_pb2.ExplainRequest(model="pairs", user_id="u-5", candidate_item_ids=["i-2", "nothing"])
    assert "nothing" in refused(platform.interpreter.interpreter.Explain, unknown)
    elsewhere = interpreter_pb2.ExplainRequest(model="several", user_id="u-5", candidate_item_ids=["i-2"])
    assert "no row per candidate" in refused(platform.interpreter.interpreter.Explain, elsewhere)


def test_items_of_a_history_that_a_model_does_not_know_are_ignored_and_none_known_is_refused(
    platform: Platform,
) -> None:
    known = explain(platform, "several", user_id="", history=common_pb2.History(item_ids=["i-3", "i-7"]))
    mixed = explain(platform, "several", user_id="", history=common_pb2.History(item_ids=["i-3", "gone", "i-7"]))
    assert list(mixed.firings) == list(known.firings)
    strange = interpreter_pb2.ExplainRequest(model="several", history=common_pb2.History(item_ids=["gone"]))
    assert "none of the 1 items" in refused(platform.interpreter.interpreter.Explain, strange)


def policy(model: str, concept: str) -> steering_pb2.CreatePolicyRequest:
    operation = steering_pb2.Operation(concept_id=concept, kind=steering_pb2.OPERATION_KIND_ADD, value=2.0)
    window = window_message(Window(end=time.time() + 600))
    draft = steering_pb2.Policy(name="test", model=model, operations=[operation], window=window)
    return steering_pb2.CreatePolicyRequest(policy=draft, reason="a test", allow_outside_safe_range=True)


@pytest.mark.parametrize("model", ["several", "pairs"])
def test_what_a_preview_shows_is_what_the_policy_then_does(platform: Platform, model: str) -> None:
    concept = f"c-{SEEDS[model]}-3"
    request = steering_pb2.PreviewRequest(
        model=model, user_id="u-5", operations=policy(model, concept).policy.operations
    )
    shown = platform.interpreter.steering.Preview(request, timeout=10)
    bare = recommend(platform, model)
    assert list(shown.before) == list(bare.items)
    assert shown.rows == (INTERESTS if model == "several" else 50)
    platform.interpreter.steering.CreatePolicy(policy(model, concept), timeout=10)
    deadline = time.monotonic() + 10
    while not (steered := recommend(platform, model)).receipt.applied:
        assert time.monotonic() < deadline, "the policy never took effect"
    assert shown.receipt.delta_norm == pytest.approx(steered.receipt.delta_norm, rel=1e-5)
    best = {item.item_id for item in shown.before}
    after = [one.item.item_id for one in shown.after]
    if model == "several":
        assert after == [item.item_id for item in steered.items]
    else:  # of all pairs some from below the candidates may come up
        among = [item.item_id for item in steered.items if item.item_id in set(after) | best]
        assert among == [item for item in after if item in set(among)]
    assert after != [item.item_id for item in shown.before]
    for other in {MODEL, "several", "pairs"} - {model}:
        assert recommend(platform, other).receipt.reason == common_pb2.UNSTEERED_REASON_NONE_MATCHED


@pytest.mark.parametrize("model", ["several", "pairs"])
def test_rows_steered_by_call_rank_as_those_steered_in_process(platform: Platform, model: str) -> None:
    slate = [f"i-{item}" for item in range(1, N_ITEMS + 1)]
    candidates = slate if model == "pairs" else []
    platform.interpreter.steering.CreatePolicy(policy(model, f"c-{SEEDS[model]}-3"), timeout=10)
    deadline = time.monotonic() + 10
    while not (served := recommend(platform, model, candidate_item_ids=candidates)).receipt.applied:
        assert time.monotonic() < deadline, "the policy never took effect"
    embedded = platform.recommender.exporter.Embed(
        recommender_pb2.EmbedRequest(model=model, user_id="u-5", candidate_item_ids=candidates)
    )
    rows = len(embedded.batch.subjects)
    assert rows == (INTERESTS if model == "several" else N_ITEMS)
    contexts = [steering_pb2.SteerContext(user_id="u-5", request_id="r-1")] * rows
    steered = platform.interpreter.steering.Steer(steering_pb2.SteerRequest(batch=embedded.batch, contexts=contexts))
    # A row shorter than half the change stays as it is, by call as in process.
    assert any(receipt.applied for receipt in steered.receipts)
    assert {receipt.reason for receipt in steered.receipts if not receipt.applied} <= {
        common_pb2.UNSTEERED_REASON_OVER_NORM_BUDGET
    }
    # Items of the history are left out of the list, as Recommend leaves them out.
    seen = recommender_pb2.ItemList(item_ids=embedded.history.item_ids)
    ranked = platform.recommender.recommender.Rank(
        recommender_pb2.RankRequest(
            model=model,
            activations=steered.activations,
            passthrough=embedded.batch.passthrough,
            exclude=[seen],
            candidates=[recommender_pb2.ItemList(item_ids=candidates)] if candidates else [],
        )
    )
    assert [item.item_id for item in ranked.lists[0].items] == [item.item_id for item in served.items]


def test_groups_of_users_are_compared_whatever_their_rows(platform: Platform) -> None:
    drawn = np.random.default_rng(0).integers(1, N_ITEMS + 1, (2, 30, 6))
    drawn[0, :, 3:] = 1 + drawn[0, :, 3:] % 5
    a, b = (
        interpreter_pb2.UserGroup(
            user_ids=[f"u-{user}" for user in users],
            histories=[common_pb2.History(item_ids=[f"i-{item}" for item in one]) for one in histories.tolist()],
        )
        for users, histories in zip((range(6), range(6, 12)), drawn, strict=True)
    )
    compare = platform.interpreter.interpreter.CompareGroups
    for model, candidates in (("several", []), ("several@second", []), ("pairs", ["i-2", "i-9"])):
        found = compare(
            interpreter_pb2.CompareGroupsRequest(model=model, a=a, b=b, candidate_item_ids=candidates), timeout=10
        )
        assert (found.users_a, found.users_b) == (36, 36)
        assert {one.concept.id.rpartition("-")[0] for one in found.differences} == {f"c-{SEEDS[model]}"}
    assert "name candidate_item_ids" in refused(compare, interpreter_pb2.CompareGroupsRequest(model="pairs", a=a, b=b))
    by_history = [interpreter_pb2.UserGroup(histories=group.histories) for group in (a, b)]
    newest = compare(interpreter_pb2.CompareGroupsRequest(model="pairs", a=by_history[0], b=by_history[1]), timeout=10)
    assert newest.users_a == 30


def test_live_rows_are_counted_for_their_own_address(platform: Platform, valkey: redis.Redis) -> None:
    sent = {}
    for address in platform.triples:
        model, _, hook = address.partition("@")
        embedded = platform.recommender.exporter.Embed(
            recommender_pb2.EmbedRequest(model=model, hook=hook, user_id="u-5")
        )
        sent[address] = len(embedded.batch.subjects)
        request = interpreter_pb2.ObserveRequest(batch=embedded.batch, batch_id=address)
        assert platform.interpreter.interpreter.Observe(request).accepted == sent[address]
    panes, now = RedisPaneStore(valkey), time.time()
    deadline = time.monotonic() + 10
    while not all(panes.series(address) for address in sent):
        assert time.monotonic() < deadline, "the panes were not flushed"
        time.sleep(0.05)
    counted = {
        address: sum(
            pane.counters.n for pane in panes.read(Series(address, triple.sae_version, "", False), now - 60, now + 60)
        )
        for address, triple in platform.triples.items()
    }
    assert counted == sent == {MODEL: 1, "several": INTERESTS, "several@second": INTERESTS, "pairs": 10}
