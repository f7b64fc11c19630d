"""Live torch models beside a real interpreter, through the SDK: exported, explained, steered, and left as they were."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.integration.interpreter.conftest import MODEL, publish_triple
from tests.unit.torch_models import ITEM_IDS, MAX_HISTORY, USER_IDS, Gru, Matrix, Sasrec, seeded

from recsae.pipeline import sources
from recsae.pipeline.recommender_client import RecommenderClient
from recsae.pipeline.triples import Triple
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.sdk.exporter import Exporter
from recsae.sdk.subjects import Subject
from recsae.sdk.torch import SteerContext, Tap, attach
from recsae.steering.policies import Window
from recsae.steering.receipts import UnsteeredReason
from recsae.steering.wire import window_message
from recsae.store.artifacts import ArtifactStore
from recsae.v1 import common_pb2, interpreter_pb2, steering_pb2

ROOT = Path(__file__).parents[3]
SEED = 0
KNOWN = ((3, 9, 7), (1,), (5, 6, 7, 8))
LENGTHS = torch.tensor([3, 1, 4])
PADDED = torch.tensor([[*one, *[0] * (MAX_HISTORY - len(one))] for one in KNOWN])
HISTORIES = [[f"i-{item}" for item in one] for one in KNOWN]
CONTEXTS = [SteerContext(user) for user in ("u-1", "u-2", "u-3")]


Promote = Callable[[str], None]


@dataclass(frozen=True)
class Live:
    """A torch model as its own server holds it: how it is called, and what the SDK put on it."""

    model: Any
    tap: Tap
    exporter: Exporter
    inputs: tuple[torch.Tensor, ...]

    def scores(self) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = self.model(*self.inputs)
        return found


def sasrec() -> Live:
    model = seeded(Sasrec())
    tap = attach(model, "norm", row="last", hook="sequence")
    exporter = tap.exporter(
        name=MODEL,
        items=ITEM_IDS,
        embed=lambda batch: model(batch.history),
        item_vectors=model.items.weight[1:],
        max_history=MAX_HISTORY,
    )
    return Live(model, tap, exporter, (PADDED,))


def gru() -> Live:
    model = seeded(Gru())
    tap = attach(model, "gru", row="last", hook="sequence")
    exporter = tap.exporter(
        name=MODEL,
        items=ITEM_IDS,
        embed=lambda batch: model(batch.history, batch.lengths),
        head=lambda x: x @ model.items.weight[1:].T,
        max_history=MAX_HISTORY,
    )
    return Live(model, tap, exporter, (PADDED, LENGTHS))


def matrix() -> Live:
    model = seeded(Matrix())
    tap = attach(model, "users", hook="sequence")
    exporter = tap.exporter(
        name=MODEL,
        items={one: place for place, one in enumerate(ITEM_IDS)},
        users={one: place for place, one in enumerate(USER_IDS)},
        embed=lambda batch: model(batch.user),
        item_vectors=model.items.weight,
        item_bias=model.bias,
        reads_history=False,
    )
    return Live(model, tap, exporter, (torch.tensor([1, 2, 3]),))


@pytest.fixture(params=[sasrec, gru, matrix])
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    made = request.param()
    yield made
    made.tap.close()


@pytest.fixture
def promoted(published: Any, tmp_path_factory: pytest.TempPathFactory, point: Callable[[Triple], None]) -> Promote:
    """Publishes an SAE and a dictionary of a model version and points production at them."""

    def of(version: str) -> None:
        point(publish_triple(ArtifactStore(str(published.root)), tmp_path_factory, version, SEED))

    return of


def policy(kind: Any = steering_pb2.OPERATION_KIND_ADD, value: float = 2.0) -> steering_pb2.CreatePolicyRequest:
    return steering_pb2.CreatePolicyRequest(
        policy=steering_pb2.Policy(
            name="test",
            model=MODEL,
            operations=[steering_pb2.Operation(concept_id=f"c-{SEED}-3", kind=kind, value=value)],
            scope=steering_pb2.Scope(user_ids=["u-2"]),
            window=window_message(Window(end=time.time() + 600)),
        ),
        reason="because",
    )


def until(claim: Callable[[], bool], seconds: float = 10.0) -> float:
    """Seconds until a claim held: what another process's thread does has no event here."""
    start = time.monotonic()
    while not claim():
        assert time.monotonic() < start + seconds, "it never became true"
        time.sleep(0.005)
    return time.monotonic() - start


def test_the_pipeline_reads_what_the_live_model_computes(live: Live, stubs: Any) -> None:
    with live.exporter.serve() as serving:
        client = RecommenderClient(stubs(serving.port).channel)
        model = client.describe(MODEL)
        assert (model.version, model.item_count) == (live.exporter.version, len(ITEM_IDS))
        if live.exporter.card.reads_history:
            asked = [sources.Subject(tuple(history)) for history in HISTORIES]
            last = client.last_position(model, asked)
            every = client.every_position(model, asked)
            np.testing.assert_allclose(every[[2, 3, 7]], last, atol=1e-5)
            items = np.concatenate([page.activations for page in client.items(model)])
            np.testing.assert_allclose(items[0], last[1], atol=1e-6)
        else:
            last = client.last_position(model, [sources.Subject(user_id=user) for user in USER_IDS[1:4]])
            np.testing.assert_array_equal(last, live.model.users.weight[1:4].detach().numpy())
        scores = live.scores().numpy()[:, -len(ITEM_IDS) :]
        ranked = client.rank(model, last, 5, [[]] * 3)
        for one, row in zip(ranked, scores, strict=True):
            assert list(one.item_ids) == [ITEM_IDS[place] for place in np.argsort(-row, kind="stable")[:5]]
            np.testing.assert_allclose(one.scores, np.sort(row)[::-1][:5], atol=1e-5)


def test_a_policy_steers_the_live_model_within_a_second_and_its_deletion_restores_it_bit_for_bit(
    live: Live, promoted: Any, start_interpreter: Any, stubs: Any
) -> None:
    promoted(live.exporter.version)
    app = start_interpreter()
    steering = stubs(app.server.port).steering
    bare = live.scores()
    live.tap.follow(f"127.0.0.1:{app.server.port}")
    assert live.tap.wait_for_plan(10)
    created = steering.CreatePolicy(policy())

    def asked() -> Any:
        with live.tap.steering(CONTEXTS) as found:
            scores = live.scores()
        return found, scores

    assert until(lambda: asked()[0].reason is UnsteeredReason.STEERED) < 1.0
    found, scores = asked()
    assert [one.reason is UnsteeredReason.STEERED for one in found.receipts] == [False, True, False]
    assert found.applied[0].policy_id == created.policy.id
    assert found.receipt.triple.model_version == live.exporter.version
    assert torch.equal(scores[[0, 2]], bare[[0, 2]])
    assert not torch.equal(scores[1], bare[1])
    assert torch.equal(live.scores(), bare)
    deleted = steering.DeletePolicy(steering_pb2.DeletePolicyRequest(policy_id=created.policy.id, reason="over"))
    assert until(lambda: live.tap.plan_revision >= deleted.plan_revision) < 1.0
    found, scores = asked()
    assert found.reason is UnsteeredReason.NONE_MATCHED
    assert torch.equal(scores, bare)


def test_an_operation_that_reads_latents_changes_rows_as_the_interpreters_own_steer(
    promoted: Any, start_interpreter: Any, stubs: Any
) -> None:
    live = gru()
    promoted(live.exporter.version)
    app = start_interpreter()
    steering = stubs(app.server.port).steering
    with live.tap:
        live.tap.follow(f"127.0.0.1:{app.server.port}")
        created = steering.CreatePolicy(policy(steering_pb2.OPERATION_KIND_SET, 3.0))
        until(lambda: live.tap.plan_revision >= created.plan_revision)
        subjects = [Subject(item_ids=ITEM_IDS[:length]) for length in (3, 2, 1)]
        x = live.exporter.export(subjects).exported.activations
        kept: list[torch.Tensor] = []
        live.model.gru.register_forward_hook(lambda *call: kept.append(call[2][0]))
        history = torch.tensor([[1, 2, 3], [1, 2, 0], [1, 0, 0]])
        with live.tap.steering(CONTEXTS) as found, torch.no_grad():
            live.model(history, torch.tensor([3, 2, 1]))
    assert found.reason is UnsteeredReason.STEERED
    batch = common_pb2.ActivationBatch(model=MODEL, model_version=live.exporter.version, activations=to_tensor(x))
    contexts = [steering_pb2.SteerContext(user_id=one.user_id) for one in CONTEXTS]
    by_rpc = steering.Steer(steering_pb2.SteerRequest(batch=batch, contexts=contexts))
    newest = kept[0][torch.arange(3), torch.tensor([2, 1, 0])].numpy()
    np.testing.assert_allclose(newest, from_tensor(by_rpc.activations, name="x'"), atol=1e-5)


def test_a_user_of_the_live_model_is_explained_with_the_scores_it_gives(
    promoted: Any, start_interpreter: Any, stubs: Any
) -> None:
    live = sasrec()
    promoted(live.exporter.version)
    with live.tap, live.exporter.serve() as serving:
        app = start_interpreter(recommenders=f"127.0.0.1:{serving.port}")
        history = common_pb2.History(item_ids=HISTORIES[0])
        asked = interpreter_pb2.ExplainRequest(history=history, concept_limit=3)
        explained = stubs(app.server.port).interpreter.Explain(asked, timeout=20)
    scores = live.scores()[0, 1:].numpy()
    assert len(explained.firings) == 3
    shown = {one.item.item_id: one.item.score for one in explained.items}
    assert shown
    for item_id, score in shown.items():
        assert score == pytest.approx(float(scores[ITEM_IDS.index(item_id)]), abs=1e-4)


def test_without_its_interpreter_the_model_is_unsteered_and_bit_for_bit_what_it_was(
    promoted: Any, start_interpreter: Any, stubs: Any
) -> None:
    live = sasrec()
    promoted(live.exporter.version)
    app = start_interpreter()
    bare = live.scores()
    with live.tap:
        live.tap.follow(f"127.0.0.1:{app.server.port}", max_age_s=3.0)
        stubs(app.server.port).steering.CreatePolicy(policy())

        def reason() -> UnsteeredReason:
            with live.tap.steering(user_id="u-2") as found:
                live.scores()
            return found.reason

        until(lambda: reason() is UnsteeredReason.STEERED)
        app.stop()
        until(lambda: reason() is UnsteeredReason.PLAN_TOO_OLD, 20)
        with live.tap.steering(user_id="u-2") as found:
            assert torch.equal(live.scores(), bare)
        assert not found.applied


def test_the_plan_of_another_version_is_not_applied(promoted: Any, start_interpreter: Any, stubs: Any) -> None:
    live, retrained = sasrec(), sasrec()
    promoted(live.exporter.version)
    app = start_interpreter()
    with retrained.tap as tap:
        bare = retrained.scores()
        tap.follow(f"127.0.0.1:{app.server.port}", model=MODEL, version="f" * 16)
        created = stubs(app.server.port).steering.CreatePolicy(policy())
        until(lambda: tap.plan_revision >= created.plan_revision)
        with tap.steering(user_id="u-2") as found:
            assert torch.equal(retrained.scores(), bare)
    assert found.reason is UnsteeredReason.NO_SAE_FOR_MODEL
    assert found.receipt.triple.model_version == "f" * 16


def test_live_activations_reach_the_interpreter_for_drift(promoted: Any, start_interpreter: Any) -> None:
    live = sasrec()
    promoted(live.exporter.version)
    app = start_interpreter()
    bare = live.scores()
    with live.tap:
        live.tap.follow(f"127.0.0.1:{app.server.port}")
        assert live.tap.wait_for_plan(10)
        sampler = live.tap.observe(share=1.0)
        for _ in range(4):
            assert torch.equal(live.scores(), bare)
        until(lambda: sampler.sent == 12)
        assert not sampler.dropped


def test_the_example_server_is_steered_and_goes_on_alone(promoted: Any, start_interpreter: Any, stubs: Any) -> None:
    app = start_interpreter()
    command = [
        sys.executable,
        str(ROOT / "examples" / "torch_server.py"),
        "127.0.0.1:0",
        f"127.0.0.1:{app.server.port}",
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdin is not None
    assert process.stdout is not None

    def asked(user: str) -> list[str]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{user} i-3 i-7\n")
        return process.stdout.readline().split()

    try:
        _, port, version = process.stdout.readline().split()
        assert RecommenderClient(stubs(int(port)).channel).describe("tiny").version == version
        promoted(version)
        until(lambda: asked("u-2")[0] == "none_matched")
        bare = asked("u-2")
        stubs(app.server.port).steering.CreatePolicy(policy(value=2.0))
        until(lambda: asked("u-2")[0] == "steered")
        assert asked("u-2")[1:] != bare[1:]
        assert asked("u-9") == bare
        process.stdin.close()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
