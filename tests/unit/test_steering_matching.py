"""Matching by the index: what trying every policy would find, for random plans, requests and times."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from recsae.steering.conditions import MOST_ALTERNATIVES, alternatives
from recsae.steering.matching import NO_MATCH, Match, Matcher, SteerContext
from recsae.steering.plans import PlanPolicy
from recsae.steering.policies import Scope, Window
from recsae.steering.predicates import compiled
from recsae.steering.receipts import MOST_HELD_OUT, PolicyRef
from recsae.steering.rollout import in_rollout, rollout_limit, rollout_position
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
)

NAN = float("nan")
# More names than are looked up in every request, so that rare ones are among them.
NAMES = ("country", "age", "vip", *(f"a{number}" for number in range(18)))
VALUES: tuple[Attribute, ...] = ("DE", "US", True, False, 0.0, 1.0, 18.0, 30.0)
BOUNDS = (None, -math.inf, 0.0, 1.0, 18.0, 30.0)

names = st.one_of(st.sampled_from(NAMES[:3]), st.sampled_from(NAMES))
values = st.sampled_from(VALUES)
bounds = st.sampled_from(BOUNDS)
leaves: st.SearchStrategy[Segment] = st.one_of(
    st.builds(Equals, names, values),
    st.builds(In, names, st.lists(values, min_size=1, max_size=3).map(tuple)),
    st.builds(Range, names, bounds, bounds),
    st.builds(Exists, names),
)
segments: st.SearchStrategy[Segment] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(AllOf, st.lists(inner, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=6,
)
attributes = st.dictionaries(
    names, st.one_of(values, st.sampled_from((-1.0, 17.5, 1, 18, 99.0, math.inf, -math.inf, NAN, "FR"))), max_size=6
)
users = st.sampled_from(("", "u-1", "u-2", "u-3"))
windows = st.builds(Window, st.sampled_from((None, 10.0, 20.0)), st.sampled_from((None, 10.0, 20.0, 30.0)))
scopes = st.builds(
    Scope,
    st.lists(st.sampled_from(("u-1", "u-2")), max_size=2).map(tuple),
    st.none() | segments,
    st.sampled_from((0.0, 1.0, 33.3, 50.0, 99.9, 100.0)),
)
contexts = st.builds(SteerContext, users, st.sampled_from(("", "r-1", "r-2")), attributes)


@st.composite
def plans(draw: st.DrawFn) -> tuple[PlanPolicy, ...]:
    parts = draw(st.lists(st.tuples(scopes, windows, st.booleans()), max_size=24))
    return tuple(
        PlanPolicy(PolicyRef(f"p-{place}", 1), (), scope, window, f"salt-{place % 5}", shadow)
        for place, (scope, window, shadow) in enumerate(parts)
    )


def tried_one_by_one(policies: Sequence[PlanPolicy], context: SteerContext, now: float) -> Match:
    live, shadow, together = list[PlanPolicy](), list[PlanPolicy](), list[PlanPolicy]()
    held_out = list[PolicyRef]()
    for policy in policies:
        scope = policy.scope
        if not policy.window.contains(now) or (scope.user_ids and context.user_id not in scope.user_ids):
            continue
        if scope.segment is not None and evaluate(scope.segment, context.attributes) is not True:
            continue
        if in_rollout(scope.rollout_percent, policy.salt, context.user_id, context.request_id):
            together.append(policy)
            (shadow if policy.shadow else live).append(policy)
        elif not policy.shadow:
            held_out.append(policy.ref)
    return Match(tuple(live), tuple(shadow), tuple(together), tuple(held_out))


def facts(match: Match) -> tuple[tuple[str, ...], ...]:
    found = [tuple(policy.ref.policy_id for policy in part) for part in (match.live, match.shadow, match.together)]
    return (*found, tuple(ref.policy_id for ref in match.held_out))


@settings(max_examples=150, deadline=None)
@given(plans(), st.lists(contexts, min_size=1, max_size=6), st.sampled_from((0.0, 10.0, 15.0, 20.0, 29.9, 30.0)))
def test_the_index_finds_what_trying_every_policy_finds(
    policies: tuple[PlanPolicy, ...], asked: list[SteerContext], now: float
) -> None:
    matcher = Matcher(policies)
    for context in asked * 2:  # the second time from what it kept
        expected = tried_one_by_one(policies, context, now)
        assert facts(matcher.find(context, now)) == facts(expected)
        assert (matcher.find(context, now) is NO_MATCH) is (not expected.together and not expected.held_out)


@settings(max_examples=300, deadline=None)
@given(segments, attributes)
def test_a_compiled_segment_says_what_evaluating_it_says(segment: Segment, known: dict[str, Attribute]) -> None:
    assert compiled(segment)(known) is evaluate(segment, known)


@settings(max_examples=300, deadline=None)
@given(segments, attributes)
def test_what_a_segment_demands_is_necessary_and_where_exact_also_sufficient(
    segment: Segment, known: dict[str, Attribute]
) -> None:
    known = {name: value for name, value in known.items() if value == value}
    found = alternatives(segment)
    holding = [
        demand
        for demand in found
        if all(
            condition.allows((isinstance(known[name], bool), known[name])) if name in known else condition.absent
            for name, condition in demand.conditions.items()
        )
    ]
    true = evaluate(segment, known) is True
    assert holding or not true
    assert true or not any(demand.exact for demand in holding)
    assert len(found) <= MOST_ALTERNATIVES
    assert all(demand.conditions.keys() <= attribute_names(segment) for demand in found)


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 100), st.text(max_size=8), st.text(min_size=1, max_size=8))
def test_comparing_bytes_says_who_is_in_a_rollout(percent: float, salt: str, key: str) -> None:
    digest = hashlib.sha256(f"{salt}\0{key}".encode()).digest()
    assert (digest < rollout_limit(percent)) is in_rollout(percent, salt, key, "")
    exact = rollout_position(salt, key) * 100
    for edge in (exact, math.nextafter(exact, 100), math.nextafter(exact, 0)):
        assert (digest < rollout_limit(edge)) is in_rollout(edge, salt, key, "")


def test_a_receipt_names_no_more_control_groups_than_it_may() -> None:
    policies = tuple(
        PlanPolicy(PolicyRef(f"p-{place:02}", 1), (), Scope(rollout_percent=0.0), Window(), "salt")
        for place in range(MOST_HELD_OUT + 3)
    )
    held_out = Matcher(policies).find(SteerContext("ann"), 0.0).held_out
    assert held_out == tuple(one.ref for one in policies[:MOST_HELD_OUT])
