"""A refresh that asks a language model: real workers, a local server that speaks the protocol, a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.llm.chat_server import ChatServer, Says
from tests.integration.llm.planted_world import is_rating

from recsae.concepts.dictionary import Dictionary
from recsae.concepts.probe_set import load_probe_set
from recsae.pipeline.runs import RunState
from recsae.store.artifacts import ArtifactStore

if TYPE_CHECKING:
    from tests.integration.worker.conftest import Fleet

WORDS = json.dumps({"label": "Things people like", "description": "Histories of things."})


def answers(body: dict[str, Any]) -> Says:
    return Says('{"strength": 6}') if is_rating(body) else Says(WORDS)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(answers).running() as running:
        yield running


@pytest.fixture
def endpoint(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find the server in their settings."""
    settings = {
        "URL": server.url,
        "MODEL": "tiny",
        "API_KEY": "s3cret-key",
        "CONCURRENCY": "2",
        "PRICE_IN": "1000",
        "MAX_COST": "99",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"RECSAE_WORKER_LLM_{name}", value)


@pytest.mark.usefixtures("endpoint")
def test_a_worker_killed_while_it_asks_costs_only_the_calls_in_flight(fleet: Fleet, server: ChatServer) -> None:
    gate = threading.Event()

    def slow_after_thirty(body: dict[str, Any]) -> Says:
        says = answers(body)
        return says if server.requests <= 30 else Says(says.content, until=gate)

    server.script = slow_after_thirty
    server.hanging.append(gate)
    first = fleet.start_worker()
    run = fleet.start_run(width=32, k=4, epochs=20, llm_concepts=3)
    fleet.wait_for(lambda: server.requests == 32, "two calls in flight after thirty")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    gate.set()
    fleet.start_worker()
    finished = fleet.wait_for_run(run, lambda r: r.state is RunState.SUCCEEDED, "end of the run")

    asked = Counter(server.bodies)
    assert sum(asked.values()) - len(asked) <= 2  # what was in flight is asked again, nothing else
    stage = finished.stage("llm")
    assert stage.attempts == 2
    assert "3 of 3 concepts described, 3 rated, cost" in stage.detail
    scores = finished.scores
    assert (scores["llm.described"], scores["llm.rated"], scores["llm.failed"]) == (3, 3, 0)
    assert scores["llm.cached"] >= 30
    # The cost is of both attempts: every answer once, and the calls in flight at their worst case.
    answered = len(asked) * 100 * 1000 / 1e6
    assert answered <= scores["llm.cost"] < answered + 2 * 2000 * 1000 / 1e6
    assert scores["llm.correlation"] == 0

    artifacts = ArtifactStore(str(fleet.folder / "artifacts"))
    version = finished.triple.dictionary_version
    folder = artifacts.fetch("dictionary", version).folder
    dictionary = Dictionary.load(folder, version)
    assert load_probe_set(folder) is not None  # the next refresh finds its concepts by these rows
    described = [concept for concept in dictionary.concepts if concept.llm is not None]
    assert [concept.llm.label for concept in described if concept.llm] == ["Things people like"] * 3
    written = b"".join(path.read_bytes() for path in fleet.folder.rglob("*") if path.is_file())
    assert b"s3cret-key" not in written


def test_a_worker_without_an_endpoint_says_which_setting_is_missing(fleet: Fleet) -> None:
    fleet.start_worker()
    run = fleet.start_run(width=32, k=4, epochs=20, llm_concepts=3)
    fleet.wait_for(lambda: fleet.runs.get(run.id).state.ended, "end of the run")
    failed = fleet.runs.get(run.id)
    assert failed.state is RunState.FAILED
    assert failed.stage("llm").attempts == 1
    assert "set RECSAE_WORKER_LLM_URL and RECSAE_WORKER_LLM_MODEL" in failed.reason
