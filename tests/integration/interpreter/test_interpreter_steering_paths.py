"""One contract for both ways to steer: a plan held by the recommender, and the interpreter asked by RPC."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from recsae.sdk.remote import steer_by
from recsae.steering.delta import Steered, Steerer
from recsae.steering.follower import PlanFollower
from recsae.steering.matching import SteerContext
from recsae.steering.policies import Operation, OperationKind, Policy, PolicyState, Scope, Window
from recsae.steering.receipts import Receipt, UnsteeredReason
from recsae.steering.remote import RemoteSteering
from recsae.steering.segments import AnyOf, Equals, Not, Range
from recsae.steering.wire_plans import receipt_from, receipt_message
from recsae.store.channels import PRODUCTION
from recsae.store.channels_redis import RedisChannelStore
from recsae.store.events import change_now
from recsae.store.redis import connect

Start = Callable[..., Any]
MODEL, HOOK, DIM = "tiny", "sequence", 16
REVISION = 1_000  # above whatever the state server says


def policy(number: int, *operations: Operation, state: PolicyState = PolicyState.LIVE, **scope: Any) -> Policy:
    return Policy(
        id=f"p-{number}",
        name=f"policy {number}",
        model=MODEL,
        operations=operations,
        scope=Scope(**scope),
        window=Window(end=time.time() + 600),
        priority=number,
        state=state,
        salt=f"salt-{number}",
        created_at=0.0,
        updated_at=0.0,
        created_by="test",
    )


def on(latent: int, kind: OperationKind, value: float) -> Operation:
    return Operation(f"c-0-{latent}", kind, value)


IN_DENMARK = AnyOf((Equals("country", "DK"), Not(Range("age", 0, 40))))
POLICIES = (
    policy(1, on(1, OperationKind.ADD, 1.5), on(2, OperationKind.ABLATE, 0), segment=IN_DENMARK),
    policy(2, on(3, OperationKind.SCALE, 2.5), on(4, OperationKind.SET, 0.7), user_ids=("u-1", "u-3", "u-5")),
    policy(3, on(5, OperationKind.CAP, 0.2), on(1, OperationKind.ADD, -2.0), rollout_percent=50),
    policy(4, on(6, OperationKind.ADD, 5.0), state=PolicyState.SHADOW, rollout_percent=60),
    policy(5, on(7, OperationKind.ADD, 9.0), on(8, OperationKind.ADD, 9.0), user_ids=("u-7",)),  # over the budget
    policy(6, on(9, OperationKind.ADD, 3.0), state=PolicyState.DRAFT),
)


def contexts() -> list[SteerContext]:
    """With and without users, of both countries, with an age that is sometimes not known."""
    made = []
    for row in range(48):
        attributes: dict[str, Any] = {"country": "DK" if row % 3 else "SE"}
        if row % 4:
            attributes["age"] = float(row)
        made.append(SteerContext(f"u-{row}" if row % 5 else "", f"request-{row}", attributes))
    return made


CONTEXTS = contexts()


@pytest.fixture
def both(
    start_interpreter: Start, stubs: Start, promote: Start, published: Any, swapped: Start
) -> Iterator[tuple[PlanFollower, RemoteSteering]]:
    """A follower that holds the plan of POLICIES, and the same interpreter asked by RPC."""
    promote(0)
    app = start_interpreter()
    served = stubs(app.server.port)
    swapped(served, 0)
    app._board.post(POLICIES, REVISION, app._library.shelf, time.time())
    follower = PlanFollower(served.channel, MODEL, published.model_version, watcher="test").start()
    address = f"127.0.0.1:{app.server.port}"
    with steer_by(address, model=MODEL, version=published.model_version, hook=HOOK, timeout_s=10) as remote:
        assert follower.wait_for_revision(REVISION, 10)
        yield follower, remote
    follower.close()


def in_process(follower: PlanFollower, x: Any, of: list[SteerContext], sizes: list[int] | None = None) -> Steered:
    plan = follower.current()
    assert isinstance(plan, Steerer)
    return plan.steer(x, of, follower.now()) if sizes is None else plan.steer_groups(x, of, sizes, follower.now())


def travelled(receipts: tuple[Receipt, ...]) -> list[Receipt]:
    """As whoever asked for the list sees them: numbers travel in float32."""
    return [receipt_from(receipt_message(receipt)) for receipt in receipts]


def untold(receipt: Receipt) -> Receipt:
    """Without the size of a shadow: which of several rows tells it hangs on numbers that do not travel."""
    shadow = receipt.shadow
    return receipt if shadow is None else replace(receipt, shadow=replace(shadow, delta_norm=0.0, delta_share=0.0))


def rows(count: int) -> Any:
    return np.random.default_rng(2).standard_normal((count, DIM)).astype(np.float32)


def test_rows_and_receipts_agree_for_every_operation_segment_rollout_shadow_and_control_group(
    both: tuple[PlanFollower, RemoteSteering],
) -> None:
    follower, remote = both
    x = rows(len(CONTEXTS))
    here, there = in_process(follower, x, CONTEXTS), remote.steer(x, CONTEXTS)
    assert travelled(here.receipts) == list(there.receipts)
    np.testing.assert_allclose(there.activation, here.activation, atol=1e-6, rtol=0)
    seen = {receipt.reason for receipt in there.receipts}
    assert seen == {UnsteeredReason.STEERED, UnsteeredReason.NONE_MATCHED, UnsteeredReason.OVER_NORM_BUDGET}
    assert {ref.policy_id for receipt in there.receipts for ref in receipt.applied} == {"p-1", "p-2", "p-3"}
    assert any(receipt.shadow is not None for receipt in there.receipts)
    assert any(receipt.held_out for receipt in there.receipts)


def test_neighbours_stay_bit_for_bit_and_a_row_does_not_depend_on_its_batch(
    both: tuple[PlanFollower, RemoteSteering],
) -> None:
    follower, remote = both
    x = rows(len(CONTEXTS))
    there = remote.steer(x, CONTEXTS)
    untouched = [row for row, receipt in enumerate(there.receipts) if receipt.reason is not UnsteeredReason.STEERED]
    assert len(untouched) > 5
    assert there.activation[untouched].tobytes() == x[untouched].tobytes()
    for row in (1, 2, 3, 4, 5, 7):
        alone = remote.steer(x[[row]], [CONTEXTS[row]]).activation
        assert alone.tobytes() == there.activation[[row]].tobytes()
        assert alone.tobytes() == in_process(follower, x[[row]], [CONTEXTS[row]]).activation.tobytes()


def test_requests_of_several_rows_agree_too(both: tuple[PlanFollower, RemoteSteering]) -> None:
    follower, remote = both
    sizes = [row % 4 for row in range(len(CONTEXTS))]
    x = rows(sum(sizes))
    here, there = in_process(follower, x, CONTEXTS, sizes), remote.steer(x, CONTEXTS, sizes)
    np.testing.assert_allclose(there.activation, here.activation, atol=1e-6, rtol=0)
    for size, one, other in zip(sizes, travelled(here.receipts), there.receipts, strict=True):
        if size:  # whoever has no rows is not asked for
            assert untold(one) == untold(other)


def test_without_its_state_server_steer_stops_when_its_plans_are_too_old(
    start_interpreter: Start, stubs: Start, redis_server: Any, published: Any
) -> None:
    change = change_now(actor="test", action="channel.promote", reason="a test", request_id="r")
    with connect(redis_server.url) as client:
        RedisChannelStore(client).point(MODEL, PRODUCTION, published.triples[0], change)
    app = start_interpreter(state_url=redis_server.url, bus_url=redis_server.url, plan_max_age_s=1.5)
    x = rows(1)
    address = f"127.0.0.1:{app.server.port}"
    with steer_by(address, model=MODEL, version=published.model_version, hook=HOOK, timeout_s=10) as remote:
        assert remote.steer(x, [SteerContext()]).receipts[0].reason is UnsteeredReason.NONE_MATCHED
        redis_server.kill()
        deadline = time.monotonic() + 20
        while remote.steer(x, [SteerContext()]).receipts[0].reason is not UnsteeredReason.PLAN_TOO_OLD:
            assert time.monotonic() < deadline, "plans nobody can check were applied for ever"
            time.sleep(0.05)
        redis_server.start()
        deadline = time.monotonic() + 20
        while remote.steer(x, [SteerContext()]).receipts[0].reason is not UnsteeredReason.NONE_MATCHED:
            assert time.monotonic() < deadline, "it never steered again"
            time.sleep(0.05)
