"""Promotion over gRPC: one compare-and-set, verified triples, live swap, old triples kept when the new one fails."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from recsae.rpc.tensors import to_tensor
from recsae.store.artifacts import ArtifactStore
from recsae.v1 import common_pb2, interpreter_pb2, pipeline_pb2

Start = Callable[..., Any]
MODEL = "tiny"


def message(triple: Any) -> common_pb2.Triple:
    return common_pb2.Triple(**vars(triple))


def refused(call: Callable[..., object], request: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        call(request)
    answer: Any = error.value
    return answer.code(), answer.details()


@pytest.fixture
def app(start_interpreter: Start) -> Any:
    return start_interpreter()


@pytest.fixture
def interpreter(app: Any, stubs: Start) -> Any:
    return stubs(app.server.port)


def wait_until_failed(app: Any) -> None:
    """Waits until the metrics say that a promoted triple could not be loaded."""
    deadline = time.monotonic() + 10
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{app.metrics_port}/metrics", timeout=5) as page:
            if 'recsae_triples_failed{model="tiny"} 1.0' in page.read().decode():
                return
        assert time.monotonic() < deadline, "the failure was not reported"
        time.sleep(0.02)


def test_promotion_swaps_the_dictionary_live_and_rollback_swaps_it_back(
    interpreter: Any, candidate: Start, swapped: Start, published: Any
) -> None:
    pipeline = interpreter.pipeline
    code, words = refused(pipeline.Promote, pipeline_pb2.PromoteRequest(model=MODEL, reason="x"))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "no candidate" in words
    candidate(0)
    promoted = pipeline.Promote(pipeline_pb2.PromoteRequest(model=MODEL, reason="first")).channel
    assert (promoted.name, promoted.triple, promoted.revision) == ("production", message(published.triples[0]), 1)
    swapped(interpreter, 0)
    named = pipeline_pb2.PromoteRequest(
        model=MODEL, triple=message(published.triples[1]), expected_revision=1, reason="second"
    )
    assert pipeline.Promote(named).channel.revision == 2
    swapped(interpreter, 1)
    back = pipeline.Rollback(pipeline_pb2.RollbackRequest(model=MODEL, reason="worse")).channel
    assert back.triple == message(published.triples[0])
    swapped(interpreter, 0)
    channels = pipeline.GetChannels(pipeline_pb2.GetChannelsRequest(model=MODEL)).channels
    assert [(one.name, one.revision) for one in channels] == [("candidate", 1), ("production", 3)]


def test_a_promotion_from_an_old_revision_is_refused(interpreter: Any, promote: Start, published: Any) -> None:
    promote(0)
    request = pipeline_pb2.PromoteRequest(
        model=MODEL, triple=message(published.triples[1]), expected_revision=0, reason="x"
    )
    code, words = refused(interpreter.pipeline.Promote, request)
    assert code is grpc.StatusCode.ABORTED
    assert "at revision 1, not 0" in words


def test_mixing_versions_is_refused_with_a_sentence(interpreter: Any, published: Any) -> None:
    first, second, _ = published.triples
    wrong_dictionary = common_pb2.Triple(
        model_version=first.model_version,
        sae_version=first.sae_version,
        dictionary_version=second.dictionary_version,
    )
    wrong_model = message(first)
    wrong_model.model_version = "f" * 16
    missing = message(first)
    missing.dictionary_version = "e" * 16
    for triple, code, words in (
        (wrong_dictionary, grpc.StatusCode.FAILED_PRECONDITION, "versions never mix"),
        (wrong_model, grpc.StatusCode.FAILED_PRECONDITION, "versions never mix"),
        (missing, grpc.StatusCode.NOT_FOUND, "no dictionary of version"),
    ):
        request = pipeline_pb2.PromoteRequest(model=MODEL, triple=triple, reason="x")
        assert refused(interpreter.pipeline.Promote, request)[0] is code
        assert words in refused(interpreter.pipeline.Promote, request)[1]
    assert not interpreter.pipeline.GetChannels(pipeline_pb2.GetChannelsRequest(model=MODEL)).channels


def test_every_answer_during_a_swap_is_from_one_triple(
    interpreter: Any, promote: Start, swapped: Start, published: Any
) -> None:
    promote(0)
    swapped(interpreter, 0)
    stop = threading.Event()
    mixed: list[str] = []
    answered: list[str] = []
    number_of = {triple.dictionary_version: str(number) for number, triple in enumerate(published.triples)}

    def ask() -> None:
        while not stop.is_set():
            page = interpreter.interpreter.ListConcepts(interpreter_pb2.ListConceptsRequest(page_size=1))
            number = number_of[page.triple.dictionary_version]
            answered.append(number)
            if page.concepts[0].label.split()[-1] != number:
                mixed.append(page.concepts[0].label)

    asking = threading.Thread(target=ask)
    asking.start()
    for number in (1, 0, 1):
        promote(number)
        swapped(interpreter, number)
    stop.set()
    asking.join(10)
    assert mixed == []
    assert set(answered) == {"0", "1"}


def test_a_promoted_triple_that_cannot_be_loaded_keeps_the_old_one_until_it_can(
    app: Any, interpreter: Any, promote: Start, swapped: Start, published: Any
) -> None:
    promote(0)
    swapped(interpreter, 0)
    concepts = ArtifactStore(str(published.root)).fetch("dictionary", published.triples[1].dictionary_version)
    file = concepts.path("concepts.json")
    content = file.read_bytes()
    file.write_bytes(content[:-2])
    try:
        promote(1)
        refusal = refused(
            interpreter.pipeline.Promote,
            pipeline_pb2.PromoteRequest(model=MODEL, triple=message(published.triples[1]), reason="x"),
        )
        assert refusal[0] is grpc.StatusCode.DATA_LOSS
        wait_until_failed(app)
        stays = interpreter.interpreter.ListConcepts(interpreter_pb2.ListConceptsRequest(page_size=1))
        assert stays.triple == message(published.triples[0])
        batch = common_pb2.ActivationBatch(
            model=MODEL,
            model_version=published.model_version,
            activations=to_tensor(np.ones((1, 16), np.float32)),
        )
        encoded = interpreter.interpreter.Encode(interpreter_pb2.EncodeRequest(batch=batch))
        assert encoded.triple == message(published.triples[0])
    finally:
        file.write_bytes(content)
    swapped(interpreter, 1)


def test_a_second_replica_follows_what_the_first_one_promotes(
    start_interpreter: Start, stubs: Start, candidate: Start, swapped: Start
) -> None:
    first, second = (stubs(start_interpreter().server.port) for _ in range(2))
    candidate(0)
    first.pipeline.Promote(pipeline_pb2.PromoteRequest(model=MODEL, reason="x"))
    swapped(first, 0)
    swapped(second, 0)


def test_a_refresh_is_recorded_once_per_key_and_can_be_cancelled(interpreter: Any, published: Any) -> None:
    pipeline = interpreter.pipeline
    config = pipeline_pb2.RefreshConfig(model=MODEL, dataset_version="a" * 16)
    code, words = refused(pipeline.StartRefresh, pipeline_pb2.StartRefreshRequest(config=config))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "no dataset" in words
    store = ArtifactStore(str(published.root))
    config.dataset_version = store.publish("dataset", published.histories, config={}, lineage={})
    request = pipeline_pb2.StartRefreshRequest(config=config, idempotency_key="once")
    first, second = pipeline.StartRefresh(request).run, pipeline.StartRefresh(request).run
    assert first == second
    assert first.state == pipeline_pb2.RUN_STATE_QUEUED
    assert [run.id for run in pipeline.ListRuns(pipeline_pb2.ListRunsRequest(model=MODEL)).runs] == [first.id]
    cancelled = pipeline.CancelRun(pipeline_pb2.CancelRunRequest(run_id=first.id, reason="not needed")).run
    assert (cancelled.state, cancelled.reason) == (pipeline_pb2.RUN_STATE_CANCELLED, "not needed")
    assert pipeline.GetRun(pipeline_pb2.GetRunRequest(run_id=first.id)).run == cancelled
