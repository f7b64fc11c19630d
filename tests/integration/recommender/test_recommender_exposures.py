"""The exposure log of a served model: steered, held-out, shadow and unsteered responses, and bare ones asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from recsae.exposures.reader import ExposureReader
from recsae.exposures.record import Exposure, overlap
from recsae.pipeline.triples import Triple
from recsae.rpc.client import channel
from recsae.rpc.request import REQUEST_ID_KEY
from recsae.steering.plans import Plan, PlanOperation, PlanPolicy, PlanSet
from recsae.steering.policies import OperationKind, Scope, Window
from recsae.steering.receipts import PolicyRef, UnsteeredReason
from recsae.steering.rollout import in_rollout
from recsae.steering.segments import Equals
from recsae.steering.wire_plans import plan_set_message
from recsae.store.pseudonyms import pseudonym
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc, steering_pb2
from recsae_recommender.app import RecommenderApp

Start = Callable[..., RecommenderApp]
Stub = recommender_pb2_grpc.RecommenderStub
DIM, N_USERS = 16, 24
KEY, SALT = b"k" * 32, "salt"
USERS = [f"u-{number}" for number in range(N_USERS)]
DANES = USERS[1::2]
LIVE, SHADOW = PolicyRef("p-live", 3), PolicyRef("p-shadow", 1)
SAE, DICTIONARY = "5ae" + "0" * 13, "d1c" + "0" * 13


def plans(version: str) -> bytes:
    """Half of all Danes get `LIVE`; of everybody else `SHADOW` would have."""
    rows = np.random.default_rng(0).standard_normal((2, DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    live, shadow = (PlanOperation(at, OperationKind.ADD, 1.5, row) for at, row in enumerate(rows))
    scope = Scope(segment=Equals("country", "DK"), rollout_percent=50)
    policies = (
        PlanPolicy(LIVE, (live,), scope, Window(), SALT),
        PlanPolicy(SHADOW, (shadow,), Scope(segment=Equals("country", "SE")), Window(), SALT, shadow=True),
    )
    plan = Plan(9, "tiny", Triple(version, SAE, DICTIONARY), policies, DIM, "sequence", time.time(), 5.0)
    return plan_set_message(PlanSet(9, (plan,))).SerializeToString()


@pytest.fixture
def interpreter(start_interpreter: Any, models: dict[str, str]) -> Any:
    made = start_interpreter()
    made.give("plans", plans(models["tiny"]))
    made.hear("pushed")
    return made


@pytest.fixture
def connect() -> Iterator[Callable[[RecommenderApp], Stub]]:
    channels: list[grpc.Channel] = []

    def opened(app: RecommenderApp) -> Stub:
        channels.append(channel(f"127.0.0.1:{app.server.port}"))
        return Stub(channels[-1])

    yield opened
    for one in channels:
        one.close()


def ask(stub: Stub, user: str, **values: Any) -> recommender_pb2.RecommendResponse:
    return stub.Recommend(
        recommender_pb2.RecommendRequest(user_id=user, **values), timeout=20, metadata=((REQUEST_ID_KEY, f"r-{user}"),)
    )


def ids(reply: recommender_pb2.RecommendResponse) -> tuple[str, ...]:
    return tuple(item.item_id for item in reply.items)


def pairs(reply: recommender_pb2.RecommendResponse) -> list[tuple[str, float]]:
    return [(item.item_id, item.score) for item in reply.items]


def test_each_response_is_logged_with_what_its_receipt_said_and_no_user_by_name(
    start_recommender: Start, interpreter: Any, models: dict[str, str], connect: Any, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(KEY)
    folder = tmp_path / "exposures"
    app = start_recommender(
        interpreter=interpreter.address, exposures=folder, exposure_sample=1, pseudonym_key_file=tmp_path / "key"
    )
    stub = connect(app)
    replies = {user: ask(stub, user) for user in USERS}
    bare = ask(stub, "u-1", without_steering=True)
    app.stop()  # drains: what is held is on disk
    found = list(ExposureReader(folder))
    assert len(found) == N_USERS + 1
    of = {one.user: one for one in found[:N_USERS]}
    inside = {user for user in DANES if in_rollout(50, SALT, user, "")}
    assert 0 < len(inside) < len(DANES)
    for user, reply in replies.items():
        one = of[pseudonym(KEY, user)]
        _check(one, reply, user, models["tiny"])
        assert one.applied == ((LIVE,) if user in inside else ())
        assert one.held_out == ((LIVE,) if user in DANES and user not in inside else ())
        assert (one.reason is UnsteeredReason.STEERED) == (user in inside)
        if user in DANES:
            assert one.shadow is None
            continue
        assert one.shadow is not None
        assert one.shadow.policies == (SHADOW,)
        assert one.shadow.item_ids is not None
        assert one.shadow.overlap == overlap(one.item_ids, one.shadow.item_ids)
        assert one.shadow.delta_share == pytest.approx(reply.receipt.shadow.delta_share)
    assert any(one.shadow and one.shadow.item_ids != one.item_ids for one in found)
    assert found[N_USERS].reason is UnsteeredReason.NOT_WANTED
    assert found[N_USERS].item_ids == ids(bare)
    written = b"".join(path.read_bytes() for path in folder.iterdir())
    assert not any(f'"user":"{user}"'.encode() in written for user in USERS)
    assert b"country" not in written


def _check(one: Exposure, reply: recommender_pb2.RecommendResponse, user: str, version: str) -> None:
    assert one.request_id == f"r-{user}"
    assert one.item_ids == ids(reply)
    assert (one.model, one.triple, one.plan_revision) == ("tiny", Triple(version, SAE, DICTIONARY), 9)
    assert one.delta_share == pytest.approx(reply.receipt.delta_share)
    assert time.time() - 60 < one.at <= time.time()


def test_a_shadow_list_is_the_one_the_policy_makes_once_it_is_live(
    start_recommender: Start, start_interpreter: Any, models: dict[str, str], connect: Any, tmp_path: Path
) -> None:
    interpreter, folder = start_interpreter(), tmp_path / "exposures"
    message = steering_pb2.PlanSet.FromString(plans(models["tiny"]))
    interpreter.give("plans", message.SerializeToString())
    interpreter.hear("pushed")
    app = start_recommender(interpreter=interpreter.address, exposures=folder, exposure_sample=1)
    stub = connect(app)
    for user in USERS[::2]:
        assert not ask(stub, user).receipt.applied
    message.revision = message.plans[0].revision = 10
    message.plans[0].policies[1].shadow = False
    message.plans[0].digest = ""
    interpreter.give("plans", message.SerializeToString())
    deadline = time.monotonic() + 20
    while not ask(stub, "u-0").receipt.applied:
        assert time.monotonic() < deadline
    live = {user: ids(ask(stub, user)) for user in USERS[::2]}
    app.stop()
    shadows = {one.request_id: one.shadow.item_ids for one in ExposureReader(folder) if one.shadow is not None}
    assert shadows == {f"r-{user}": listed for user, listed in live.items()}


def test_a_request_without_steering_gets_the_bare_list_bit_for_bit_beside_steered_neighbours(
    start_recommender: Start, interpreter: Any, models: dict[str, str], connect: Any
) -> None:
    bare_stub = connect(start_recommender(interpreter=""))
    bare = {user: pairs(ask(bare_stub, user)) for user in USERS}
    stub = connect(start_recommender(interpreter=interpreter.address))
    steered = {user: pairs(ask(stub, user)) for user in USERS}
    inside = [user for user in DANES if in_rollout(50, SALT, user, "")]
    assert [user for user in USERS if steered[user] != bare[user]] == inside
    with ThreadPoolExecutor(2 * N_USERS) as pool:  # all at once: both kinds share batches
        for _ in range(5):
            wanted = [*((user, False) for user in USERS), *((user, True) for user in USERS)]
            for (user, without), reply in zip(
                wanted, pool.map(lambda one: ask(stub, one[0], without_steering=one[1]), wanted), strict=True
            ):
                assert pairs(reply) == (bare if without else steered)[user]
                assert (reply.receipt.reason == common_pb2.UNSTEERED_REASON_NOT_WANTED) == without
                if without:
                    assert not reply.receipt.applied
                    assert not reply.receipt.held_out
                    assert not reply.receipt.HasField("shadow")
                    assert reply.triple == common_pb2.Triple(model_version=models["tiny"])


def test_a_sample_of_responses_is_logged_and_counted(start_recommender: Start, connect: Any, tmp_path: Path) -> None:
    folder = tmp_path / "exposures"
    app = start_recommender(exposures=folder, exposure_sample=0.5)
    stub = connect(app)
    for _ in range(10):
        for user in USERS:
            ask(stub, user)
    app.stop()
    # 240 coin flips: beyond these ends in one of a hundred thousand runs.
    assert 85 <= len(list(ExposureReader(folder))) <= 155
