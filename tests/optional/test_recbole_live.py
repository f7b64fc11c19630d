"""RecBole's own models plugged in live, in RecBole's own process, beside a real interpreter: see live_recbole.py.

`make recbole-test` installs RecBole and runs this.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.integration.interpreter.conftest import MODEL, Published, Stubs, publish_triple
from tests.optional.conftest import ROOT, recbole_environment

from recsae.pipeline.recommender_client import RecommenderClient
from recsae.pipeline.triples import Triple
from recsae.rpc.tensors import from_tensor
from recsae.steering.policies import Window
from recsae.steering.wire import window_message
from recsae.store.artifacts import ArtifactStore
from recsae.v1 import common_pb2, recommender_pb2, steering_pb2
from recsae_interpreter.app import InterpreterApp

SERVER = Path(__file__).with_name("live_recbole.py")
SEQUENTIAL = ("SASRec", "GRU4Rec")
CALL_S = 30

Floats = NDArray[np.float32]


class Answer(NamedTuple):
    """What the live server said of its rows: why each was steered or not, and the bytes of its scores."""

    reasons: list[str]
    error: str
    steered: list[str]
    bare: list[str]
    outside: list[str]


class Live:
    """A RecBole model in a process of its own, with its ids in the order of its indices."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        ready = self._line().split()
        assert ready[0] == "ready"
        self.port, self.version = int(ready[1]), ready[2]
        ids = json.loads((folder / "ids.json").read_bytes())
        self.items, self.users = ids["items"], ids["users"]
        self.histories = [self.items[at : at + length] for at, length in ((3, 5), (50, 1), (20, 8))]

    @property
    def asked_of(self) -> list[str]:
        """The three users that are asked about."""
        return [str(user) for user in self.users[4:7]]

    def ask(self) -> Answer:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"users": self.asked_of, "histories": self.histories}) + "\n")
        self._process.stdin.flush()
        return Answer(**json.loads(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the live server ended"
        return line


@pytest.fixture(params=["SASRec", "GRU4Rec", "BPR", "LightGCN"])
def live(
    request: pytest.FixtureRequest, recbole_python: str, tmp_path: Path, interpreter: InterpreterApp
) -> Iterator[tuple[str, Live]]:
    command = [recbole_python, str(SERVER), request.param, str(tmp_path), f"127.0.0.1:{interpreter.server.port}"]
    with (tmp_path / "errors").open("w+") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=recbole_environment(),
            cwd=ROOT,
        )
        try:
            yield request.param, Live(process, tmp_path)
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                stream.close()
            errors.seek(0)
            sys.stderr.write(errors.read())


@pytest.fixture
def interpreter(start_interpreter: Callable[..., InterpreterApp]) -> InterpreterApp:
    return start_interpreter()


def floats(row: str) -> Floats:
    return np.frombuffer(bytes.fromhex(row), np.float32)


def policy(user: str, value: float) -> steering_pb2.CreatePolicyRequest:
    add = steering_pb2.Operation(concept_id="c-0-3", kind=steering_pb2.OPERATION_KIND_ADD, value=value)
    return steering_pb2.CreatePolicyRequest(
        policy=steering_pb2.Policy(
            name="test",
            model=MODEL,
            operations=[add],
            scope=steering_pb2.Scope(user_ids=[user]),
            window=window_message(Window(end=time.time() + 600)),
        ),
        reason="a test",
    )


def until(live: Live, reasons: list[str]) -> Answer:
    """The first answer with these reasons: what another process's thread does has no event here."""
    started = time.monotonic()
    while (answer := live.ask()).reasons != reasons:
        assert time.monotonic() < started + 30, (answer.reasons, answer.error)
    return answer


def exported_batch(stubs: Stubs, live: Live, name: str) -> common_pb2.ActivationBatch:
    """The activations of the three who are asked about, as anybody may export them."""
    histories = live.histories if name in SEQUENTIAL else [[], [], []]
    subjects = [
        recommender_pb2.Subject(user_id=user, history=common_pb2.History(item_ids=history))
        for user, history in zip(live.asked_of, histories, strict=True)
    ]
    request = recommender_pb2.ExportActivationsRequest(
        model=MODEL,
        positions=recommender_pb2.POSITIONS_LAST,
        subjects=recommender_pb2.SubjectList(subjects=subjects),
    )
    return stubs.exporter.ExportActivations(request, timeout=CALL_S).batch


def check_ranked(client: RecommenderClient, live: Live, x: Floats, rows: list[str]) -> None:
    """The exporter ranks activations as RecBole scores: the same scores and the same items."""
    for ranked, row in zip(client.rank(client.describe(MODEL), x, 10, [[]] * len(x)), rows, strict=True):
        scores = floats(row)[1:]
        np.testing.assert_allclose(ranked.scores, np.sort(scores)[::-1][:10], atol=1e-5)
        np.testing.assert_allclose(
            [scores[live.items.index(item)] for item in ranked.item_ids], ranked.scores, atol=1e-5
        )


def test_a_live_recbole_model_is_read_and_steered_and_otherwise_what_it_was_bit_for_bit(
    live: tuple[str, Live],
    interpreter: InterpreterApp,
    published: Published,
    point: Callable[[Triple], None],
    stubs: Callable[[int], Stubs],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    name, served = live
    before = served.ask()
    assert before.steered == before.outside == before.bare

    theirs, ours = stubs(served.port), stubs(interpreter.server.port)
    client = RecommenderClient(theirs.channel)
    model = client.describe(MODEL)
    assert (model.version, model.item_count) == (served.version, len(served.items))
    batch = exported_batch(theirs, served, name)
    x = from_tensor(batch.activations, name="x")
    check_ranked(client, served, x, before.bare)

    point(publish_triple(ArtifactStore(str(published.root)), tmp_path_factory, served.version, 0))
    until(served, ["none_matched"] * 3)
    # Of the activation's length: vectors of a matrix factorisation are short after an epoch, and the budget is theirs.
    little = 0.1 * float(np.linalg.norm(x[1]))
    created = ours.steering.CreatePolicy(policy(served.asked_of[1], little), timeout=CALL_S)
    found = until(served, ["none_matched", "steered", "none_matched"])
    assert not found.error
    assert [found.steered[0], found.steered[2]] == [before.bare[0], before.bare[2]]
    assert found.steered[1] != before.bare[1]
    assert found.outside == found.bare == before.bare
    contexts = [steering_pb2.SteerContext(user_id=user) for user in served.asked_of]
    by_rpc = ours.steering.Steer(steering_pb2.SteerRequest(batch=batch, contexts=contexts), timeout=CALL_S)
    check_ranked(client, served, from_tensor(by_rpc.activations, name="x'"), found.steered)

    ours.steering.DeletePolicy(steering_pb2.DeletePolicyRequest(policy_id=created.policy.id, reason="over"))
    assert until(served, ["none_matched"] * 3).steered == before.bare
