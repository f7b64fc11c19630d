"""Policies as one file: exported, imported elsewhere or here again, and refused one by one where they do not hold."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from recsae.cli import app as cli
from recsae.steering.policies import Window
from recsae.steering.wire import window_message
from recsae.store.events import RedisTrail
from recsae.store.redis import connect
from recsae.v1 import steering_pb2

Start = Callable[..., Any]
ADD = steering_pb2.OPERATION_KIND_ADD
STATES = {
    name: steering_pb2.PolicyState.Value(f"POLICY_STATE_{name}") for name in ("DRAFT", "SHADOW", "LIVE", "PAUSED")
}


def policy(name: str, state: str = "LIVE", value: float = 1.5, concept: str = "c-0-3") -> steering_pb2.Policy:
    return steering_pb2.Policy(
        name=name,
        model="tiny",
        operations=[steering_pb2.Operation(concept_id=concept, kind=ADD, value=value)],
        window=window_message(Window(end=time.time() + 600)),
        scope=steering_pb2.Scope(user_ids=["u-1"], rollout_percent=25),
        state=STATES[state],
    )


@pytest.fixture
def served(start_interpreter: Start, stubs: Start, promote: Start) -> tuple[Any, int]:
    """Stubs of an interpreter with triple 0 promoted, and its port."""
    promote(0)
    port = start_interpreter().server.port
    return stubs(port).steering, port


@pytest.fixture
def recsae(served: tuple[Any, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command against that interpreter; returns its exit code."""

    def run(*arguments: str) -> int:
        where = ["--home", str(tmp_path / "home"), "--recommender", "127.0.0.1:1"]
        monkeypatch.setattr(sys, "argv", ["recsae", *where, "--interpreter", f"127.0.0.1:{served[1]}", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    return run


def made(steering: Any, *policies: steering_pb2.Policy) -> list[steering_pb2.Policy]:
    return [steering.CreatePolicy(steering_pb2.CreatePolicyRequest(policy=one, reason="x")).policy for one in policies]


def listed(steering: Any) -> dict[str, steering_pb2.Policy]:
    reply = steering.ListPolicies(steering_pb2.ListPoliciesRequest(include_ended=True))
    return {one.id: one for one in reply.policies}


def outcomes(steering: Any, *policies: steering_pb2.Policy, **options: Any) -> list[tuple[str, str]]:
    request = steering_pb2.ImportPoliciesRequest(policies=policies, reason="moved", **options)
    return [(one.outcome, one.reason) for one in steering.ImportPolicies(request).policies]


def test_policies_exported_from_one_platform_are_the_same_on_another(
    served: tuple[Any, int], recsae: Callable[..., int], redis_url: str, tmp_path: Path
) -> None:
    steering, _ = served
    file = str(tmp_path / "policies.json")
    made(steering, policy("live"), policy("shadow", "SHADOW"), policy("draft", "DRAFT"))
    (gone,) = made(steering, policy("gone"))
    steering.DeletePolicy(steering_pb2.DeletePolicyRequest(policy_id=gone.id, reason="x"))
    before = listed(steering)
    assert recsae("steer", "export", file) == 0
    assert len(json.loads(Path(file).read_text())["policies"]) == 4
    with connect(redis_url) as client:  # another platform: the same model and dictionary, no policies
        client.delete("recsae:policies", *client.scan_iter("recsae:policy-revisions:*"))
        assert recsae("steer", "import", file, "--reason", "moved") == 0
        events = RedisTrail(client).events(limit=4)
    after = listed(steering)
    for policy_id, one in before.items():
        other = after[policy_id]
        assert (other.revision, other.state) == (1, one.state)
        for field in ("revision", "updated_at", "created_by", "state_reason", "dictionary_version"):
            one.ClearField(field)
            other.ClearField(field)
        assert other == one
    assert {(event.change.action, event.change.reason) for event in events} == {("policy.import", "moved")}
    # Again: nothing is written.
    assert recsae("steer", "import", file, "--reason", "again") == 0
    with connect(redis_url) as client:
        assert RedisTrail(client).events(limit=1) == events[:1]


def test_a_policy_that_differs_is_kept_unless_it_is_to_be_replaced(served: tuple[Any, int]) -> None:
    steering, _ = served
    (one,) = made(steering, policy("one"))
    changed = steering_pb2.Policy()
    changed.CopyFrom(one)
    changed.priority = 7
    changed.state = STATES["PAUSED"]
    assert outcomes(steering, changed) == [
        ("kept", "another one of this id is here; set replace to overwrite it"),
    ]
    assert listed(steering)[one.id] == one
    assert outcomes(steering, changed, replace=True) == [("replaced", "")]
    now = listed(steering)[one.id]
    assert (now.revision, now.priority, now.state, now.salt) == (2, 7, STATES["PAUSED"], one.salt)
    assert outcomes(steering, changed, replace=True) == [("unchanged", "")]
    changed.priority = 8
    changed.ClearField("salt")
    assert outcomes(steering, changed, replace=True) == [("replaced", "")]
    assert listed(steering)[one.id].salt == one.salt, "who was in its rollout stays in it"
    steering.DeletePolicy(steering_pb2.DeletePolicyRequest(policy_id=one.id, reason="x"))
    ((outcome, reason),) = outcomes(steering, changed, replace=True)
    assert (outcome, "final" in reason) == ("refused", True)


def test_each_is_checked_like_a_new_one_and_refused_alone(served: tuple[Any, int]) -> None:
    steering, _ = served
    over = policy("over")
    over.window.end.FromSeconds(int(time.time()) - 60)
    unsafe = policy("unsafe", value=2.5)
    unsafe.id = "p-unsafe"
    found = outcomes(steering, policy("good"), policy("nothing", concept="c-9-9"), over, unsafe)
    assert [outcome for outcome, _ in found] == ["created", "refused", "refused", "refused"]
    assert "c-9-9" in found[1][1]
    assert "has passed already" in found[2][1]
    assert "outside the safe range" in found[3][1]
    assert outcomes(steering, unsafe, allow_outside_safe_range=True) == [("created", "")]
    assert "outside the safe range" in listed(steering)["p-unsafe"].outside_safe_range


def test_what_was_expired_or_suspended_waits_for_a_person(served: tuple[Any, int]) -> None:
    steering, _ = served
    expired, suspended = policy("expired"), policy("suspended")
    expired.window.end.FromSeconds(int(time.time()) - 60)
    expired.state = steering_pb2.POLICY_STATE_EXPIRED
    suspended.state = steering_pb2.POLICY_STATE_SUSPENDED
    assert [outcome for outcome, _ in outcomes(steering, expired, suspended)] == ["created", "created"]
    found = {one.name: one for one in listed(steering).values()}
    assert found["expired"].state == steering_pb2.POLICY_STATE_EXPIRED
    assert found["suspended"].state == STATES["PAUSED"]
    assert "suspended where it came from" in found["suspended"].state_reason


def test_a_call_that_makes_no_sense_writes_nothing(served: tuple[Any, int]) -> None:
    steering, _ = served
    one = policy("one")
    one.id = "p-1"
    for policies, words in (
        ([one, one], "comes more than once"),
        ([one] * 1_001, "1001 policies came"),
        ([steering_pb2.Policy(id="../x", state=STATES["LIVE"])], "no policy id"),
        ([steering_pb2.Policy(name="nameless")], "policy 'nameless': state 0"),
    ):
        with pytest.raises(grpc.RpcError) as error:
            outcomes(steering, *policies)
        failed: Any = error.value
        assert (failed.code(), words in failed.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    assert listed(steering) == {}


def test_the_command_says_what_was_refused_and_why_a_file_is_none(
    served: tuple[Any, int], recsae: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "policies.json"
    made(served[0], policy("one"))
    assert recsae("steer", "export", str(file)) == 0
    assert recsae("steer", "export", str(file)) == 1
    content = json.loads(file.read_text())
    content["policies"][0] |= {
        "id": "p-other",
        "operations": [{"concept_id": "c-9-9", "kind": "OPERATION_KIND_ABLATE"}],
    }
    file.write_text(json.dumps(content))
    capsys.readouterr()
    assert recsae("steer", "import", str(file), "--reason", "x") == 1
    assert "1 of 1 policies were refused" in capsys.readouterr().err
    for text in ("{", "[]", '{"format": "recsae-policies", "schema_version": 2, "policies": []}'):
        file.write_text(text)
        assert recsae("steer", "import", str(file), "--reason", "x") == 1
        assert str(file.name) in capsys.readouterr().err.replace("\n", "")
