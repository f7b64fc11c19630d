"""Scores of an SAE: sums that add, dead latents, and what reconstruction costs in ranking quality."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.sae.baselines import PrincipalAxes
from recsae.sae.batches import ArrayRows
from recsae.sae.codes import Codes
from recsae.sae.evaluation import ReconstructionSums, evaluate, reconstruction_sums
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.fidelity import fidelity, gains, quality_kept
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.shards import ActivationShard, ShardReader, item_probes, write_shard
from recsae.sae.weights import SaeWeights

D, WIDTH, K = 8, 32, 3
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> SparseAutoencoder:
    rng = np.random.default_rng(0)
    w_dec = rng.normal(size=(WIDTH, D))
    w_dec = (w_dec / np.linalg.norm(w_dec, axis=1, keepdims=True)).astype(np.float32)
    b_enc = np.where(np.arange(WIDTH) < 28, 0.0, -1e3).astype(np.float32)  # the last four never fire
    zero = np.zeros(D, np.float32)
    folder = tmp_path_factory.mktemp("sae")
    export_sae(SaeWeights(w_dec, b_enc, w_dec, zero, zero + np.float32(0.1)), K, TrainingFacts(1.0, 1.0), folder)
    return SparseAutoencoder.load(folder, "ab")


def _x(n: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 200), max_size=5))
def test_scores_do_not_depend_on_how_the_set_is_cut(sae: SparseAutoencoder, cuts: list[int]) -> None:
    x = _x(200)
    edges = sorted({0, 200, *cuts})
    whole = reconstruction_sums(sae, [x])
    parts = reconstruction_sums(sae, [x[a:b] for a, b in pairwise(edges)])
    assert parts.n == whole.n == 200
    for name in ("fvu", "explained_variance", "cosine", "l0", "dead_share", "rare_share"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12)
    np.testing.assert_array_equal(parts.fired, whole.fired)


def test_scores_equal_their_definitions(sae: SparseAutoencoder) -> None:
    x = _x(300) * np.linspace(0.1, 3, 300, dtype=np.float32)[:, None]
    codes = sae.encode(x)
    x_hat = sae.decode(codes).astype(np.float64)
    sums = reconstruction_sums(sae, [x])
    residual = x - x_hat
    fvu = np.square(residual).sum() / np.square(x - sae.mean).sum()
    assert sums.fvu == pytest.approx(fvu)
    assert sums.fvu != pytest.approx((np.square(residual).sum(1) / np.square(x - sae.mean).sum(1)).mean(), rel=0.02)
    assert sums.explained_variance == pytest.approx(1 - residual.var(axis=0).sum() / x.astype(float).var(axis=0).sum())
    cosine = (x * x_hat).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(x_hat, axis=1)
    assert sums.cosine == pytest.approx(cosine.mean(), rel=1e-6)
    assert sums.l0 == pytest.approx((codes.values > 0).sum(axis=1).mean())


def test_a_latent_is_dead_only_if_it_never_fires_in_either_set() -> None:
    def sums(latents: list[int]) -> ReconstructionSums:
        n = len(latents)
        codes = Codes(np.array(latents, np.int32)[:, None], np.ones((n, 1), np.float32))
        x = np.ones((n, 2), np.float32)
        return ReconstructionSums.of(x, codes, x, np.zeros(2, np.float32), width=4)

    users, items = sums([0, 0, 1]), sums([2])
    assert (users.dead_share, items.dead_share, (users + items).dead_share) == (0.5, 0.75, 0.25)
    np.testing.assert_allclose((users + items).density, [0.5, 0.25, 0.25, 0])


def test_positions_last_positions_and_items_are_told_apart(
    sae: SparseAutoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [3, 1, 5, 2]
    user = np.repeat(np.arange(4, dtype=np.int32), lengths)
    position = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    x = _x(len(user))
    # User 2's rows lie on both sides of a shard boundary and of a chunk boundary.
    for name, part in (("a", slice(0, 6)), ("b", slice(6, None))):
        shard = ActivationShard(x[part], user[part], position[part], np.ones_like(user[part]))
        write_shard(tmp_path, name, shard, {})
    probes = _x(7, seed=4)
    write_shard(tmp_path, "probes", item_probes(probes, np.arange(1, 8, dtype=np.int32)), {})
    monkeypatch.setattr("recsae.sae.evaluation._CHUNK_ROWS", 4)
    found = evaluate(sae, ShardReader.open_folders(tmp_path))
    last = x[np.cumsum(lengths) - 1]
    for sums, rows in ((found.positions, x), (found.last, last), (found.items, probes)):
        expected = reconstruction_sums(sae, [rows])
        assert sums.n == len(rows)
        assert sums.fvu == pytest.approx(expected.fvu)
        np.testing.assert_array_equal(sums.fired, expected.fired)
    scores = found.scores()
    assert scores["dead"] <= min(scores["dead_users"], scores["dead_items"])
    assert scores["dead"] >= 4 / WIDTH


def test_gains_follow_the_definition() -> None:
    found = gains(np.array([1, 3, 10, 11, 21], np.int64))
    np.testing.assert_allclose(found["ndcg@10"], [1, 1 / 2, 1 / np.log2(11), 0, 0])
    np.testing.assert_allclose(found["hr@10"], [1, 1, 1, 0, 0])
    np.testing.assert_allclose(found["hr@20"], [1, 1, 1, 1, 0])


def test_equal_ranks_keep_everything_and_lost_targets_nothing() -> None:
    ranks = np.random.default_rng(0).integers(1, 40, size=200)
    same = quality_kept(ranks, ranks)
    assert all((kept.ratio, kept.low, kept.high) == (1.0, 1.0, 1.0) for kept in same.values())
    lost = quality_kept(ranks, np.full(200, np.iinfo(np.int64).max))
    assert all(kept.ratio == 0.0 for kept in lost.values())


def test_measures_with_nothing_to_keep_are_left_out() -> None:
    ranks = np.full(10, 7)
    assert set(quality_kept(ranks, ranks)) == {"hr@10", "hr@20", "ndcg@10", "ndcg@20"}
    assert quality_kept(ranks + 100, ranks) == {}


def test_the_interval_is_paired_and_covers_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 draws of 300 users: coverage of a 95 % interval is within [.88, .995] with probability > .999."""
    monkeypatch.setattr("recsae.sae.fidelity._RESAMPLES", 300)
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        before = np.minimum(rng.geometric(0.08, n), 60)
        after = np.where(rng.random(n) < 0.1, before + rng.integers(1, 30, n), before)
        return before, after

    before, after = draw(400_000)
    truth = gains(after)["ndcg@10"].mean() / gains(before)["ndcg@10"].mean()
    covered = [kept.low <= truth <= kept.high for kept in (quality_kept(*draw(300))["ndcg@10"] for _ in range(200))]
    assert 0.88 <= np.mean(covered) <= 0.995
    before, after = draw(300)
    paired = quality_kept(before, after)["ndcg@10"]
    unpaired = quality_kept(before, rng.permutation(after))["ndcg@10"]
    assert paired.high - paired.low < 0.5 * (unpaired.high - unpaired.low)


def test_several_rows_of_a_user_are_resampled_together() -> None:
    ranks = np.random.default_rng(1).integers(1, 40, size=100)
    other = ranks + np.random.default_rng(2).integers(0, 6, size=100)
    once = quality_kept(ranks, other)["ndcg@10"]
    repeated = quality_kept(np.repeat(ranks, 9), np.repeat(other, 9), users=np.repeat(np.arange(100), 9))["ndcg@10"]
    naive = quality_kept(np.repeat(ranks, 9), np.repeat(other, 9))["ndcg@10"]
    assert (repeated.ratio, repeated.low, repeated.high) == pytest.approx((once.ratio, once.low, once.high))
    assert naive.high - naive.low < 0.5 * (repeated.high - repeated.low)


def test_ranks_of_different_users_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="same users"):
        quality_kept(np.ones(3, np.int64), np.ones(4, np.int64))
    with pytest.raises(InvalidRequestError, match="same users"):
        quality_kept(np.ones(0, np.int64), np.ones(0, np.int64))


def test_principal_components_keep_what_they_should() -> None:
    rng = np.random.default_rng(0)
    x = (2 + rng.normal(size=(500, 3)) @ rng.normal(size=(3, D))).astype(np.float32)
    axes = PrincipalAxes.fit(ArrayRows(x))
    np.testing.assert_allclose(axes.keep_first(x, 3), x, atol=1e-4)
    y = _x(100)
    np.testing.assert_allclose(axes.keep_first(y, D), y, atol=1e-5)
    np.testing.assert_allclose(axes.keep_largest(y, D), y, atol=1e-5)
    for k in range(1, D):
        fixed, adaptive = (np.square(keep(y, k) - y).sum(axis=1) for keep in (axes.keep_first, axes.keep_largest))
        assert (adaptive <= fixed + 1e-6).all()
    with pytest.raises(InvalidRequestError, match=r"1\.\.8"):
        axes.keep_first(y, D + 1)


def test_fidelity_puts_the_sae_beside_as_many_components(sae: SparseAutoencoder) -> None:
    x, items = _x(400), _x(50, seed=8)
    targets = (x @ items.T).argmax(axis=1)  # the model is right about everybody, so every error costs

    def ranker(activation: Floats) -> NDArray[np.int64]:
        scores = activation @ items.T
        return np.asarray((scores >= scores[np.arange(400), targets][:, None]).sum(axis=1), dtype=np.int64)

    found = fidelity(sae, PrincipalAxes.fit(ArrayRows(x)), x, ranker)
    scores = found.scores()
    assert scores["ndcg@10_kept"] == found.sae["ndcg@10"].ratio
    assert scores["ndcg@10_kept_low"] <= scores["ndcg@10_kept"] <= scores["ndcg@10_kept_high"]
    assert 0 < scores["ndcg@10_kept_pca"] < scores["ndcg@10_kept_adaptive_pca"] < 1
    assert scores["ndcg@10_original"] == pytest.approx(gains(ranker(x))["ndcg@10"].mean())
