"""Steering in process, and the promise that the interpreter, whatever it does, fails no recommendation."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from tests.integration.recommender.made_plans import DICTIONARY, DIM, SAE, K, ask, pairs, plans, reason_is, until

from recsae.sae.export import encoder_graph
from recsae.sae.weights import SaeWeights
from recsae.steering.policies import Window
from recsae.v1 import common_pb2, steering_pb2
from recsae_recommender.app import RecommenderApp

Start = Callable[..., RecommenderApp]
StartInterpreter = Callable[..., Any]


def test_policy_steers_those_it_names_and_leaves_neighbours_bit_for_bit(
    start_recommender: Start, interpreter: Any, weights: SaeWeights, models: dict[str, str], connect: Any
) -> None:
    users = [f"u-{number}" for number in range(24)]
    bare_stub = connect(start_recommender(interpreter=""))
    bare = {user: pairs(ask(bare_stub, user)) for user in users}
    interpreter.give("plans", plans(models["tiny"], weights, revision=7))
    stub = connect(start_recommender(interpreter=interpreter.address))
    until(lambda: ask(stub, "u-1").receipt.plan_revision == 7)
    with ThreadPoolExecutor(24) as pool:  # all at once: steered and unsteered users share batches
        for _ in range(10):
            replies = dict(zip(users, pool.map(lambda user: ask(stub, user), users), strict=True))
            for number, user in enumerate(users):
                receipt = replies[user].receipt
                if number % 2:
                    assert pairs(replies[user]) != bare[user]
                    assert [(one.policy_id, one.revision) for one in receipt.applied] == [("p-1", 3)]
                    assert receipt.delta_norm > 0
                else:
                    assert pairs(replies[user]) == bare[user]
                    assert receipt.reason == common_pb2.UNSTEERED_REASON_NONE_MATCHED
                    assert receipt.delta_norm == 0
                assert receipt.triple == common_pb2.Triple(
                    model_version=models["tiny"], sae_version=SAE, dictionary_version=DICTIONARY
                )


def test_deleting_the_policy_restores_the_original_list_bit_for_bit(
    start_recommender: Start, interpreter: Any, weights: SaeWeights, models: dict[str, str], connect: Any
) -> None:
    bare = pairs(ask(connect(start_recommender(interpreter="")), "u-3"))
    interpreter.give("plans", plans(models["tiny"], weights))
    stub = connect(start_recommender(interpreter=interpreter.address))
    until(lambda: bool(ask(stub, "u-3").receipt.applied))
    assert pairs(ask(stub, "u-3")) != bare
    interpreter.give("plans", plans(models["tiny"], weights, revision=2, kinds=()))
    until(lambda: ask(stub, "u-3").receipt.plan_revision == 2)
    assert pairs(ask(stub, "u-3")) == bare


def test_request_attributes_override_the_stored_ones(
    start_recommender: Start, interpreter: Any, weights: SaeWeights, models: dict[str, str], connect: Any
) -> None:
    interpreter.give("plans", plans(models["tiny"], weights))
    stub = connect(start_recommender(interpreter=interpreter.address))
    until(lambda: bool(ask(stub, "u-1").receipt.applied))
    danish, swedish = ({"country": common_pb2.AttributeValue(text=country)} for country in ("DK", "SE"))
    assert ask(stub, "u-0", attributes=danish).receipt.applied
    assert not ask(stub, "u-1", attributes=swedish).receipt.applied


def test_killing_the_interpreter_fails_no_call_and_the_last_plan_holds_until_too_old(
    start_recommender: Start,
    start_interpreter: StartInterpreter,
    interpreter: Any,
    weights: SaeWeights,
    models: dict[str, str],
    connect: Any,
) -> None:
    interpreter.give("plans", plans(models["tiny"], weights))
    stub = connect(start_recommender(interpreter=interpreter.address, plan_max_age_s=2))
    until(lambda: bool(ask(stub, "u-1").receipt.applied))
    reasons: list[int] = []
    killed_at = 0.0
    end = time.monotonic() + 4
    while time.monotonic() < end:  # any failed call would raise here
        reply = ask(stub, "u-1")
        assert len(reply.items) == 10
        if killed_at:
            reasons.append(reply.receipt.reason)
        elif len(reply.receipt.applied):
            interpreter.kill()
            killed_at = time.monotonic()
    assert reasons[0] == common_pb2.UNSTEERED_REASON_UNSPECIFIED  # the last good plan
    assert reasons[-1] == common_pb2.UNSTEERED_REASON_PLAN_TOO_OLD
    again = start_interpreter(interpreter.port)
    again.give("encoder", encoder_graph(weights, K))
    again.give("plans", plans(models["tiny"], weights, revision=9))
    until(lambda: ask(stub, "u-1").receipt.plan_revision == 9)
    assert ask(stub, "u-1").receipt.applied


def test_interpreter_that_never_answers_fails_no_call(start_recommender: Start, interpreter: Any, connect: Any) -> None:
    interpreter.tell("hang")
    stub = connect(start_recommender(interpreter=interpreter.address))
    for number in range(50):
        reply = ask(stub, f"u-{number % 24}")
        assert reply.receipt.reason == common_pb2.UNSTEERED_REASON_NO_PLAN


def test_interpreter_that_is_not_there_delays_no_start(start_recommender: Start, connect: Any) -> None:
    stub = connect(start_recommender(interpreter="127.0.0.1:1"))
    assert ask(stub, "u-1").receipt.reason == common_pb2.UNSTEERED_REASON_NO_PLAN


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("wrong row length", common_pb2.UNSTEERED_REASON_NO_PLAN),
        ("infinite value", common_pb2.UNSTEERED_REASON_NO_PLAN),
        ("another model version", common_pb2.UNSTEERED_REASON_NO_SAE_FOR_MODEL),
        ("over the norm budget", common_pb2.UNSTEERED_REASON_OVER_NORM_BUDGET),
        ("kill switch", common_pb2.UNSTEERED_REASON_KILL_SWITCH),
        ("past its end", common_pb2.UNSTEERED_REASON_NONE_MATCHED),
        ("encoder does not match its checksum", common_pb2.UNSTEERED_REASON_ERROR),
        ("encoder is no graph", common_pb2.UNSTEERED_REASON_ERROR),
        ("encoder of another width of activation", common_pb2.UNSTEERED_REASON_ERROR),
    ],
)
def test_wrong_plans_are_served_unsteered_and_the_receipt_says_why(
    start_recommender: Start,
    interpreter: Any,
    weights: SaeWeights,
    models: dict[str, str],
    connect: Any,
    damage: str,
    reason: int,
) -> None:
    bare = pairs(ask(connect(start_recommender(interpreter="")), "u-1"))
    interpreter.give("plans", _damaged(damage, interpreter, weights, models["tiny"]))
    stub = connect(start_recommender(interpreter=interpreter.address))
    until(reason_is(stub, "u-1", reason))
    for _ in range(5):
        reply = ask(stub, "u-1")
        assert reply.receipt.reason == reason
        assert not reply.receipt.applied
        assert pairs(reply) == bare


def _damaged(damage: str, interpreter: Any, weights: SaeWeights, version: str) -> bytes:
    match damage:
        case "another model version":
            return plans("0" * 16, weights)
        case "over the norm budget":
            return plans(version, weights, value=1e4)
        case "kill switch":
            return plans(version, weights, kill_switch=True)
        case "past its end":
            return plans(version, weights, window=Window(end=time.time() - 1))
        case "encoder does not match its checksum":
            interpreter.tell(f"sha256 {'0' * 64}")
        case "encoder is no graph":
            interpreter.give("encoder", b"not a graph")
        case "encoder of another width of activation":
            other = np.eye(24, dtype=np.float32)
            zeros = np.zeros(24, dtype=np.float32)
            wide = SaeWeights(w_enc=other, b_enc=zeros, w_dec=other, b_dec=zeros, mean=zeros)
            interpreter.give("encoder", encoder_graph(wide, K))
        case _:
            message = steering_pb2.PlanSet.FromString(plans(version, weights))
            operation = message.plans[0].policies[0].operations[0]
            if damage == "wrong row length":
                operation.decoder_row.data = operation.decoder_row.data[:-4]
                operation.decoder_row.shape[0] = DIM - 1
            else:
                operation.value = float("inf")
            return message.SerializeToString()
    return plans(version, weights)


def test_local_kill_switch_switches_all_steering_off(
    start_recommender: Start, interpreter: Any, weights: SaeWeights, models: dict[str, str], connect: Any
) -> None:
    interpreter.give("plans", plans(models["tiny"], weights))
    stub = connect(start_recommender(interpreter=interpreter.address, kill_switch="true"))
    assert ask(stub, "u-1").receipt.reason == common_pb2.UNSTEERED_REASON_KILL_SWITCH


def test_every_sampled_request_is_observed_once_with_its_steered_flag(
    start_recommender: Start, interpreter: Any, weights: SaeWeights, models: dict[str, str], connect: Any
) -> None:
    interpreter.give("plans", plans(models["tiny"], weights))
    interpreter.hear("pushed")
    stub = connect(start_recommender(interpreter=interpreter.address))
    replies = [ask(stub, f"u-{number % 24}") for number in range(48)]
    expected = sum(bool(reply.receipt.applied) for reply in replies)
    assert expected == 24
    rows = steered = 0
    while rows < 48:
        _, more, of_them = interpreter.hear("observed").split()
        rows, steered = rows + int(more), steered + int(of_them)
    assert (rows, steered) == (48, expected)
