"""An interpreter beside what happens to its state: archived audit events stay readable, a restored state counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsae.steering.policies import Window
from recsae.steering.wire import window_message
from recsae.store.artifacts import ArtifactStore
from recsae.store.audit_archiving import Archiver, Kept
from recsae.store.backup import back_up
from recsae.store.events import EVENTS
from recsae.store.redis import connect
from recsae.store.restore import restore, state_revision
from recsae.v1 import steering_pb2

Start = Callable[..., Any]


@pytest.fixture
def steering(start_interpreter: Start, stubs: Start, promote: Start) -> Any:
    """Stub of an interpreter with triple 0 promoted."""
    promote(0)
    return stubs(start_interpreter().server.port).steering


def made(steering: Any, name: str) -> str:
    operation = steering_pb2.Operation(concept_id="c-0-3", kind=steering_pb2.OPERATION_KIND_ADD, value=1.5)
    window = window_message(Window(end=time.time() + 600))
    policy = steering_pb2.Policy(name=name, model="tiny", operations=[operation], window=window)
    reply = steering.CreatePolicy(steering_pb2.CreatePolicyRequest(policy=policy, reason=name))
    return str(reply.policy.id)


def pages(steering: Any, policy_id: str = "") -> list[str]:
    """Reasons of all events, newest first, three at a time."""
    found: list[Any] = []
    while True:
        before = found[-1].id if found else ""
        request = steering_pb2.ListAuditRequest(policy_id=policy_id, limit=3, before_id=before)
        events = steering.ListAudit(request).events
        if not events:
            return [event.reason for event in found]
        found += events


def test_the_audit_trail_is_paged_back_through_the_archives(steering: Any, redis_url: str, published: Any) -> None:
    ids = {name: made(steering, name) for name in "abcdefg"}
    with connect(redis_url) as client:
        assert len(Archiver(client, ArtifactStore(str(published.root)), Kept(newest=2, batch=3)).run(time.time())) == 2
        assert client.xlen(EVENTS) == 2
    assert pages(steering) == [*"gfedcba", "a test"]
    assert [pages(steering, ids[name]) for name in "ag"] == [["a"], ["g"]]


def test_a_restored_state_reaches_recommenders_as_a_newer_plan(
    steering: Any, redis_url: str, published: Any, tmp_path: Path
) -> None:
    kept = made(steering, "kept")
    with connect(redis_url) as client:
        back_up(client, tmp_path / "state.gz")
        gone = made(steering, "gone")
        stream = steering.WatchPlans(steering_pb2.WatchPlansRequest(model="tiny", watcher="w"), timeout=20)
        seen: list[Any] = []
        for message in stream:
            if message.HasField("plans"):
                seen.append(message.plans)
            if seen and gone in policies_of(seen[-1]):
                break
        store = ArtifactStore(str(published.root))
        done = restore(client, tmp_path / "state.gz", store, actor="me", reason="x", replaced=state_revision(client))
        assert done.missing == {}
        for message in stream:
            if message.HasField("plans"):
                seen.append(message.plans)
                if gone not in policies_of(seen[-1]):
                    break
        stream.cancel()
    assert policies_of(seen[-1]) == {kept}
    assert seen[-1].revision == done.revision == max(plans.revision for plans in seen)


def policies_of(plans: Any) -> set[str]:
    return {policy.ref.policy_id for plan in plans.plans for policy in plan.policies}
