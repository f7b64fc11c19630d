"""What wins for a request, as it is said, agrees with what matching and the steering function do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsae.pipeline.triples import Triple
from recsae.steering.delta import Steerer
from recsae.steering.matching import SteerContext
from recsae.steering.plans import Basis, compile_plan
from recsae.steering.policies import (
    Operation,
    OperationKind,
    Policy,
    PolicyDraft,
    PolicyState,
    Scope,
    Window,
    as_of,
    new_policy,
)
from recsae.steering.resolution import Outcome, resolve
from recsae.steering.segments import AllOf, AnyOf, Attribute, Equals, In, Not, Range

NOW = 1_790_000_000.0
WIDTH = 5
CONCEPTS = tuple(f"c-{number}" for number in range(WIDTH))
BASIS = Basis(
    model="m",
    triple=Triple("m1", "s1", "d1"),
    hook="h",
    latents={concept: number for number, concept in enumerate(CONCEPTS)},
    p95=np.ones(WIDTH, np.float32),
    # Orthogonal, so that a row shows how much of each concept was added.
    w_dec=np.eye(WIDTH, dtype=np.float32),
)


def policy(number: int = 0, concepts: tuple[str, ...] = ("c-0",), made: float = 0.0, **changes: object) -> Policy:
    """Adds a strength of its own."""
    operations = tuple(Operation(concept, OperationKind.ADD, 1.0 + number % 8) for concept in concepts)
    draft = PolicyDraft(f"policy {number}", "m", operations, window=Window(end=NOW + 60))
    made_policy = new_policy(draft, actor="me", now=NOW - 100 + made)
    return replace(made_policy, id=f"p-{number}", salt=f"salt {number}", **changes)  # type: ignore[arg-type]


USERS = ("ann", "bob")
LEAVES = st.sampled_from(
    [Equals("country", "DK"), In("country", ("SE", "NO")), Range("age", 18.0, 30.0), Range("age", None, 25.0)]
)
SEGMENTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=1, max_size=3).map(lambda all_: AllOf(tuple(all_))),
        st.lists(inner, min_size=1, max_size=3).map(lambda any_: AnyOf(tuple(any_))),
    ),
    max_leaves=4,
)
SCOPES = st.builds(
    Scope,
    user_ids=st.sampled_from([(), ("ann",), ("ann", "bob")]),
    segment=st.none() | SEGMENTS,
    rollout_percent=st.sampled_from([0.0, 30.0, 70.0, 100.0]),
)
STATES = st.sampled_from([PolicyState.LIVE] * 4 + [PolicyState.SHADOW, PolicyState.DRAFT, PolicyState.PAUSED])
WINDOWS = st.sampled_from([Window(end=NOW + 60)] * 3 + [Window(NOW + 1, NOW + 60), Window(end=NOW - 1)])
ATTRIBUTES: st.SearchStrategy[Mapping[str, object]] = st.fixed_dictionaries(
    {}, optional={"country": st.sampled_from(["DK", "SE"]), "age": st.sampled_from([17.0, 18.0, 29.0, 40.0])}
)
CONTEXTS = st.builds(
    SteerContext,
    user_id=st.sampled_from(["", *USERS]),
    request_id=st.sampled_from(["", "r-1", "r-2"]),
    attributes=ATTRIBUTES,
)


@st.composite
def policies(draw: st.DrawFn) -> list[Policy]:
    return [
        policy(
            number,
            tuple(draw(st.lists(st.sampled_from(CONCEPTS), min_size=1, max_size=3, unique=True))),
            made=draw(st.sampled_from([0.0, 1.0])),
            scope=draw(SCOPES),
            state=draw(STATES),
            window=draw(WINDOWS),
            priority=draw(st.sampled_from([-1, 0, 1])),
        )
        for number in range(draw(st.integers(0, 5)))
    ]


@settings(max_examples=200, deadline=None)
@given(policies(), CONTEXTS)
def test_what_is_said_to_apply_is_what_steering_applies(stored: list[Policy], context: SteerContext) -> None:
    verdicts = resolve([as_of(one, NOW) for one in stored], context, NOW)
    assert {one.policy.id for one in verdicts} == {one.id for one in stored if not as_of(one, NOW).state.ended}
    steerer = Steerer(compile_plan(stored, BASIS, revision=1, now=NOW, norm_budget=1e6))
    steered = steerer.steer(np.ones((1, WIDTH), np.float32), [context], NOW)
    added = steered.activation[0] - 1.0
    said = np.zeros(WIDTH)
    for verdict in verdicts:
        for operation in verdict.applied:
            said[BASIS.latents[operation.concept_id]] += operation.value
    np.testing.assert_array_equal(added, said)
    applied = [verdict.policy.id for verdict in verdicts if verdict.outcome.changes]
    assert applied == [ref.policy_id for ref in steered.receipts[0].applied]
    assert all(verdict.reason for verdict in verdicts)
    for verdict in verdicts:
        lost = [one for one in verdict.operations if one.won_by.policy_id != verdict.policy.id]
        if verdict.outcome is not Outcome.SHADOW:
            assert bool(verdict.operations) is (verdict.outcome.changes or verdict.outcome is Outcome.OVERRULED)
            assert (not lost) or verdict.outcome in (Outcome.PARTLY_APPLIES, Outcome.OVERRULED)


def told(stored: list[Policy], context: SteerContext) -> dict[str, tuple[Outcome, str]]:
    return {one.policy.id: (one.outcome, one.reason) for one in resolve(stored, context, NOW)}


def test_each_outcome_says_why_in_a_sentence_with_its_values() -> None:
    country = AllOf((Equals("country", "DK"), Not(Range("age", None, 18.0))))
    stored = [
        policy(0, ("c-0",), priority=5),
        policy(1, ("c-0", "c-1"), made=1),
        policy(2, ("c-1",), made=2),
        policy(3, ("c-0",), state=PolicyState.SHADOW, made=3),
        policy(4, scope=Scope(("u-1", "u-2"))),
        policy(5, scope=Scope(segment=country)),
        policy(6, scope=Scope(rollout_percent=0.0)),
        policy(7, state=PolicyState.PAUSED, state_reason="lunch"),
        policy(8, window=Window(NOW + 60, NOW + 99)),
        policy(9, state=PolicyState.SUSPENDED, state_reason="c-0 was lost"),
        policy(10, ("c-4",), scope=Scope(segment=Equals("country", "SE"))),
    ]
    context = SteerContext("ann", "r", {"country": "SE", "age": 20.0})
    found = told(stored, context)
    assert found["p-0"] == (Outcome.APPLIES, "it is for everyone; no policy before it touches its concepts")
    assert found["p-1"] == (Outcome.PARTLY_APPLIES, "it is for everyone; p-0 (priority 5 before 0) keeps c-0")
    assert found["p-2"] == (
        Outcome.OVERRULED,
        "it is for everyone; p-1 (as high a priority and older) keeps its concept",
    )
    assert found["p-3"] == (
        Outcome.SHADOW,
        "it is for everyone; in shadow it is computed and logged, and changes nothing; live it would leave concepts to "
        "p-0 (priority 5 before 0)",
    )
    assert found["p-4"] == (Outcome.NOT_IN_SCOPE, "user ann is not among its 2 users")
    assert found["p-5"] == (Outcome.NOT_IN_SCOPE, "country is SE, not DK")
    outcome, words = found["p-6"]
    assert outcome is Outcome.HELD_OUT
    assert words.startswith("user ann stands at ")
    assert words.endswith("% of its rollout, which reaches 0 %")
    assert found["p-7"] == (Outcome.NOT_IN_FORCE, "it is paused: lunch")
    assert found["p-8"] == (Outcome.NOT_IN_FORCE, "it starts at 2026-09-21 14:14 UTC")
    assert found["p-9"] == (Outcome.NOT_IN_FORCE, "it is suspended: c-0 was lost")
    assert found["p-10"] == (Outcome.APPLIES, "country=SE holds; no policy before it touches its concepts")


def test_what_of_a_segment_does_not_hold_is_named_and_so_is_what_nobody_knows() -> None:
    adult = Not(Range("age", None, 18.0))
    either = AnyOf((Equals("country", "DK"), In("surface", ("home", "search"))))
    stored = [policy(0, scope=Scope(segment=AllOf((either, adult))))]
    cases: list[tuple[dict[str, Attribute], str]] = [
        ({"country": "SE", "surface": "mail"}, "country is SE, not DK, and surface is mail, not one of home, search"),
        ({"country": "DK"}, "age is not known of this request"),
        ({"country": "DK", "age": 12.0}, "age<18 holds, and must not"),
    ]
    for attributes, words in cases:
        assert told(stored, SteerContext("ann", "r", attributes))["p-0"] == (Outcome.NOT_IN_SCOPE, words)


def test_a_policy_in_shadow_takes_no_concept_from_a_live_one() -> None:
    shadow, live = policy(0, priority=9, state=PolicyState.SHADOW), policy(1)
    found = resolve([shadow, live], SteerContext("ann"), NOW)
    assert [(one.policy.id, one.outcome) for one in found] == [("p-0", Outcome.SHADOW), ("p-1", Outcome.APPLIES)]
    assert [one.won_by.policy_id for verdict in found for one in verdict.operations] == ["p-0", "p-1"]
