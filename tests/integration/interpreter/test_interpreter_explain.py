"""Explaining, encoding, the dictionary and observing, over gRPC with a real recommender behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
import redis

from recsae.drift.counters import Series
from recsae.drift.panes_redis import RedisPaneStore
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.v1 import common_pb2, interpreter_pb2, recommender_pb2

Start = Callable[..., Any]
MODEL = "tiny"


@pytest.fixture
def running(start_interpreter: Start, start_recommender: Start, stubs: Start, promote: Start) -> tuple[Any, Any]:
    """Stubs of an interpreter and of its recommender; triple 0 is promoted."""
    promote(0)
    recommender = start_recommender()
    interpreter = start_interpreter(recommenders=f"127.0.0.1:{recommender.server.port}")
    return stubs(interpreter.server.port), stubs(recommender.server.port)


def code_and_words(error: pytest.ExceptionInfo[grpc.RpcError]) -> tuple[grpc.StatusCode, str]:
    call: Any = error.value
    return call.code(), call.details()


def test_the_parts_of_every_score_add_up_to_what_recommend_serves(running: tuple[Any, Any], published: Any) -> None:
    interpreter, recommender = running
    served = recommender.recommender.Recommend(recommender_pb2.RecommendRequest(user_id="u-5", k=10))
    explained = interpreter.interpreter.Explain(interpreter_pb2.ExplainRequest(user_id="u-5", concept_limit=3))
    assert explained.triple.sae_version == published.triples[0].sae_version
    assert [one.item for one in explained.items] == list(served.items)
    assert len(explained.firings) == 3
    for one in explained.items:
        parts = [one.catalogue_mean, one.base, one.other_concepts, one.unexplained]
        total = sum(parts) + sum(part.score for part in one.contributions)
        assert total == pytest.approx(one.item.score, abs=1e-4)
        assert {part.concept_id for part in one.contributions} == {firing.concept_id for firing in explained.firings}
        sizes = [abs(part.score) for part in one.contributions]
        assert sizes == sorted(sizes, reverse=True)


def test_firings_are_the_encoders_strongest_first_with_labels(running: tuple[Any, Any], published: Any) -> None:
    interpreter, recommender = running
    history = common_pb2.History(item_ids=["i-3", "i-7"])
    embedded = recommender.exporter.Embed(recommender_pb2.EmbedRequest(history=history))
    by_history = interpreter.interpreter.Explain(interpreter_pb2.ExplainRequest(history=history))
    by_activation = interpreter.interpreter.Explain(interpreter_pb2.ExplainRequest(activation=embedded.batch))
    assert by_history.firings == by_activation.firings
    x = from_tensor(embedded.batch.activations, name="x")
    sae = published.sae(0)
    codes = sae.encode(x)
    wanted = {int(j): float(z) for j, z in zip(codes.indices[0], codes.values[0], strict=True) if z > 0}
    assert {one.latent: one.value for one in by_history.firings} == pytest.approx(wanted)
    strengths = [one.strength for one in by_history.firings]
    assert strengths == sorted(strengths, reverse=True)
    assert by_history.firings[0].label == f"Concept {by_history.firings[0].latent} of 0"
    assert by_history.unexplained_share == pytest.approx(float(sae.relative_error(x, sae.decode(codes))[0]), rel=1e-5)
    assert list(by_history.history.item_ids) == ["i-3", "i-7"]


def test_an_activation_reconstructed_worse_than_in_training_is_refused_in_a_sentence(
    running: tuple[Any, Any], promote: Start, swapped: Start
) -> None:
    promote(2)  # its SAE reconstructed nearly everything in training
    interpreter = running[0].interpreter
    swapped(running[0], 2)
    explained = interpreter.Explain(interpreter_pb2.ExplainRequest(user_id="u-5"))
    assert not explained.explainable
    assert explained.refusal.startswith("cannot explain: ")
    assert explained.firings
    assert not explained.items


def test_encode_answers_the_latents_of_every_row(running: tuple[Any, Any], published: Any) -> None:
    interpreter, _ = running
    x = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    batch = common_pb2.ActivationBatch(model=MODEL, model_version=published.model_version, activations=to_tensor(x))
    answer = interpreter.interpreter.Encode(interpreter_pb2.EncodeRequest(batch=batch))
    codes = published.sae(0).encode(x)
    np.testing.assert_array_equal(from_tensor(answer.indices, name="i", dtype=np.int32), codes.indices)
    np.testing.assert_array_equal(from_tensor(answer.values, name="v", dtype=np.float32), codes.values)


def test_another_model_version_is_refused_with_a_sentence_and_never_guessed(running: tuple[Any, Any]) -> None:
    interpreter, _ = running
    x = np.zeros((1, 16), np.float32)
    batch = common_pb2.ActivationBatch(model=MODEL, model_version="f" * 16, activations=to_tensor(x))
    with pytest.raises(grpc.RpcError) as error:
        interpreter.interpreter.Encode(interpreter_pb2.EncodeRequest(batch=batch))
    code, words = code_and_words(error)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "version ffffffffffffffff has no promoted SAE" in words


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (interpreter_pb2.ExplainRequest(), "no subject came"),
        (interpreter_pb2.ExplainRequest(user_id="u-1", concept_limit=257), "concept_limit 257"),
        (interpreter_pb2.ExplainRequest(user_id="u-1", item_limit=101), "item_limit 101"),
        (interpreter_pb2.ExplainRequest(activation=common_pb2.ActivationBatch(model=MODEL)), "element type"),
    ],
)
def test_a_request_that_can_never_work_is_refused_by_field(
    running: tuple[Any, Any], request_: interpreter_pb2.ExplainRequest, words: str
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        running[0].interpreter.Explain(request_)
    assert code_and_words(error)[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert words in code_and_words(error)[1]


def test_a_recommender_that_is_down_is_unavailable_and_concepts_still_answer(
    start_interpreter: Start, stubs: Start, promote: Start
) -> None:
    promote(0)
    interpreter = stubs(start_interpreter().server.port)
    with pytest.raises(grpc.RpcError) as error:
        interpreter.interpreter.Explain(interpreter_pb2.ExplainRequest(user_id="u-1"), timeout=5)
    assert code_and_words(error)[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert interpreter.interpreter.ListConcepts(interpreter_pb2.ListConceptsRequest()).total == 47


def test_pages_hold_every_live_concept_once_in_order(running: tuple[Any, Any]) -> None:
    stub = running[0].interpreter
    seen: list[str] = []
    token = ""
    while True:
        page = stub.ListConcepts(interpreter_pb2.ListConceptsRequest(model=MODEL, page_size=10, page_token=token))
        seen += [concept.id for concept in page.concepts]
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"c-0-{latent}" for latent in range(46, -1, -1)]
    first = stub.ListConcepts(interpreter_pb2.ListConceptsRequest(page_size=10))
    by_latent = interpreter_pb2.ListConceptsRequest(
        order=interpreter_pb2.CONCEPT_ORDER_LATENT, page_token=first.next_page_token
    )
    with pytest.raises(grpc.RpcError) as error:
        stub.ListConcepts(by_latent)
    assert "page_token is of another" in code_and_words(error)[1]


def test_a_concept_is_found_by_id_and_by_words(running: tuple[Any, Any]) -> None:
    stub = running[0].interpreter
    assert (
        stub.GetConcept(interpreter_pb2.GetConceptRequest(concept_id="c-0-7")).detail.concept.label == "Concept 7 of 0"
    )
    hits = stub.SearchConcepts(interpreter_pb2.SearchConceptsRequest(query="concept 7")).hits
    assert hits[0].concept.id == "c-0-7"
    with pytest.raises(grpc.RpcError) as error:
        stub.GetConcept(interpreter_pb2.GetConceptRequest(concept_id="c-9-9"))
    assert code_and_words(error)[0] is grpc.StatusCode.NOT_FOUND


def test_observed_rows_reach_the_panes_once_steered_ones_apart(
    running: tuple[Any, Any], published: Any, valkey: redis.Redis
) -> None:
    stub = running[0].interpreter
    x = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    batch = common_pb2.ActivationBatch(model=MODEL, model_version=published.model_version, activations=to_tensor(x))
    steered = to_tensor(np.array([True, False, False, False, False]))
    request = interpreter_pb2.ObserveRequest(batch=batch, steered=steered, batch_id="b-1")
    before = time.time()
    assert stub.Observe(request).accepted == 5
    assert stub.Observe(request).accepted == 0
    unknown = common_pb2.ActivationBatch(model=MODEL, model_version="f" * 16, activations=to_tensor(x))
    assert stub.Observe(interpreter_pb2.ObserveRequest(batch=unknown, batch_id="b-2")).accepted == 0
    panes, sae = RedisPaneStore(valkey), published.triples[0].sae_version
    deadline = time.monotonic() + 10
    while len(panes.series(MODEL)) < 2:
        assert time.monotonic() < deadline, "the panes were not flushed"
        time.sleep(0.05)
    counted = {
        flag: sum(pane.counters.n for pane in panes.read(Series(MODEL, sae, "", flag), before - 60, before + 60))
        for flag in (False, True)
    }
    assert counted == {False: 4, True: 1}
