"""Arms of an experiment from an exposure log: each user once, replays left out, memory bounded by an even sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from recsae.exposures.record import REPLAYED, Exposure, ShadowExposure
from recsae.exposures.units import LogArms
from recsae.pipeline.triples import Triple
from recsae.steering.arms import Place, Role
from recsae.steering.receipts import PolicyRef, UnsteeredReason

# Items a, b and c; facets "is a" and "is not c".
INDEX = {"a": 1, "b": 2, "c": 3}
FACETS = np.array([[0, 0], [1, 1], [0, 1], [0, 0]], np.float32)
P1, P2 = PolicyRef("p-1", 1), PolicyRef("p-2", 1)
BARE = Exposure(
    at=1.0,
    request_id="r",
    user="u",
    model="tiny",
    triple=Triple("m"),
    plan_revision=1,
    reason=UnsteeredReason.NONE_MATCHED,
    item_ids=("a", "b", "c", "c"),
)


def applied(user: str, items: Sequence[str], ref: PolicyRef = P1) -> Exposure:
    return replace(BARE, user=user, item_ids=tuple(items), reason=UnsteeredReason.STEERED, applied=(ref,))


def arms_of(exposures: Sequence[Exposure], most_users: int = 50_000) -> LogArms:
    arms = LogArms("p-1", INDEX, FACETS, most_users)
    for one in exposures:
        arms.add(one)
    return arms


def test_a_user_counts_once_with_the_mean_of_the_lists_shown() -> None:
    found = arms_of([applied("u", "aabc"), applied("u", "cccc"), applied("v", "abbb")]).arms()
    assert list(found) == [Place(Role.APPLIED, 1)]
    values = found[Place(Role.APPLIED, 1)].values
    assert sorted(values.tolist()) == [[0.25, 0.375], [0.25, 1.0]]
    assert found[Place(Role.APPLIED, 1)].bare is None


def test_items_nobody_knows_do_not_count_and_lists_of_them_alone_are_in_no_arm() -> None:
    arms = arms_of([applied("u", ["a", "gone"]), applied("v", ["gone", "lost"])])
    assert arms.arms()[Place(Role.APPLIED, 1)].values.tolist() == [[1.0, 1.0]]
    assert arms.outside == {"no_known_items": 1}


def test_revisions_and_roles_are_arms_of_their_own() -> None:
    held = replace(BARE, user="w", held_out=(P1,))
    arms = arms_of([applied("u", "a"), applied("u", "b", PolicyRef("p-1", 2)), held]).arms()
    assert {place: arm.values.tolist() for place, arm in arms.items()} == {
        Place(Role.APPLIED, 1): [[1.0, 1.0]],
        Place(Role.APPLIED, 2): [[0.0, 1.0]],
        Place(Role.HELD_OUT, 1): [[0.25, 0.5]],
    }


def test_shadow_lists_stand_beside_what_was_served() -> None:
    shadow = ShadowExposure((P2, P1), 0.1, UnsteeredReason.STEERED, ("a", "a", "a", "b"), 0.5)
    failed = replace(shadow, item_ids=None, overlap=None)
    arms = arms_of([replace(BARE, shadow=shadow), replace(BARE, shadow=failed)])
    arm = arms.arms()[Place(Role.SHADOW, 1)]
    assert arm.values.tolist() == [[0.75, 1.0]]
    assert arm.bare is not None
    assert arm.bare.tolist() == [[0.25, 0.5]]
    assert arms.overlaps()[1].tolist() == [0.5]
    assert arms.outside == {"no_shadow_list": 1}


def test_replays_bare_answers_and_others_are_counted_outside_by_reason() -> None:
    arms = arms_of(
        [
            replace(applied("u", "a"), request_id=f"{REPLAYED}1"),
            replace(BARE, reason=UnsteeredReason.NOT_WANTED),
            replace(BARE, reason=UnsteeredReason.PLAN_TOO_OLD),
            applied("u", "a", P2),
            BARE,
        ]
    )
    assert arms.arms() == {}
    assert arms.exposures == 5
    assert arms.outside == dict.fromkeys(
        ("replayed", "not_wanted", "plan_too_old", "other_policies_alone", "none_matched"), 1
    )


def test_requests_without_a_user_count_each_for_itself_and_are_said() -> None:
    arms = arms_of([replace(applied("", "a"), request_id=f"r-{number}") for number in range(3)])
    assert len(arms.arms()[Place(Role.APPLIED, 1)]) == 3
    assert arms.unlinked == 3


@pytest.mark.parametrize("most", [20, 100])
def test_of_more_users_an_even_sample_is_kept_with_all_their_lists(most: int) -> None:
    """Two lists of each of 1,000 users, the second in another order: whoever is kept has both."""
    random = np.random.default_rng(0)
    users = [f"u-{number}" for number in range(1_000)]
    second = [users[at] for at in random.permutation(1_000)]
    exposures = [applied(user, "aaaa") for user in users] + [applied(user, "bbbb") for user in second]
    arms = arms_of(exposures, most_users=most)
    values = arms.arms()[Place(Role.APPLIED, 1)].values
    assert values.tolist() == [[0.5, 1.0]] * most
    assert len(arms._units) == most  # what memory is bounded by
