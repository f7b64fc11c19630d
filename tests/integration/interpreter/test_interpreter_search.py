"""Search by words and by meaning, and groups compared, over gRPC with a real recommender behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.concepts.dictionary import Dictionary
from recsae.concepts.meaning import embed_concepts
from recsae.concepts.records import LabelSource
from recsae.pipeline.triples import Triple
from recsae.rpc.tensors import from_tensor
from recsae.store.artifacts import ArtifactStore
from recsae.store.channels import PRODUCTION, Channel, ModelChannels
from recsae.v1 import common_pb2, interpreter_pb2, recommender_pb2
from recsae_interpreter.handlers.concepts import ConceptsHandler
from recsae_interpreter.library import Library
from recsae_interpreter.loading import load_triple

Start = Callable[..., Any]
MODEL = "tiny"


@pytest.fixture
def running(start_interpreter: Start, start_recommender: Start, stubs: Start, promote: Start) -> tuple[Any, Any]:
    """Stubs of an interpreter and of its recommender; triple 0 is promoted."""
    promote(0)
    recommender = start_recommender()
    interpreter = start_interpreter(recommenders=f"127.0.0.1:{recommender.server.port}")
    return stubs(interpreter.server.port), stubs(recommender.server.port)


def refusal(error: pytest.ExceptionInfo[grpc.RpcError]) -> tuple[grpc.StatusCode, str]:
    call: Any = error.value
    return call.code(), call.details()


class ByNumber:
    """An embedder that knows the numbers in a text: equal numbers are equal vectors."""

    name = "by-number 1"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), 64), np.float32)
        for row, text in enumerate(texts):
            digits = [int(word) for word in text.split() if word.isdigit()]
            vectors[row, (digits or [63])[0]] = 1
        return vectors


def test_without_its_model_a_search_by_meaning_names_the_remedy(running: tuple[Any, Any]) -> None:
    interpreter, _ = running
    request = interpreter_pb2.SearchConceptsRequest(query="scary", mode=interpreter_pb2.SEARCH_MODE_MEANING)
    with pytest.raises(grpc.RpcError) as refused:
        interpreter.interpreter.SearchConcepts(request)
    code, words = refusal(refused)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "install the extra meaning" in words
    by_words = interpreter_pb2.SearchConceptsRequest(query="concept 7", mode=interpreter_pb2.SEARCH_MODE_WORDS)
    assert interpreter.interpreter.SearchConcepts(by_words).hits[0].concept.latent == 7


def test_an_unknown_mode_is_refused(running: tuple[Any, Any]) -> None:
    interpreter, _ = running
    with pytest.raises(grpc.RpcError) as refused:
        interpreter.interpreter.SearchConcepts(interpreter_pb2.SearchConceptsRequest(query="x", mode=9))  # type: ignore[arg-type]
    assert refusal(refused) == (
        grpc.StatusCode.INVALID_ARGUMENT, "search mode 9 is not known; leave it out to search by words",
    )  # fmt: skip


def test_embeddings_published_with_a_dictionary_answer_by_meaning(
    published: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = ArtifactStore(str(published.root))
    old = published.triples[0]
    dictionary = Dictionary.load(store.fetch("dictionary", old.dictionary_version).folder, "")
    named = tuple(replace(concept, label_source=LabelSource.HUMAN) for concept in dictionary.concepts)
    folder = tmp_path_factory.mktemp("dictionary")
    replace(dictionary, concepts=named).save(folder)
    embed_concepts(named, ByNumber()).save(folder)
    lineage = {"model": old.model_version, "sae": old.sae_version}
    version = store.publish("dictionary", folder, config={"model": MODEL}, lineage=lineage)
    triple = Triple(old.model_version, old.sae_version, version)
    library = Library(partial(load_triple, store, embedder=ByNumber()))
    pointed = ModelChannels({PRODUCTION: Channel(PRODUCTION, triple, 1)}, {old.model_version: triple})
    assert library.update({MODEL: pointed})
    (hit,) = ConceptsHandler(library).search(MODEL, "what was number 7 again", 3, by_meaning=True).hits
    assert (hit.concept.latent, hit.matched_in, hit.score) == (7, "meaning", 1.0)


def drawn_histories(seed: int, count: int) -> list[common_pb2.History]:
    rng = np.random.default_rng(seed)
    return [common_pb2.History(item_ids=[f"i-{item}" for item in rng.integers(1, 61, 5)]) for _ in range(count)]


def test_groups_given_by_users_and_by_histories_are_told_apart_alike(running: tuple[Any, Any], published: Any) -> None:
    interpreter, recommender = running
    ids = [f"u-{user}" for user in range(6)]
    stored = [recommender.exporter.Embed(recommender_pb2.EmbedRequest(user_id=one)).history for one in ids]
    others, b = drawn_histories(1, 300), drawn_histories(2, 40)

    def compared(a: interpreter_pb2.UserGroup) -> interpreter_pb2.CompareGroupsResponse:
        request = interpreter_pb2.CompareGroupsRequest(a=a, b=interpreter_pb2.UserGroup(histories=b), limit=500)
        answer: interpreter_pb2.CompareGroupsResponse = interpreter.interpreter.CompareGroups(request)
        return answer

    by_users = compared(interpreter_pb2.UserGroup(user_ids=ids, histories=others))
    assert by_users == compared(interpreter_pb2.UserGroup(histories=[*stored, *others]))
    assert by_users.triple.dictionary_version == published.triples[0].dictionary_version
    assert (by_users.users_a, by_users.users_b) == (306, 40)
    assert by_users.tested == len(by_users.differences) > 10
    requests = [recommender_pb2.EmbedRequest(history=history) for history in (*stored, *others, *b)]
    batches = [recommender.exporter.Embed(request).batch for request in requests]
    x = np.concatenate([from_tensor(batch.activations, name="x") for batch in batches]).astype(np.float32)
    codes = published.sae(0).encode(x)
    for one in by_users.differences:
        fires = ((codes.indices == one.concept.latent) & (codes.values > 0)).any(axis=1)
        assert one.rate_a == pytest.approx(fires[:306].mean())
        assert one.rate_b == pytest.approx(fires[306:].mean())
        assert one.rate_difference.low <= one.rate_difference.value <= one.rate_difference.high
        assert 0 <= one.q <= 1
    qs = [one.q for one in by_users.differences]
    assert qs == sorted(qs)


@pytest.mark.parametrize(
    ("a", "why"),
    [
        (interpreter_pb2.UserGroup(user_ids=["u-1"]), "group a has 1 users; give 2 to 2,000"),
        (interpreter_pb2.UserGroup(user_ids=["u-1", "u-1"]), "group a names 1 users twice"),
        (interpreter_pb2.UserGroup(user_ids=[str(user) for user in range(2_001)]), "group a has 2001 users"),
        (interpreter_pb2.UserGroup(user_ids=["u-1", "nobody"]), "user 'nobody' is not in the history store"),
        (
            interpreter_pb2.UserGroup(
                histories=[common_pb2.History(item_ids=["i-1"]), common_pb2.History(item_ids=["?"])]
            ),
            "history 1 has no item known",
        ),
    ],
)
def test_groups_that_cannot_be_compared_are_refused(
    running: tuple[Any, Any], a: interpreter_pb2.UserGroup, why: str
) -> None:
    interpreter, _ = running
    b = interpreter_pb2.UserGroup(user_ids=["u-2", "u-3"])
    with pytest.raises(grpc.RpcError) as refused:
        interpreter.interpreter.CompareGroups(interpreter_pb2.CompareGroupsRequest(a=a, b=b))
    code, words = refusal(refused)
    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert why in words
