"""Measures of a panel are what counting by hand gives, and their intervals are those of paired users."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.concepts.catalogue import Catalogue, load_catalogue, make_catalogue
from recsae.concepts.effects import CausalRecord, DoseEffect
from recsae.concepts.estimates import UNKNOWN, Estimate
from recsae.concepts.handles import Handle
from recsae.errors import CorruptArtifactError
from recsae.steering.expected_cost import loss_upper
from recsae.steering.panel import (
    coverage,
    mean_over,
    mean_value,
    most_changed,
    moves,
    paired,
    places_held,
    weights,
)
from recsae.steering.policies import Operation, OperationKind
from recsae.steering.safety import HandleUse

USERS, K, ITEMS, FACETS = 40, 6, 30, 9
Lists = NDArray[np.int64]


def lists(seed: int, *, short: bool = True) -> Lists:
    """Random lists; every fifth one is three items short, the eleventh empty."""
    random = np.random.default_rng(seed)
    found = np.stack([random.permutation(ITEMS)[:K] for _ in range(USERS)]).astype(np.int64)
    if short:
        found[::5, -3:] = -1
        found[11] = -1
    return found


def items_of(row: NDArray[np.int64]) -> list[int]:
    return [one for one in row.tolist() if one >= 0]


BEFORE, AFTER = lists(0), np.where(np.arange(USERS)[:, None] % 4 == 0, lists(0), lists(1))


def test_moves_are_what_comparing_the_lists_by_hand_gives() -> None:
    found = moves(BEFORE, AFTER)
    for user in range(USERS):
        old, new = items_of(BEFORE[user]), items_of(AFTER[user])
        shared = set(old) & set(new)
        assert found.overlap[user] == pytest.approx(len(shared) / K)
        assert found.entered[user] == len(set(new) - set(old))
        distances = [abs(old.index(one) - new.index(one)) for one in shared]
        assert np.isnan(found.moved[user]) if not shared else found.moved[user] == pytest.approx(np.mean(distances))
        ranks = [old.index(one) + 1 if one in shared else 0 for one in new]
        assert found.rank_before[user].tolist() == ranks + [0] * (K - len(new))
        assert found.changed[user] == (old != new)


def test_moves_do_not_hang_on_how_many_users_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = moves(BEFORE, AFTER)
    monkeypatch.setattr("recsae.steering.panel._CELLS_AT_ONCE", 1)
    np.testing.assert_array_equal(moves(BEFORE, AFTER).rank_before, whole.rank_before)


def test_shares_and_means_of_a_list_leave_empty_places_and_unknown_items_out() -> None:
    random = np.random.default_rng(3)
    member = random.random(ITEMS) < 0.3
    values = np.where(random.random(ITEMS) < 0.2, np.nan, random.random(ITEMS))
    shares, means = places_held(BEFORE, member), mean_value(BEFORE, values)
    for user in range(USERS):
        own = items_of(BEFORE[user])
        assert shares[user] == pytest.approx(np.mean([member[one] for one in own]) if own else 0.0)
        known = [values[one] for one in own if np.isfinite(values[one])]
        assert np.isnan(means[user]) if not known else means[user] == pytest.approx(np.mean(known))


def test_coverage_counts_items_anybody_is_shown_and_its_error_leaves_out_each_user_in_turn() -> None:
    def shown(users: list[int], which: Lists) -> int:
        return len({item for user in users for item in items_of(which[user])})

    before, after = BEFORE[:7], AFTER[:7]
    found = coverage(before, after, ITEMS, 50)
    everybody = list(range(7))
    assert found.before == shown(everybody, before) / 50
    assert found.after == shown(everybody, after) / 50
    left_out = [everybody[:user] + everybody[user + 1 :] for user in everybody]
    changes = np.array([shown(users, after) - shown(users, before) for users in left_out])
    error = np.sqrt(6 / 7 * np.square(changes - changes.mean()).sum()) / 50
    assert found.difference.value == pytest.approx(found.after - found.before)
    assert found.difference.high - found.difference.value == pytest.approx(1.959964 * error)
    assert found.difference.value - found.difference.low == pytest.approx(1.959964 * error)


def test_intervals_of_a_difference_are_paired() -> None:
    random = np.random.default_rng(1)
    level = random.normal(size=200) * 10
    change = random.normal(0.5, 0.1, 200)
    after = level + change
    after[3] = np.nan
    found = paired(level, after)
    kept = np.delete(change, 3)
    reach = 1.959964 * kept.std(ddof=1) / np.sqrt(199)
    assert found.difference.value == pytest.approx(kept.mean())
    assert found.difference.high - found.difference.low == pytest.approx(2 * reach)
    assert found.before == pytest.approx(np.delete(level, 3).mean())
    assert found.difference.low > 0.4


def test_nineteen_of_twenty_intervals_hold_the_mean() -> None:
    random = np.random.default_rng(2)
    held = [
        one.low <= 0.3 <= one.high for one in (mean_over((random.random(300) < 0.3).astype(float)) for _ in range(1000))
    ]
    assert 0.925 < np.mean(held) < 0.97


def test_nobody_and_one_user_have_no_interval() -> None:
    assert mean_over(np.array([])) == Estimate(0.0, 0.0, 0.0)
    assert mean_over(np.array([np.nan, 2.0])) == Estimate(2.0, 2.0, 2.0)
    assert paired(np.array([np.nan]), np.array([1.0])).difference == Estimate(0.0, 0.0, 0.0)


def catalogue() -> Catalogue:
    random = np.random.default_rng(4)
    carriers, carried = np.nonzero(random.random((ITEMS, FACETS)) < 0.3)
    order = random.permutation(len(carriers))
    return make_catalogue(
        [f"i-{item}" for item in range(ITEMS)],
        random.integers(0, 8, ITEMS),
        [f"genre={facet}" for facet in range(FACETS)],
        carriers[order],
        carried[order],
    )


def test_the_facets_that_changed_most_are_those_whose_mean_share_did() -> None:
    made = catalogue()
    held = [weights(which, ITEMS) for which in (BEFORE, AFTER)]
    found = most_changed(held[0], held[1], made.offsets, made.carried.astype(np.int64), FACETS)
    changes = []
    for facet in range(FACETS):
        member = np.isin(np.arange(ITEMS), made.members(facet))
        changes.append(places_held(AFTER, member).mean() - places_held(BEFORE, member).mean())
    assert found.tolist() == sorted(range(FACETS), key=lambda facet: -abs(changes[facet]))
    assert most_changed(held[0], held[1], made.offsets, made.carried.astype(np.int64), 2).tolist() == found[:2].tolist()
    assert not len(most_changed(held[0], held[0], made.offsets, made.carried.astype(np.int64), FACETS))


def test_a_catalogue_comes_back_from_its_file_and_knows_members_and_popularity(tmp_path: Path) -> None:
    made = catalogue()
    made.save(tmp_path)
    back = load_catalogue(tmp_path)
    assert back is not None
    assert (back.item_ids, back.facets) == (made.item_ids, made.facets)
    for facet in range(FACETS):
        carriers = [item for item in range(ITEMS) if facet in made.carried[made.offsets[item] : made.offsets[item + 1]]]
        assert back.members(facet).tolist() == carriers
    for item in range(ITEMS):
        others = np.delete(made.counts, item)
        rarer, alike = (others < made.counts[item]).sum(), (others == made.counts[item]).sum()
        assert back.popularity[item] == pytest.approx((rarer + alike / 2) / (ITEMS - 1))


def test_a_catalogue_whose_parts_do_not_fit_is_refused_and_one_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert load_catalogue(tmp_path) is None
    made = catalogue()
    Catalogue(made.item_ids[1:], made.counts, made.facets, made.offsets, made.carried).save(tmp_path)
    with pytest.raises(CorruptArtifactError, match="arrays are of others"):
        load_catalogue(tmp_path)
    (tmp_path / "catalogue.safetensors").write_bytes(b"nothing")
    with pytest.raises(CorruptArtifactError, match="holds no catalogue"):
        load_catalogue(tmp_path)


def dose(operation: str, at: float, loss: float) -> DoseEffect:
    return DoseEffect(operation, at, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, 0.5, loss_upper=loss)


def test_what_operations_may_cost_adds_up_and_is_not_known_beyond_what_was_measured() -> None:
    doses = (dose("add", 1.0, 0.02), dose("add", 2.0, 0.06), dose("cap", 1.0, 0.01))
    record = CausalRecord("genre=1", 100, doses, (), True, 0.9)
    handle = Handle("genre=2", ("a", "b"), (1.0, 1.0), (dose("add", 1.0, 0.03),), None, 100)  # type: ignore[arg-type]
    known = {"a": record, "b": None}

    def add(value: float) -> Operation:
        return Operation("a", OperationKind.ADD, value)

    assert loss_upper([add(0.5)], [], known.get) == pytest.approx(0.01)
    assert loss_upper([add(1.5)], [HandleUse(handle, 0.5)], known.get) == pytest.approx(0.04 + 0.015)
    assert loss_upper([add(2.5)], [], known.get) is None
    assert loss_upper([add(-0.1)], [], known.get) is None
    assert loss_upper([Operation("a", OperationKind.SET, 1.0)], [], known.get) is None
    assert loss_upper([Operation("b", OperationKind.ADD, 1.0)], [], known.get) is None
    assert loss_upper([add(1.0)], [HandleUse(handle, 1.5)], known.get) is None
