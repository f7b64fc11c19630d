"""Policies and segments: what is refused and why, what matches, what a rollout does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recsae.errors import InvalidRequestError
from recsae.steering.policies import (
    Operation,
    OperationKind,
    PolicyDraft,
    PolicyState,
    Scope,
    Window,
    as_of,
    new_policy,
    reverted,
    validate_reason,
)
from recsae.steering.rollout import in_rollout, rollout_position
from recsae.steering.segments import (
    AllOf,
    AnyOf,
    Attribute,
    Equals,
    Exists,
    In,
    Not,
    Range,
    Segment,
    attribute_names,
    evaluate,
    matches,
    validate_segment,
)
from recsae.steering.wire import draft_from, policy_message, segment_from, segment_message
from recsae.v1 import common_pb2

NOW = 1_790_000_000.0
DRAFT = PolicyDraft(
    name="More horror",
    model="sasrec",
    operations=(Operation("c-1", OperationKind.ADD, 1.5),),
    window=Window(end=NOW + 3600),
)


def operations(*values: tuple[str, OperationKind, float]) -> tuple[Operation, ...]:
    return tuple(Operation(*value) for value in values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "name has 0 characters"),
        ({"name": "x" * 121}, "name has 121"),
        ({"model": ""}, "model is empty"),
        ({"priority": 1001}, "priority 1001"),
        ({"operations": ()}, "0 operations"),
        ({"operations": operations(*[(f"c-{i}", OperationKind.ADD, 1.0) for i in range(17)])}, "17 operations"),
        ({"operations": operations(*[("c-1", OperationKind.ADD, 1.0)] * 2)}, "'c-1' comes 2 times"),
        ({"operations": operations(("c-1", OperationKind.SCALE, -1.0))}, "give 0 to 100"),
        ({"operations": operations(("c-1", OperationKind.ADD, 10.5))}, "give -10 to 10"),
        ({"operations": operations(("c-1", OperationKind.SET, float("nan")))}, "value nan; give 0 to 10"),
        ({"operations": operations(("", OperationKind.ABLATE, 0.0))}, "0 characters"),
        ({"scope": Scope(user_ids=("",))}, "user id is empty"),
        ({"scope": Scope(rollout_percent=101.0)}, "rollout_percent 101"),
        ({"window": Window()}, "has no end"),
        ({"window": Window(end=NOW)}, r"end, 20\d\d-.* UTC, has passed already"),
        ({"window": Window(NOW + 9, NOW + 9)}, r"starts 20\d\d-.* UTC, at or after its end 20\d\d-.* UTC"),
        ({"window": Window(end=1e15)}, "years 1 to 9999"),
        ({"window": Window(-1e13, NOW + 9)}, "years 1 to 9999"),
    ],
)
def test_a_draft_that_can_never_work_is_refused_by_field(change: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        new_policy(replace(DRAFT, **change), actor="me", now=NOW)  # type: ignore[arg-type]


def test_a_reason_is_demanded() -> None:
    for reason in ("", "  ", "x" * 501):
        with pytest.raises(InvalidRequestError, match="reason has"):
            validate_reason(reason)


def test_a_new_policy_is_live_at_revision_one_and_its_id_sorts_by_time() -> None:
    first, second = new_policy(DRAFT, actor="me", now=NOW), new_policy(DRAFT, actor="me", now=NOW + 1)
    assert (first.state, first.revision, first.created_by) == (PolicyState.LIVE, 1, "me")
    assert first.id < second.id
    assert first.salt != second.salt


def test_a_policy_past_its_end_shows_as_expired_unless_it_was_reverted() -> None:
    policy = new_policy(DRAFT, actor="me", now=NOW)
    assert as_of(policy, NOW + 3599).state is PolicyState.LIVE
    assert as_of(policy, NOW + 3600).state is PolicyState.EXPIRED
    taken_back = reverted(policy, reason="wrong concept", now=NOW + 1)
    assert (taken_back.state, taken_back.revision) == (PolicyState.REVERTED, 2)
    assert as_of(taken_back, NOW + 9999).state is PolicyState.REVERTED


GERMAN: Segment = Equals("country", "DE")


@pytest.mark.parametrize(
    ("segment", "attributes", "verdict"),
    [
        (GERMAN, {"country": "DE"}, True),
        (GERMAN, {"country": "FR"}, False),
        (GERMAN, {}, None),
        (Not(GERMAN), {"country": "FR"}, True),
        (Not(GERMAN), {}, None),
        (AnyOf((Not(GERMAN), Not(Exists("country")))), {}, True),
        (AllOf((GERMAN, Exists("age"))), {"country": "DE"}, False),
        (AllOf((GERMAN, Equals("age", 3.0))), {"age": 3.0}, None),
        (AnyOf((GERMAN, Equals("age", 3.0))), {"age": 3.0}, True),
        (In("country", ("DE", "AT")), {"country": "AT"}, True),
        (In("country", ("DE", "AT")), {"country": "US"}, False),
        (Range("age", 18.0, 30.0), {"age": 18.0}, True),
        (Range("age", 18.0, 30.0), {"age": 30.0}, False),
        (Range("age", 18.0), {"age": "old"}, None),
        (Equals("premium", True), {"premium": 1.0}, False),
        (Equals("premium", True), {"premium": True}, True),
        (Equals("age", "25"), {"age": 25.0}, False),
    ],
)
def test_only_a_certain_segment_matches(
    segment: Segment, attributes: dict[str, Attribute], verdict: bool | None
) -> None:
    assert evaluate(segment, attributes) is verdict
    assert matches(segment, attributes) is (verdict is True)


def nested(depth: int) -> Segment:
    segment: Segment = Exists("a")
    for _ in range(depth - 1):
        segment = Not(segment)
    return segment


@pytest.mark.parametrize(
    ("segment", "words"),
    [
        (nested(9), "deeper than 8"),
        (AllOf(()), "0 children"),
        (AnyOf(tuple(AnyOf((Exists("a"),) * 16) for _ in range(4))), "69 nodes"),
        (Equals("", "x"), "0 characters"),
        (In("a", ()), "0 values"),
        (Range("a"), "at least one finite bound"),
        (Range("a", 2.0, 1.0), "swap"),
        (Equals("a", float("inf")), "finite number"),
    ],
)
def test_a_segment_out_of_bounds_is_refused(segment: Segment, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        validate_segment(segment)


def test_a_segment_as_deep_as_allowed_is_taken() -> None:
    validate_segment(nested(8))


def test_a_policy_comes_back_from_the_wire_equal() -> None:
    segment = AllOf((AnyOf((GERMAN, Not(In("a", (1.0, True, "x"))))), Range("age", None, 3.5), Exists("b")))
    draft = replace(DRAFT, scope=Scope(("u1",), segment, 12.5), window=Window(NOW + 0.5, NOW + 60), priority=-3)
    policy = new_policy(draft, actor="me", now=NOW)
    assert draft_from(policy_message(policy)) == draft
    assert attribute_names(segment) == {"country", "a", "age", "b"}


def test_an_empty_segment_node_is_refused_wherever_it_stands() -> None:
    message = segment_message(AllOf((GERMAN,)))
    message.all.segments.append(common_pb2.Segment())
    with pytest.raises(InvalidRequestError, match="node of the segment is empty"):
        segment_from(message)


def test_a_rollout_is_sticky_nested_and_of_the_size_asked_for() -> None:
    users = [f"user-{number}" for number in range(4000)]
    at_ten = {user for user in users if in_rollout(10, "salt", user, "")}
    at_twenty = {user for user in users if in_rollout(20, "salt", user, "")}
    assert at_ten < at_twenty
    # Binomial(4000, .1): standard deviation 19; 5 of them is a false alarm in 2e6 seeds, and the salt is fixed.
    assert abs(len(at_ten) - 400) < 95
    assert at_ten != {user for user in users if in_rollout(10, "pepper", user, "")}


def test_a_rollout_never_changes_between_releases() -> None:
    # SHA-256("s\0u"), first 8 bytes: written down, because a changed hash would reshuffle every running experiment.
    assert rollout_position("s", "u") == 0.9493797071430788


def test_without_user_and_request_id_only_a_full_rollout_holds() -> None:
    assert in_rollout(100, "salt", "", "")
    assert not in_rollout(99.9, "salt", "", "")
    assert in_rollout(50, "salt", "", "r-1") == in_rollout(50, "salt", "r-1", "")
    assert not in_rollout(0, "salt", "u", "")
