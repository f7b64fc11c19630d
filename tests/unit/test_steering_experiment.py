"""Experiments: differences and their intervals beside brute force and simulation, and who is compared with whom."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from recsae.errors import InvalidRequestError
from recsae.steering.arms import Arm, Comparing, Place, Role, comparisons, doubts, place_of
from recsae.steering.experiment import facet_shares, mean_interval, paired, quality, t_quantile, unpaired
from recsae.steering.receipts import PolicyRef, UnsteeredReason

RANDOM = np.random.default_rng(7)


def test_paired_differences_are_those_of_a_paired_t_test() -> None:
    after, before = RANDOM.random((40, 3)), RANDOM.random((40, 3))
    found = paired(after, before)
    for at in range(3):
        exact = stats.ttest_rel(after[:, at], before[:, at])
        interval = exact.confidence_interval()
        assert found.value[at] == pytest.approx((after - before)[:, at].mean())
        assert [found.low[at], found.high[at]] == pytest.approx([interval.low, interval.high], abs=1e-4)
        assert found.p[at] == pytest.approx(exact.pvalue, abs=1e-3)
    assert (found.n_after, found.n_before) == (40, 40)


def test_unpaired_differences_are_those_of_welchs_t_test() -> None:
    after, before = RANDOM.random((30, 2)), RANDOM.random((55, 2)) ** 2
    found = unpaired(after, before)
    for at in range(2):
        exact = stats.ttest_ind(after[:, at], before[:, at], equal_var=False)
        interval = exact.confidence_interval()
        assert [found.low[at], found.high[at]] == pytest.approx([interval.low, interval.high], abs=1e-4)
        assert found.p[at] == pytest.approx(exact.pvalue, abs=1e-3)
    assert found.after == pytest.approx(after.mean(axis=0))
    assert found.before == pytest.approx(before.mean(axis=0))


def test_quantiles_of_t_are_close_and_never_too_small() -> None:
    freedom = np.array([1, 2, 3, 4, 5, 8, 13, 30, 100, 10_000], np.float64)
    ratio = t_quantile(freedom) / stats.t.ppf(0.975, freedom)
    assert (ratio >= 1 - 1e-6).all()
    assert (ratio[3:] < 1.005).all()


def test_an_interval_leaves_out_zero_exactly_when_p_is_below_five_per_cent() -> None:
    after, before = RANDOM.random((12, 400)) + 0.2, RANDOM.random((9, 400))
    found = unpaired(after, before)
    assert np.array_equal((found.low > 0) | (found.high < 0), found.p < 0.05)
    assert 0 < (found.p < 0.05).mean() < 1


@pytest.mark.parametrize("kind", ["paired", "unpaired"])
def test_of_hits_that_do_not_differ_one_interval_in_twenty_says_they_do(kind: str) -> None:
    """4,000 A/A experiments of 300 users at HR .1; false alarms 5 %, +- 1 % (three standard errors)."""
    random = np.random.default_rng(11)
    # One experiment per column: users are rows.
    one, other = (random.random((300, 4_000)) < 0.1 for _ in range(2))
    found = (paired if kind == "paired" else unpaired)(one.astype(np.float64), other.astype(np.float64))
    alarms = ((found.low > 0) | (found.high < 0)).mean()
    assert 0.04 <= alarms <= 0.06


def test_a_difference_called_detectable_is_found_four_times_in_five() -> None:
    """2,000 experiments; standard error of the share .9 %."""
    random = np.random.default_rng(5)
    before = random.normal(0.5, 0.1, (200, 2_000))
    after = random.normal(0.5, 0.1, (200, 2_000))
    step = float(unpaired(after, before).detectable.mean())
    found = unpaired(after + step, before)
    assert (found.low > 0).mean() == pytest.approx(0.8, abs=0.03)


def test_users_who_all_stay_the_same_do_not_prove_that_nobody_changes() -> None:
    same = np.full((20, 1), 0.3)
    found = paired(same, same)
    share = 1 - 0.025 ** (1 / 20)  # of users, at most: none of twenty did
    assert found.value[0] == 0
    assert found.p[0] == 1
    assert found.high[0] == -found.low[0] >= share
    assert paired(np.full((2_000, 1), 0.3), np.full((2_000, 1), 0.3)).high[0] < 0.002


@pytest.mark.parametrize(("after", "before"), [((1, 2), (5, 2)), ((5, 2), (1, 2)), ((0, 2), (0, 2))])
def test_an_arm_of_one_user_is_refused(after: tuple[int, int], before: tuple[int, int]) -> None:
    with pytest.raises(InvalidRequestError, match="at least 2"):
        unpaired(np.zeros(after), np.zeros(before))


def test_paired_values_of_other_users_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="one row per user"):
        paired(np.zeros((3, 2)), np.zeros((4, 2)))


def test_a_mean_comes_with_its_interval() -> None:
    values = RANDOM.random(50)
    exact = stats.ttest_1samp(values, 0).confidence_interval()
    assert mean_interval(values) == pytest.approx((values.mean(), exact.low, exact.high), abs=1e-4)
    assert mean_interval(np.array([0.4])) == (0.4, 0.4, 0.4)
    assert mean_interval(np.ones(30))[2] == 1.0


def test_quality_and_shares_equal_a_count_by_hand() -> None:
    n, n_items, n_facets, k = 60, 25, 4, 5
    items = np.stack([1 + RANDOM.permutation(n_items)[: k + 1] for _ in range(n)])
    scores = -np.sort(RANDOM.random((n, k + 1)), axis=1).astype(np.float32)
    items[:10, 3:], scores[:10, 3:] = 0, -np.inf  # short lists
    targets = RANDOM.integers(1, n_items + 1, n)
    facets = (RANDOM.random((n_items + 1, n_facets)) < 0.4).astype(np.float32)
    facets[0] = 0
    found, shares = quality(items, scores, targets, k), facet_shares(items[:, :k], facets)
    for user in range(n):
        listed = [item for item in items[user, :k].tolist() if item]
        hit = targets[user] in listed
        assert found[user, 0] == hit
        assert found[user, 1] == pytest.approx(1 / math.log2(listed.index(targets[user]) + 2) if hit else 0)
        for facet in range(n_facets):
            assert shares[user, facet] == pytest.approx(np.mean([facets[item, facet] for item in listed]))
    assert facet_shares(np.zeros((2, k), np.int64), facets).sum() == 0


def test_p_of_facets_is_adjusted_for_their_number_and_that_of_quality_is_not() -> None:
    found = paired(RANDOM.random((30, 12)), RANDOM.random((30, 12)))
    adjusted = found.adjusted(slice(2, 12))
    assert np.array_equal(adjusted[:2], found.p[:2])
    assert adjusted[2:] == pytest.approx(stats.false_discovery_control(found.p[2:]))


P1, P2 = PolicyRef("p-1", 4), PolicyRef("p-2", 1)


@pytest.mark.parametrize(
    ("reason", "applied", "held_out", "shadow", "expected"),
    [
        (UnsteeredReason.STEERED, (P2, P1), (), (), Place(Role.APPLIED, 4)),
        (UnsteeredReason.STEERED, (P2,), (P1,), (), Place(Role.HELD_OUT, 4)),
        (UnsteeredReason.NONE_MATCHED, (), (P1,), (P2,), Place(Role.HELD_OUT, 4)),
        (UnsteeredReason.NONE_MATCHED, (), (), (P1,), Place(Role.SHADOW, 4)),
        (UnsteeredReason.STEERED, (P2,), (), (), "other_policies_alone"),
        (UnsteeredReason.KILL_SWITCH, (), (P2,), (), "kill_switch"),
        (UnsteeredReason.NONE_MATCHED, (), (), (), "none_matched"),
    ],
)
def test_a_receipt_says_the_arm_and_the_revision_or_why_there_is_none(
    reason: UnsteeredReason,
    applied: tuple[PolicyRef, ...],
    held_out: tuple[PolicyRef, ...],
    shadow: tuple[PolicyRef, ...],
    expected: Place | str,
) -> None:
    assert place_of("p-1", reason=reason, applied=applied, held_out=held_out, shadow=shadow) == expected


def arm(n: int, *, bare: bool = True, shift: float = 0.0) -> Arm:
    values = RANDOM.random((n, 2)) * 0.5
    return Arm(values + shift, values if bare else None)


def test_each_revision_is_compared_within_itself_newest_first() -> None:
    arms = {Place(role, revision): arm(5, shift=0.1) for role, revision in product(Role, (1, 2))}
    found = [(one.revision, one.comparing) for one in comparisons(arms)]
    assert found == [(revision, comparing) for revision in (2, 1) for comparing in Comparing]


def test_what_cannot_be_compared_is_not() -> None:
    assert comparisons({}) == []
    assert comparisons({Place(Role.HELD_OUT, 1): arm(9)}) == []
    assert comparisons({Place(Role.APPLIED, 1): arm(1), Place(Role.HELD_OUT, 1): arm(9)}) == []
    apart = {Place(Role.APPLIED, 1): arm(9, bare=False), Place(Role.HELD_OUT, 2): arm(9, bare=False)}
    assert comparisons(apart) == []
    logged = {Place(Role.APPLIED, 1): arm(9, bare=False), Place(Role.HELD_OUT, 1): arm(9, bare=False)}
    assert [one.comparing for one in comparisons(logged)] == [Comparing.ARMS]


def test_held_out_users_nobody_steers_need_no_adjusting() -> None:
    arms = {Place(Role.APPLIED, 1): arm(9, shift=0.1), Place(Role.HELD_OUT, 1): arm(9)}
    assert [one.comparing for one in comparisons(arms)] == [Comparing.PAIRED, Comparing.ARMS]


def test_adjusting_takes_away_what_other_policies_do_to_both_arms() -> None:
    """The policy adds .1, another one adds .2 to everybody; users differ by far more than that."""
    values = {role: RANDOM.random((400, 1)) * 0.5 for role in (Role.APPLIED, Role.HELD_OUT)}
    noise = {role: RANDOM.normal(0, 0.01, (400, 1)) for role in values}
    arms = {
        Place(role, 1): Arm(bare + 0.2 + (0.1 if role is Role.APPLIED else 0.0) + noise[role], bare)
        for role, bare in values.items()
    }
    found = {one.comparing: one.found for one in comparisons(arms)}
    assert found[Comparing.PAIRED].value[0] == pytest.approx(0.3, abs=0.01)
    assert found[Comparing.ADJUSTED].value[0] == pytest.approx(0.1, abs=0.01)
    widths = {comparing: one.high[0] - one.low[0] for comparing, one in found.items()}
    assert widths[Comparing.ADJUSTED] < widths[Comparing.ARMS] / 5


def test_responses_refused_in_one_arm_alone_are_said() -> None:
    both = {Place(role, 1): arm(50) for role in (Role.APPLIED, Role.HELD_OUT)}
    (sentence,) = doubts(both, [], ["hr@10"], {"over_norm_budget": 7, "none_matched": 90})
    assert sentence.startswith("7 responses were to be steered")
    assert doubts({Place(Role.APPLIED, 1): arm(50)}, [], ["hr@10"], {"over_norm_budget": 7}) == []


def test_small_arms_and_wide_intervals_are_said_with_what_it_would_take() -> None:
    random = np.random.default_rng(2)
    arms = {
        Place(role, 3): Arm((random.random((20, 1)) < 0.2).astype(np.float64)) for role in (Role.APPLIED, Role.HELD_OUT)
    }
    found = doubts(arms, comparisons(arms), ["ndcg@10"])
    assert [sentence for sentence in found if "arm applied: too few" in sentence]
    (wide,) = [sentence for sentence in found if "ndcg@10" in sentence]
    assert "one of 10 % takes about" in wide
    large = {place: Arm((random.random((200_000, 1)) < 0.2).astype(np.float64)) for place in arms}
    assert doubts(large, comparisons(large), ["ndcg@10"]) == []
