"""Steering by RPC: the same lists as in process, and a reason for each way an interpreter can be of no use."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.recommender.made_plans import DIM, K, ask, pairs, plans, reason_is, until

from recsae.rpc.client import ClientOptions, channel
from recsae.rpc.deadline import Deadline
from recsae.sae.export import encoder_graph
from recsae.sae.weights import SaeWeights
from recsae.sdk.remote import steer_by
from recsae.steering.breaker import Breaker, BreakerLimits, BreakerState
from recsae.steering.matching import SteerContext
from recsae.steering.policies import OperationKind, Scope, Window
from recsae.steering.receipts import UnsteeredReason
from recsae.steering.remote import RemoteLimits, RemoteSteering, SteerCall
from recsae.steering.wire_steer import MOST_ROWS, SteeredModel
from recsae.v1 import common_pb2
from recsae_recommender.app import RecommenderApp

Start = Callable[..., RecommenderApp]
LIMITS = BreakerLimits(failures=3, pause_s=0.1, longest_pause_s=0.2)
USERS = [f"u-{number}" for number in range(24)]
ANYONE = Scope()


@pytest.fixture
def remote(interpreter: Any, models: dict[str, str]) -> Iterator[Callable[..., RemoteSteering]]:
    made: list[RemoteSteering] = []

    def connected(calls: list[SteerCall] | None = None, timeout_s: float = 1.0) -> RemoteSteering:
        made.append(
            RemoteSteering(
                lambda: channel(interpreter.address, ClientOptions(retries=False)),
                SteeredModel("tiny", models["tiny"], "sequence"),
                limits=RemoteLimits(timeout_s),
                breaker=Breaker(LIMITS),
                on_call=(calls if calls is not None else []).append,
            )
        )
        assert made[-1].wait_until_connected(10)
        return made[-1]

    yield connected
    for one in made:
        one.close()


def exposed(app: RecommenderApp, name: str, **labels: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{app.metrics_port}/metrics", timeout=10) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    (value,) = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return float(value)


def rows(count: int) -> Any:
    return np.random.default_rng(1).standard_normal((count, DIM)).astype(np.float32)


def breaker_state(asking: RemoteSteering) -> BreakerState:
    return asking.breaker_state


def reasons(steered: Any) -> list[UnsteeredReason]:
    return [receipt.reason for receipt in steered.receipts]


def test_lists_and_receipts_are_those_of_a_plan_applied_in_process(
    start_recommender: Start, interpreter: Any, weights: SaeWeights, models: dict[str, str], connect: Any
) -> None:
    interpreter.give("plans", plans(models["tiny"], weights, revision=7))
    interpreter.hear("pushed")
    here = connect(start_recommender(interpreter=interpreter.address))
    until(lambda: ask(here, "u-1").receipt.plan_revision == 7)
    asking = start_recommender(interpreter=interpreter.address, steering="rpc", steer_timeout_s=5)
    there = connect(asking)
    with ThreadPoolExecutor(24) as pool:  # all at once: steered and unsteered users share batches
        expected, found = (list(pool.map(lambda user: ask(stub, user), USERS)) for stub in (here, there))  # noqa: B023
    assert sum(bool(one.receipt.applied) for one in expected) == 12
    for one, other in zip(expected, found, strict=True):
        assert one.receipt == other.receipt
        assert pairs(one) == pairs(other)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("no certificate", common_pb2.UNSTEERED_REASON_NO_CLIENT),
        ("no address", common_pb2.UNSTEERED_REASON_NO_CLIENT),
        ("nobody there", common_pb2.UNSTEERED_REASON_UNREACHABLE),
        ("hangs", common_pb2.UNSTEERED_REASON_DEADLINE),
        ("refuse RESOURCE_EXHAUSTED", common_pb2.UNSTEERED_REASON_OVERLOADED),
        ("refuse INTERNAL", common_pb2.UNSTEERED_REASON_ERROR),
        ("another version", common_pb2.UNSTEERED_REASON_VERSION_MISMATCH),
        ("too large a change", common_pb2.UNSTEERED_REASON_INVALID_CHANGE),
    ],
)
def test_whatever_the_interpreter_does_the_list_is_the_bare_one_and_the_receipt_says_which_it_was(
    start_recommender: Start,
    interpreter: Any,
    weights: SaeWeights,
    models: dict[str, str],
    connect: Any,
    tmp_path: Path,
    trouble: str,
    reason: int,
) -> None:
    bare = pairs(ask(connect(start_recommender(interpreter="")), "u-1"))
    settings = {"interpreter": interpreter.address, "steering": "rpc"}
    version = models["tiny"]
    more: dict[str, Any] = {}
    match trouble:
        case "no certificate":
            settings["peer_ca"] = str(tmp_path / "not-there.pem")
        case "no address":
            settings["interpreter"] = "interpreter"
        case "nobody there":
            settings["interpreter"] = "127.0.0.1:1"
        case "another version":
            version = "0" * 16
        case "too large a change":
            more = {"value": 40.0, "norm_budget": 1e6}
    interpreter.give("plans", plans(version, weights, **more))
    interpreter.hear("pushed")
    if trouble == "hangs":
        interpreter.tell("hang")
    elif trouble.startswith("refuse"):
        interpreter.tell(trouble)
        interpreter.hear("set")
    else:
        settings["steer_timeout_s"] = "5"  # nothing but what is meant stands in the way, on a busy machine too
    stub = connect(start_recommender(**settings))
    replies = [ask(stub, "u-1") for _ in range(3)]
    for reply in replies:
        assert reply.receipt.reason == reason
        assert not reply.receipt.applied
        assert reply.receipt.triple.model_version == models["tiny"]
        assert pairs(reply) == bare


def test_a_plan_follower_without_a_client_starts_and_says_so(
    start_recommender: Start, connect: Any, tmp_path: Path
) -> None:
    stub = connect(start_recommender(interpreter="127.0.0.1:1", peer_ca=str(tmp_path / "not-there.pem")))
    assert ask(stub, "u-1").receipt.reason == common_pb2.UNSTEERED_REASON_NO_CLIENT


def test_after_a_kill_the_breaker_opens_and_a_new_interpreter_is_found_by_itself(
    start_recommender: Start,
    start_interpreter: Callable[..., Any],
    interpreter: Any,
    weights: SaeWeights,
    models: dict[str, str],
    connect: Any,
) -> None:
    interpreter.give("plans", plans(models["tiny"], weights))
    interpreter.hear("pushed")
    app = start_recommender(interpreter=interpreter.address, steering="rpc", steer_timeout_s=5)
    stub = connect(app)
    assert ask(stub, "u-1").receipt.applied
    assert exposed(app, "recsae_steer_breaker", model="tiny") == BreakerState.CLOSED
    interpreter.kill()
    until(reason_is(stub, "u-1", common_pb2.UNSTEERED_REASON_UNREACHABLE))
    until(reason_is(stub, "u-1", common_pb2.UNSTEERED_REASON_BREAKER_OPEN))
    assert exposed(app, "recsae_steer_breaker", model="tiny") > BreakerState.CLOSED
    assert exposed(app, "recsae_steer_calls_total", model="tiny", outcome="unreachable") >= 5
    assert exposed(app, "recsae_steer_given_seconds_count", model="tiny") > 5
    again = start_interpreter(interpreter.port)
    again.give("encoder", encoder_graph(weights, K))
    again.give("plans", plans(models["tiny"], weights, revision=9))
    until(lambda: ask(stub, "u-1").receipt.plan_revision == 9)


def test_a_request_without_time_is_left_out_and_costs_its_neighbours_nothing(
    remote: Callable[..., RemoteSteering], interpreter: Any, weights: SaeWeights, models: dict[str, str]
) -> None:
    interpreter.give("plans", plans(models["tiny"], weights, scope=ANYONE, value=0.1))
    interpreter.hear("pushed")
    calls: list[SteerCall] = []
    x, anyone = rows(3), [SteerContext()] * 3
    deadlines = [Deadline.after(60), Deadline.after(0.004), Deadline()]
    steered = remote(calls, timeout_s=20).steer(x, anyone, None, deadlines)
    assert reasons(steered) == [UnsteeredReason.STEERED, UnsteeredReason.DEADLINE, UnsteeredReason.STEERED]
    assert steered.activation[1].tobytes() == x[1].tobytes()
    assert calls[0].given_s == 20
    remote(calls).steer(x, anyone, None, [Deadline.after(0.2), Deadline(), Deadline.after(60)])
    assert 0 < calls[1].given_s <= 0.195, "the least time of any of them, less what must be left for the list"


def test_a_row_that_is_not_finite_stays_as_it_is_and_its_neighbours_are_steered(
    remote: Callable[..., RemoteSteering], interpreter: Any, weights: SaeWeights, models: dict[str, str]
) -> None:
    interpreter.give("plans", plans(models["tiny"], weights, scope=ANYONE, value=0.1))
    interpreter.hear("pushed")
    x = rows(4)
    x[1, 3] = np.nan
    steered = remote().steer(x, [SteerContext()] * 3, [1, 1, 2])
    assert reasons(steered) == [UnsteeredReason.STEERED, UnsteeredReason.INVALID_CHANGE, UnsteeredReason.STEERED]
    assert steered.activation[1].tobytes() == x[1].tobytes()
    assert not np.array_equal(steered.activation[3], x[3])


def test_more_rows_than_one_call_may_hold_are_sent_in_several(
    remote: Callable[..., RemoteSteering], interpreter: Any, weights: SaeWeights, models: dict[str, str]
) -> None:
    interpreter.give("plans", plans(models["tiny"], weights, scope=ANYONE, value=0.1, kinds=(OperationKind.ADD,)))
    interpreter.hear("pushed")
    x = rows(MOST_ROWS + 50)
    steered = remote(timeout_s=20).steer(x, [SteerContext("a"), SteerContext("b")], [MOST_ROWS + 10, 40])
    assert reasons(steered) == [UnsteeredReason.STEERED] * 2
    assert np.allclose(steered.activation - x, 0.1 * weights.w_dec[0], atol=1e-6)


def test_deadlines_cut_short_by_the_caller_do_not_open_the_breaker_and_own_ones_do(
    remote: Callable[..., RemoteSteering], interpreter: Any, weights: SaeWeights, models: dict[str, str]
) -> None:
    asking = remote(timeout_s=0.05)
    interpreter.tell("hang")
    for _ in range(2 * LIMITS.failures):
        hurried = asking.steer(rows(1), [SteerContext()], None, [Deadline.after(0.02)])
        assert reasons(hurried) == [UnsteeredReason.DEADLINE]
    assert breaker_state(asking) is BreakerState.CLOSED
    for _ in range(LIMITS.failures):
        assert reasons(asking.steer(rows(1), [SteerContext()])) == [UnsteeredReason.DEADLINE]
    assert reasons(asking.steer(rows(1), [SteerContext()])) == [UnsteeredReason.BREAKER_OPEN]
    assert breaker_state(asking) is BreakerState.OPEN


def test_the_sdk_steers_any_python_recommender_by_address(
    interpreter: Any, weights: SaeWeights, models: dict[str, str]
) -> None:
    interpreter.give("plans", plans(models["tiny"], weights, value=0.1))
    interpreter.hear("pushed")
    with steer_by(interpreter.address, model="tiny", version=models["tiny"], hook="sequence", timeout_s=20) as steering:
        x = rows(2)
        contexts = [SteerContext("a", attributes={"country": country}) for country in ("DK", "SE")]
        steered = steering.steer(x, contexts)
    assert reasons(steered) == [UnsteeredReason.STEERED, UnsteeredReason.NONE_MATCHED]
    assert steered.activation[1].tobytes() == x[1].tobytes()
    nobody = steer_by("nowhere", model="tiny", version=models["tiny"], hook="sequence")
    assert reasons(nobody.steer(x, contexts)) == [UnsteeredReason.NO_CLIENT] * 2
    nobody.close()


def test_windows_are_judged_by_the_interpreters_clock(
    start_recommender: Start, interpreter: Any, weights: SaeWeights, models: dict[str, str], connect: Any
) -> None:
    interpreter.tell("clock 3600")  # seen from there, this replica's clock is an hour behind
    interpreter.hear("set")
    over = Window(end=time.time() + 1800)
    interpreter.give("plans", plans(models["tiny"], weights, window=over))
    app = start_recommender(interpreter=interpreter.address)
    stub = connect(app)
    until(lambda: ask(stub, "u-1").receipt.plan_revision == 1)
    assert exposed(app, "recsae_plan_clock_offset_seconds", model="tiny") == pytest.approx(3600, abs=5)
    assert ask(stub, "u-1").receipt.reason == common_pb2.UNSTEERED_REASON_NONE_MATCHED
    begun = Window(start=time.time() + 1800, end=time.time() + 7200)
    interpreter.give("plans", plans(models["tiny"], weights, revision=2, window=begun))
    until(lambda: ask(stub, "u-1").receipt.plan_revision == 2)
    assert ask(stub, "u-1").receipt.applied
