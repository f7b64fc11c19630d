"""The benchmark of matching: its plans are what it says, and the index leaves next to nothing to try."""

from __future__ import annotations

import pytest
from benchmarks.matching import MATCHING, MIXES, NOW, POLICIES, one_by_one, requests, thousand_policies

from recsae.steering.matching import Matcher
from recsae.steering.segments import Attributes


@pytest.mark.parametrize("mix", [mix for mix in MIXES if mix != "everyone at 0.5 %"])
def test_of_a_thousand_policies_few_match_and_none_has_to_be_tried(mix: str) -> None:
    policies = thousand_policies(mix).policies
    assert len(policies) == POLICIES
    matcher, tried = Matcher(policies), list[int]()
    for place, predicate in list(matcher._predicates.items()):

        def counted(attributes: Attributes, place: int = place, inner: object = predicate) -> bool | None:
            tried.append(place)
            return inner(attributes)  # type: ignore[operator, no-any-return]

        matcher._predicates[place] = counted
    for context in requests()[:4]:
        found = matcher.find(context, NOW)
        assert list(found.live) == one_by_one(policies, context)
        assert len(found.live) + len(found.held_out) <= 10
        assert len(found.live) >= 1
    assert len(tried) <= 4 * MATCHING
