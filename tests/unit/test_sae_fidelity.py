"""What reconstruction costs in ranking: quality kept, agreement of lists, and intervals that resample users."""

from __future__ import annotations

from copy import copy
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.sae.baselines import PrincipalAxes
from recsae.sae.batches import ArrayRows
from recsae.sae.dot_product import DotProductRanker
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.fidelity import Fidelity, Kept, fidelity, fidelity_of, gains, ranking_sums
from recsae.sae.rankings import DEPTH, Rankings
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.user_sums import UserSums
from recsae.sae.weights import SaeWeights

D, WIDTH, K = 8, 32, 3
Floats = NDArray[np.float32]
Ranks = NDArray[np.int64]


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> SparseAutoencoder:
    w_dec = np.random.default_rng(0).normal(size=(WIDTH, D))
    w_dec = (w_dec / np.linalg.norm(w_dec, axis=1, keepdims=True)).astype(np.float32)
    zero = np.zeros(D, np.float32)
    folder = tmp_path_factory.mktemp("sae")
    weights = SaeWeights(w_dec, np.zeros(WIDTH, np.float32), w_dec, zero, zero + np.float32(0.1))
    export_sae(weights, K, TrainingFacts(1.0, 1.0), folder)
    return SparseAutoencoder.load(folder, "ab")


def _x(n: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)


def _ranked(ranks: Ranks) -> Rankings:
    """Rankings of which only the targets' places matter."""
    return Rankings(ranks, np.tile(np.arange(DEPTH), (len(ranks), 1)))


def _compare(
    original: Ranks,
    sae: Ranks,
    adaptive_pca: Ranks | None = None,
    users: NDArray[np.int64] | None = None,
) -> Fidelity:
    other = original if adaptive_pca is None else adaptive_pca
    sides = {"sae": _ranked(sae), "pca": _ranked(other), "adaptive_pca": _ranked(other)}
    return fidelity_of(ranking_sums(_ranked(original), sides, users=users), components=K)


def _kept(original: Ranks, reconstructed: Ranks, users: NDArray[np.int64] | None = None) -> Kept:
    return _compare(original, reconstructed, users=users).sae.kept["ndcg@10"]


def test_gains_follow_the_definition() -> None:
    found = gains(np.array([1, 3, 10, 11, 21], np.int64))
    np.testing.assert_allclose(found["ndcg@10"], [1, 1 / 2, 1 / np.log2(11), 0, 0])
    np.testing.assert_allclose(found["hr@10"], [1, 1, 1, 0, 0])
    np.testing.assert_allclose(found["hr@20"], [1, 1, 1, 1, 0])


def test_equal_ranks_keep_everything_and_lost_targets_nothing() -> None:
    ranks = np.random.default_rng(0).integers(1, 40, size=200)
    same = _compare(ranks, ranks)
    assert set(same.sae.kept) == {f"{measure}@{k}" for measure in ("hr", "ndcg") for k in (5, 10, 20)}
    assert all((kept.ratio, kept.low, kept.high) == (1.0, 1.0, 1.0) for kept in same.sae.kept.values())
    lost = _compare(ranks, np.full(200, np.iinfo(np.int64).max))
    assert all(kept.ratio == 0.0 for kept in lost.sae.kept.values())
    assert all((gap.value, gap.low, gap.high) == (-1.0, -1.0, -1.0) for gap in lost.over_adaptive_pca.values())


def test_measures_with_nothing_to_keep_are_left_out() -> None:
    ranks = np.full(10, 7)
    assert set(_compare(ranks, ranks).sae.kept) == {"hr@10", "hr@20", "ndcg@10", "ndcg@20"}
    assert _compare(ranks + 100, ranks).sae.kept == {}
    assert "ndcg@10_kept" not in _compare(ranks + 100, ranks).scores()


def _draw(rng: np.random.Generator, n: int) -> tuple[Ranks, Ranks, Ranks]:
    """Places with the original, with a reconstruction that moves a tenth of the targets down, and with a worse one."""
    before = np.minimum(rng.geometric(0.08, n), 60)
    moved, more = rng.random(n) < 0.1, rng.random(n) < 0.1
    after = np.where(moved, before + rng.integers(1, 30, n), before)
    return before, after, np.where(more, after + rng.integers(1, 30, n), after)


def test_the_interval_is_paired_and_covers_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 draws of 300 users: coverage of a 95 % interval is within [.88, .995] with probability > .999."""
    monkeypatch.setattr("recsae.sae.user_sums.RESAMPLES", 300)
    rng = np.random.default_rng(0)
    before, after, _ = _draw(rng, 400_000)
    truth = gains(after)["ndcg@10"].mean() / gains(before)["ndcg@10"].mean()
    draws = [_draw(rng, 300) for _ in range(200)]
    covered = [kept.low <= truth <= kept.high for kept in (_kept(before, after) for before, after, _ in draws)]
    assert 0.88 <= np.mean(covered) <= 0.995
    before, after, _ = draws[0]
    paired, unpaired = _kept(before, after), _kept(before, rng.permutation(after))
    assert paired.high - paired.low < 0.5 * (unpaired.high - unpaired.low)


def test_the_interval_of_the_difference_covers_the_planted_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As above: 200 draws of 300 users, within [.88, .995] with probability > .999 if coverage is 95 %.

    And with no difference planted the lower bound is above 0 in about 2.5 % of draws: over 9 % (19 of 200) with
    probability < .001.
    """
    monkeypatch.setattr("recsae.sae.user_sums.RESAMPLES", 300)
    rng = np.random.default_rng(3)
    before, after, worse = _draw(rng, 400_000)
    quality = gains(before)["ndcg@10"].mean()
    truth = (gains(after)["ndcg@10"].mean() - gains(worse)["ndcg@10"].mean()) / quality
    assert truth > 0.03
    gaps = [_compare(*_draw(rng, 300)).over_adaptive_pca["ndcg@10"] for _ in range(200)]
    assert 0.88 <= np.mean([gap.low <= truth <= gap.high for gap in gaps]) <= 0.995
    alarms = 0
    for _ in range(200):
        before, after, _ = _draw(rng, 300)
        moved = rng.random(300) < 0.1
        alike = np.where(moved, before + rng.integers(1, 30, 300), before)
        alarms += _compare(before, after, alike).over_adaptive_pca["ndcg@10"].low > 0
    assert alarms <= 18


def test_the_difference_is_narrower_than_its_sides() -> None:
    """What users have in common cancels, since both sides are drawn with the same users."""
    before, after, worse = _draw(np.random.default_rng(4), 600)
    worse = np.where(after == before, after, worse)
    found = _compare(before, after, worse)
    kept, gap = found.adaptive_pca.kept["ndcg@10"], found.over_adaptive_pca["ndcg@10"]
    assert gap.high - gap.low < 0.8 * (kept.high - kept.low)
    assert gap.value == pytest.approx(found.sae.kept["ndcg@10"].ratio - kept.ratio)


def test_several_rows_of_a_user_are_resampled_together() -> None:
    ranks = np.random.default_rng(1).integers(1, 40, size=100)
    other = ranks + np.random.default_rng(2).integers(0, 6, size=100)
    once = _kept(ranks, other)
    repeated = _kept(np.repeat(ranks, 9), np.repeat(other, 9), users=np.repeat(np.arange(100), 9))
    naive = _kept(np.repeat(ranks, 9), np.repeat(other, 9))
    assert (repeated.ratio, repeated.low, repeated.high) == pytest.approx((once.ratio, once.low, once.high))
    assert naive.high - naive.low < 0.5 * (repeated.high - repeated.low)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=4), seed=st.integers(0, 99))
def test_scores_do_not_depend_on_how_the_rows_are_cut(cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    users = rng.integers(0, 25, size=60)
    rankings = [
        Rankings(rng.integers(1, 30, size=60), rng.permuted(np.tile(np.arange(15), (60, 1)), axis=1)[:, :DEPTH])
        for _ in range(4)
    ]

    def sums(begin: int, end: int) -> UserSums:
        original, *sides = (Rankings(part.ranks[begin:end], part.items[begin:end]) for part in rankings)
        named = dict(zip(("sae", "pca", "adaptive_pca"), sides, strict=True))
        return ranking_sums(original, named, users=users[begin:end])

    edges = sorted({0, 60, *cuts})
    first, *rest = [sums(a, b) for a, b in pairwise(edges)]
    for part in rest:
        first += part
    whole = fidelity_of(sums(0, 60), components=K).scores()
    assert fidelity_of(first, components=K).scores() == pytest.approx(whole, rel=1e-9, abs=1e-12)


def test_resampled_totals_scatter_as_sums_of_drawn_users_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """u draws of u values: mean and variance of their sum are u m and u s^2; 4 standard errors, false alarm < 1e-4."""
    values = np.random.default_rng(0).gamma(2.0, size=50)
    sums = UserSums.of(np.arange(50), {"a": values, "b": 2 * values})
    monkeypatch.setattr("recsae.sae.user_sums._COUNTS_AT_ONCE", 333)
    samples = sums.resample(1, 4_000).samples
    np.testing.assert_array_equal(samples[:, 1], 2 * samples[:, 0])
    deviation = np.sqrt(50 * values.var())
    assert abs(samples[:, 0].mean() - values.sum()) < 4 * deviation / np.sqrt(4_000)
    assert samples[:, 0].std() == pytest.approx(deviation, rel=4 / np.sqrt(2 * 4_000))
    ratio = sums.resample(1).ratio("b", "a", minus="a")
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1, 1, 1))


def test_sums_that_do_not_fit_are_refused() -> None:
    ranks = np.ones(3, np.int64)
    with pytest.raises(InvalidRequestError, match="same users"):
        ranking_sums(_ranked(ranks), {"sae": _ranked(np.ones(4, np.int64))})
    with pytest.raises(InvalidRequestError, match="at least one"):
        ranking_sums(_ranked(ranks[:0]), {"sae": _ranked(ranks[:0])})
    with pytest.raises(InvalidRequestError, match="do not add up"):
        UserSums.of(ranks, {"a": np.ones(3)}) + UserSums.of(ranks, {"b": np.ones(3)})
    with pytest.raises(InvalidRequestError, match="a is zero"):
        UserSums.of(ranks, {"a": np.zeros(3)}).resample(0).ratio("a", "a")
    with pytest.raises(InvalidRequestError, match="no users"):
        UserSums.of(ranks[:0], {"a": np.zeros(0)}).resample(0)


def _catalogue(x: Floats) -> DotProductRanker:
    """The model is right about everybody, so every error costs."""
    items = _x(50, seed=8)
    return DotProductRanker(items, (x @ items.T).argmax(axis=1))


def test_fidelity_puts_the_sae_beside_as_many_components(sae: SparseAutoencoder) -> None:
    x = _x(400)
    ranker = _catalogue(x)
    found = fidelity(sae, PrincipalAxes.fit(ArrayRows(x)), x, ranker)
    scores = found.scores()
    assert found.components == scores["components"] == K
    assert scores["ndcg@10_kept"] == found.sae.kept["ndcg@10"].ratio
    assert scores["ndcg@10_kept_low"] <= scores["ndcg@10_kept"] <= scores["ndcg@10_kept_high"]
    assert 0 < scores["ndcg@10_kept_pca"] < scores["ndcg@10_kept_adaptive_pca"] < 1
    assert scores["ndcg@10_original"] == pytest.approx(gains(ranker(x).ranks)["ndcg@10"].mean())
    for side in ("pca", "adaptive_pca"):
        gap = scores["ndcg@10_kept"] - scores[f"ndcg@10_kept_{side}"]
        assert scores[f"ndcg@10_kept_minus_{side}"] == pytest.approx(gap)
    for name in ("overlap@10", "rbo@10", "kendall@10"):
        assert scores[f"{name}_pca"] < scores[f"{name}_adaptive_pca"] < 1
        assert scores[f"{name}_low"] < scores[name] < scores[f"{name}_high"] < 1


def test_a_worse_reconstruction_keeps_less_and_agrees_less() -> None:
    x = _x(400)
    ranker, noise = _catalogue(x), _x(400, seed=9)
    original = ranker(x)
    sides = {
        name: ranker(x + np.float32(size) * noise) for name, size in (("sae", 0.1), ("pca", 0.4), ("adaptive_pca", 1.2))
    }
    found = fidelity_of(ranking_sums(original, sides), components=K)
    for name in ("overlap@10", "rbo@10", "kendall@10"):
        good, bad, worst = (side.agreement[name] for side in (found.sae, found.pca, found.adaptive_pca))
        assert good.low > bad.high
        assert bad.low > worst.high
    for name in ("hr@10", "ndcg@5", "ndcg@20"):
        assert found.sae.kept[name].ratio > found.pca.kept[name].ratio > found.adaptive_pca.kept[name].ratio
        assert found.over_adaptive_pca[name].low > 0


def test_baselines_get_as_many_components_as_latents_fire(sae: SparseAutoencoder) -> None:
    """An SAE that fires more latents per row than the k it is named for is not put beside weaker components."""
    x, named_for_one = _x(200), copy(sae)
    named_for_one.k = 1
    assert fidelity(named_for_one, PrincipalAxes.fit(ArrayRows(x)), x, _catalogue(x)).components == K
