"""Models and hooks side by side: every address has its own triple, plans and counters; hooks that can only be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.toy_interpreter import (
    MODEL_VERSION,
    ToyRecommender,
    activations,
    library_of,
    metrics,
    publish,
)

from recsae.drift.arena import CounterArena
from recsae.drift.counters import Series
from recsae.drift.panes import InMemoryPaneStore
from recsae.errors import FailedPreconditionError, InvalidRequestError, NotFoundError
from recsae.pipeline.contracts import InMemoryTaskQueue
from recsae.pipeline.run_store import InMemoryRunStore
from recsae.pipeline.runs import RunConfig
from recsae.pipeline.triples import Triple
from recsae.rpc.deadline import Deadline
from recsae.rpc.request import RequestInfo
from recsae.steering.matching import SteerContext
from recsae.steering.policies import Operation, OperationKind, PolicyDraft, Window
from recsae.steering.policy_store import InMemoryPolicyStore
from recsae.steering.receipts import UnsteeredReason
from recsae.store.artifacts import ArtifactStore
from recsae.store.events import InMemoryTrail
from recsae_interpreter.board import PlanBoard
from recsae_interpreter.convert import explain_response
from recsae_interpreter.handlers.encode import EncodeHandler
from recsae_interpreter.handlers.explain import ExplainHandler, ExplainQuery
from recsae_interpreter.handlers.observe import Observation, ObserveHandler
from recsae_interpreter.handlers.policies import CreateQuery, PoliciesHandler
from recsae_interpreter.handlers.policy_checks import HandleDose
from recsae_interpreter.handlers.preview import PreviewHandler, PreviewQuery
from recsae_interpreter.handlers.runs import RunsHandler
from recsae_interpreter.handlers.steer import SteerHandler
from recsae_interpreter.library import Library
from recsae_interpreter.readings import Subject

FAR = 4e9
HOOKS = ("final", "block_0")


@pytest.fixture
def triples(tmp_path: Path) -> dict[str, Triple]:
    return {
        "toy": publish(tmp_path, "toy", seed=0),
        "toy@block_0": publish(tmp_path, "toy@block_0", hook="block_0", seed=1, steerable=False),
        "gru": publish(tmp_path, "gru", hook="state", seed=2),
    }


@pytest.fixture
def library(tmp_path: Path, triples: dict[str, Triple]) -> Library:
    return library_of(tmp_path, triples)


@pytest.mark.parametrize(
    ("model", "hook", "address"),
    [
        ("toy", "", "toy"),
        ("toy", "final", "toy"),
        ("toy", "block_0", "toy@block_0"),
        ("toy@block_0", "", "toy@block_0"),
        ("toy@block_0", "block_0", "toy@block_0"),
        ("toy@final", "", "toy"),
        ("toy", "block_1", "toy@block_1"),
        ("gru", "state", "gru"),
        ("new", "any", "new"),
        ("new@other", "", "new@other"),
    ],
)
def test_activations_of_a_hook_belong_to_one_address(library: Library, model: str, hook: str, address: str) -> None:
    assert library.address(model, hook) == address


def test_no_name_means_the_first_hook_of_the_only_model(tmp_path: Path, triples: dict[str, Triple]) -> None:
    alone = library_of(tmp_path, {name: triples[name] for name in ("toy", "toy@block_0")})
    assert alone.model("").model == "toy"
    assert alone.model("toy@final").model == "toy"
    read_only = library_of(tmp_path, {"toy@block_0": triples["toy@block_0"]})
    assert read_only.model("").model == "toy@block_0"
    with pytest.raises(NotFoundError, match="toy has no promoted SAE"):
        read_only.model("toy")
    with pytest.raises(FailedPreconditionError, match="several models: gru, toy, toy@block_0"):
        library_of(tmp_path, triples).model("")


def test_an_sae_of_another_hook_is_not_loaded_for_an_address(tmp_path: Path) -> None:
    triple = publish(tmp_path, "toy@block_0", hook="block_0")
    with pytest.raises(AssertionError, match="was trained on model 'toy@block_0' at hook 'block_0', not 'toy@block_1'"):
        library_of(tmp_path, {"toy@block_1": triple})


def test_every_address_is_explained_by_its_own_triple(library: Library, triples: dict[str, Triple]) -> None:
    recommender = ToyRecommender(hooks=HOOKS)
    handler = ExplainHandler(library, recommender, metrics())
    first = handler(ExplainQuery("toy", Subject("ann")))
    second = handler(ExplainQuery("toy@block_0", Subject("ann")))
    assert (first.triple, second.triple) == (triples["toy"], triples["toy@block_0"])
    assert {one.concept.id.rpartition("-")[0] for one in first.firings} == {"c-toy"}
    assert {one.concept.id.rpartition("-")[0] for one in second.firings} == {"c-toy@block_0"}
    assert first.items
    assert not first.no_items
    message = explain_response(second)
    assert (message.explainable, list(message.items)) == (True, [])
    assert message.no_items == "hook block_0 of model toy@block_0 can only be read: no scores follow from it"


def test_encode_and_observe_go_by_the_hook_of_the_batch(library: Library, triples: dict[str, Triple]) -> None:
    x = activations("ann", 6)
    encode = EncodeHandler(library)
    assert encode("toy", "block_0", MODEL_VERSION, x).triple == triples["toy@block_0"]
    assert encode("toy", "final", MODEL_VERSION, x).triple == triples["toy"]
    with pytest.raises(FailedPreconditionError, match="toy@block_1 version"):
        encode("toy", "block_1", MODEL_VERSION, x)
    arena, panes = CounterArena(), InMemoryPaneStore()
    observe = ObserveHandler(library, arena, metrics())
    sent = {("toy", "final"): 1, ("toy", "block_0"): 2, ("gru", "state"): 3, ("toy", "block_1"): 4}
    for (model, hook), rows in sent.items():
        accepted = observe(Observation(model, hook, MODEL_VERSION, x[:rows], None, f"{model}-{hook}"))
        assert accepted == (0 if hook == "block_1" else rows)
    arena.flush(panes)
    counted = {
        address: sum(pane.counters.n for pane in panes.read(Series(address, triple.sae_version), 0, FAR))
        for address, triple in triples.items()
    }
    assert counted == {"toy": 1, "toy@block_0": 2, "gru": 3}


def draft(model: str, concept: str, *operations: Operation) -> PolicyDraft:
    operation = Operation(concept, OperationKind.ADD, 0.5)
    return PolicyDraft("more of it", model, operations or (operation,), window=Window(end=FAR))


def create(handler: PoliciesHandler, asked: PolicyDraft, **more: Any) -> Any:
    query = CreateQuery(asked, "a test", "", b"", allow_outside_safe_range=True, **more)
    return handler.create(query, RequestInfo(request_id="r", principal="ann"))


def test_policies_of_two_models_do_not_meet_and_a_first_hook_may_be_named(library: Library) -> None:
    store = InMemoryPolicyStore()
    handler = PoliciesHandler(store, InMemoryTrail(), library)
    create(handler, draft("toy@final", "c-toy-3"))
    create(handler, draft("gru", "c-gru-3"))
    assert [policy.model for policy in handler.listed("", include_ended=True)] == ["toy", "gru"]
    board = PlanBoard(norm_budget=10.0, kill_switch=False)
    snapshot = store.snapshot()
    posting = board.post(snapshot.policies, snapshot.revision, library.shelf, 1.0)
    assert set(posting.steerers) == {("toy", MODEL_VERSION), ("gru", MODEL_VERSION)}
    for model in ("toy", "gru"):
        (policy,) = posting.steerers[model, MODEL_VERSION].plan.policies
        np.testing.assert_array_equal(policy.operations[0].decoder_row, library.model(model).sae.w_dec[3])


def test_a_hook_that_can_only_be_read_takes_no_policy_no_handle_and_no_preview(library: Library) -> None:
    handler = PoliciesHandler(InMemoryPolicyStore(), InMemoryTrail(), library)
    read_only = "hook block_0 of model toy@block_0 can only be read"
    with pytest.raises(FailedPreconditionError, match=read_only):
        create(handler, draft("toy@block_0", "c-toy@block_0-3"))
    with pytest.raises(FailedPreconditionError, match=read_only):
        create(handler, draft("toy@block_0", "c-toy@block_0-3"), handles=(HandleDose("genre=Horror", 1.0),))
    preview = PreviewHandler(library, ToyRecommender(hooks=HOOKS), norm_budget=10.0)
    operation = Operation("c-toy@block_0-3", OperationKind.ABLATE, 0.0)
    with pytest.raises(FailedPreconditionError, match=read_only):
        preview(PreviewQuery((operation,), "toy@block_0", Subject("ann")))


def test_no_plan_is_compiled_for_a_hook_that_can_only_be_read_and_its_activations_are_not_steered(
    library: Library,
) -> None:
    board = PlanBoard(norm_budget=10.0, kill_switch=False)
    posting = board.post((), 1, library.shelf, 1.0)
    assert [plan.model for plan in posting.of("toy").plans] == ["toy"]
    assert posting.of("toy@block_0").plans == ()
    steer = SteerHandler(board, library, metrics())
    x = activations("ann", 2)
    contexts = [SteerContext("ann")] * 2
    assert steer("toy", "final", MODEL_VERSION, x, contexts).receipts[0].reason is UnsteeredReason.NONE_MATCHED
    with pytest.raises(FailedPreconditionError, match="can only be read"):
        steer("toy", "block_0", MODEL_VERSION, x, contexts)
    other = steer("toy", "block_1", MODEL_VERSION, x, contexts)
    assert other.receipts[0].reason is UnsteeredReason.NO_SAE_FOR_MODEL
    assert other.activation is x


def test_a_policy_of_a_hook_that_became_read_only_is_suspended_with_the_reason(
    tmp_path: Path, library: Library
) -> None:
    store = InMemoryPolicyStore()
    create(PoliciesHandler(store, InMemoryTrail(), library), draft("gru", "c-gru-3"))
    later = library_of(tmp_path, {"gru": publish(tmp_path, "gru", hook="state", seed=2, steerable=False)})
    (policy,) = PoliciesHandler(store, InMemoryTrail(), later).listed("gru", include_ended=False)
    assert policy.state.value == "suspended"
    assert "hook state of gru can only be read" in policy.state_reason


def test_a_run_is_filed_under_the_address_its_hook_is_known_by(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "one.txt").write_text("1")
    artifacts = ArtifactStore(str(tmp_path / "store"))
    version = artifacts.publish("dataset", tmp_path / "data", config={}, lineage={})
    queue = InMemoryTaskQueue()
    handler = RunsHandler(InMemoryRunStore(), queue, artifacts, ToyRecommender(hooks=HOOKS))

    def started(model: str, control: str = "") -> RunConfig:
        return handler.start(RunConfig(model, version, control_model=control), "", Deadline()).config

    assert started("toy").model == "toy"
    assert started("toy@final").model == "toy"
    config = started("toy@block_0", "untrained@block_0")
    assert (config.model, config.control_model) == ("toy@block_0", "untrained@block_0")
    with pytest.raises(InvalidRequestError, match="no hook 'block_7'; its hooks are final, block_0"):
        started("toy@block_7")
