"""What is not known to be safe is refused unless it is asked for; handles; what is shown of effects."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from recsae.steering.policies import Window
from recsae.steering.wire import window_message
from recsae.v1 import interpreter_pb2, steering_pb2

Start = Callable[..., Any]
ADD = steering_pb2.OPERATION_KIND_ADD


def operation(concept: str, kind: int, value: float = 0.0) -> steering_pb2.Operation:
    return steering_pb2.Operation(concept_id=concept, kind=kind, value=value)  # type: ignore[arg-type]


UP = operation("c-0-3", ADD, 2.0)


def asking(*operations: steering_pb2.Operation, allow: bool = False) -> steering_pb2.CreatePolicyRequest:
    window = window_message(Window(end=time.time() + 600))
    policy = steering_pb2.Policy(name="test", model="tiny", operations=operations, window=window)
    return steering_pb2.CreatePolicyRequest(policy=policy, reason="because", allow_outside_safe_range=allow)


def refused(call: Callable[..., object], request: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        call(request)
    answer: Any = error.value
    return answer.code(), answer.details()


@pytest.fixture
def interpreter(start_interpreter: Start, stubs: Start, promote: Start) -> Any:
    """Stubs of an interpreter with triple 0 promoted."""
    promote(0)
    return stubs(start_interpreter().server.port)


@pytest.mark.parametrize(
    ("operations", "words"),
    [
        ([operation("c-0-3", ADD, 2.5)], "c-0-3:add=2.5 lies outside the safe range -2 to 2 of add"),
        ([operation("c-0-46", ADD, 0.1)], "what turning c-0-46 does was not measured"),
        ([operation(f"c-0-{latent}", ADD, 2.0) for latent in range(6)], "their bounds add up to 5.4% of NDCG@10"),
    ],
)  # fmt: skip
def test_what_is_not_known_to_be_safe_needs_to_be_asked_for_and_is_kept_in_the_audit_trail(
    interpreter: Any, operations: list[steering_pb2.Operation], words: str
) -> None:
    steering = interpreter.steering
    code, said = refused(steering.CreatePolicy, asking(*operations, allow=False))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert words in said
    assert "allow_outside_safe_range" in said
    assert not steering.ListPolicies(steering_pb2.ListPoliciesRequest()).policies
    made = steering.CreatePolicy(asking(*operations, allow=True)).policy
    assert words in made.outside_safe_range
    (event,) = steering.ListAudit(steering_pb2.ListAuditRequest(policy_id=made.id)).events
    assert words in event.after_json
    assert steering.GetPolicy(steering_pb2.GetPolicyRequest(policy_id=made.id)).policy == made


def test_asking_for_more_than_is_safe_leaves_no_mark_on_a_policy_that_is_safe(interpreter: Any) -> None:
    assert not interpreter.steering.CreatePolicy(asking(UP, allow=True)).policy.outside_safe_range


def test_a_handle_becomes_one_operation_per_concept_and_is_judged_as_a_whole(interpreter: Any) -> None:
    horror = steering_pb2.HandleOperation(facet="genre=Horror", dose=1.5)
    request = asking()
    request.handles.append(horror)
    made = interpreter.steering.CreatePolicy(request).policy
    assert [(one.concept_id, one.kind, one.value) for one in made.operations] == [
        ("c-0-6", ADD, 0.75),
        ("c-0-7", ADD, -0.375),
    ]
    request.handles[0].dose = 2.5
    assert "handle genre=Horror=2.5 lies outside" in refused(interpreter.steering.CreatePolicy, request)[1]
    request.handles[0].facet = "genre=War"
    code, words = refused(interpreter.steering.CreatePolicy, request)
    assert (code, "there are: genre=Horror" in words) == (grpc.StatusCode.NOT_FOUND, True)
    request.handles[0].CopyFrom(horror)
    request.policy.operations.append(operation("c-0-7", ADD, 0.1))
    assert "'c-0-7' is part of a handle" in refused(interpreter.steering.CreatePolicy, request)[1]


def test_handles_and_effects_are_listed_with_what_limits_them(interpreter: Any) -> None:
    (handle,) = interpreter.interpreter.ListHandles(interpreter_pb2.ListHandlesRequest()).handles
    assert (handle.facet, handle.safe_range.high, handle.safe_range.limited_by) == ("genre=Horror", 2.0, "measured")
    assert [(one.label, one.weight) for one in handle.weights] == [("Concept 6 of 0", 0.5), ("Concept 7 of 0", -0.25)]
    detail = interpreter.interpreter.GetConcept(interpreter_pb2.GetConceptRequest(concept_id="c-0-3")).detail
    assert {one.operation for one in detail.safe_ranges} == {"add", "ablate", "scale", "set", "cap"}
    assert len(detail.doses) == 9
    assert (detail.causal.facet, detail.causal.panel_users) == ("genre=Horror", 2_000)
    unmeasured = interpreter.interpreter.GetConcept(interpreter_pb2.GetConceptRequest(concept_id="c-0-46")).detail
    assert not unmeasured.HasField("causal")


def test_a_preview_states_the_safe_range_and_whether_it_is_left(
    start_interpreter: Start, start_recommender: Start, stubs: Start, promote: Start
) -> None:
    promote(0)
    recommender = start_recommender()
    interpreter = stubs(start_interpreter(recommenders=f"127.0.0.1:{recommender.server.port}").server.port)
    handle = steering_pb2.HandleOperation(facet="genre=Horror", dose=1.0)
    request = steering_pb2.PreviewRequest(user_id="u-5", operations=[UP], handles=[handle], k=10)
    safe = interpreter.steering.Preview(request)
    assert not safe.outside_safe_range
    assert [one.concept_id for one in safe.strengths] == ["c-0-3", "c-0-6", "c-0-7"]
    assert (safe.strengths[0].safe_range.low, safe.strengths[0].safe_range.high) == (-2.0, 2.0)
    request.operations[0].value = 3.0
    assert "c-0-3:add=3 lies outside" in interpreter.steering.Preview(request).outside_safe_range
