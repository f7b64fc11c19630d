"""How long a plan counts as confirmed: the interpreter vouches for plans only while it can read its own state."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from recsae.steering.follower import PlanFollower
from recsae.steering.receipts import UnsteeredReason
from recsae.v1 import steering_pb2

Start = Callable[..., Any]
MODEL = "tiny"


def test_plans_are_not_confirmed_while_the_state_server_is_gone(
    start_interpreter: Start, stubs: Start, redis_server: Any, published: Any
) -> None:
    app = start_interpreter(state_url=redis_server.url, bus_url=redis_server.url, state_max_age_s=1)
    follower = PlanFollower(stubs(app.server.port).channel, MODEL, published.model_version, watcher="test").start()
    try:
        deadline = time.monotonic() + 10
        while follower.current() is not UnsteeredReason.NO_SAE_FOR_MODEL:
            assert time.monotonic() < deadline, "no plan came"
            time.sleep(0.02)
        redis_server.kill()
        deadline = time.monotonic() + 20
        while follower.age_s < 4:  # longer than two heartbeats
            assert time.monotonic() < deadline, "the age of the plan never grew"
            time.sleep(0.05)
        with pytest.raises(grpc.RpcError, match="state server did not answer") as refused:
            stubs(app.server.port).steering.ListPolicies(steering_pb2.ListPoliciesRequest())
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        redis_server.start()
        deadline = time.monotonic() + 20
        while follower.age_s > 2:
            assert time.monotonic() < deadline, "the plan was not confirmed again"
            time.sleep(0.05)
    finally:
        follower.close()
