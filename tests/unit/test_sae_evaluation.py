"""Scores of an SAE: sums that add, dead latents and densities, and the principal components it is put beside."""

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
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.shards import ActivationShard, ShardReader, item_probes, write_shard
from recsae.sae.sparsity import LOG10_EDGES, FiringSums, evenly_spread, is_sparse
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
    for name in ("fvu", "explained_variance", "cosine", "l0", "dead_share"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12)
    np.testing.assert_array_equal(parts.fired, whole.fired)
    assert parts.firings.histogram == whole.firings.histogram


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
    np.testing.assert_allclose((users + items).firings.density, [0.5, 0.25, 0.25, 0])


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


def _reader(folder: Path, name: str, lengths: list[int], items: int, seed: int) -> ShardReader:
    """Shards of users with histories of these lengths, and of item probes."""
    user = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    position = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    write_shard(folder / name, "users", ActivationShard(_x(len(user), seed), user, position, np.ones_like(user)), {})
    if items:
        probes = item_probes(_x(items, seed + 1), np.arange(items, dtype=np.int32))
        write_shard(folder / name, "items", probes, {})
    return ShardReader.open_folders(folder / name)


def test_evaluations_of_parts_add_up_to_that_of_the_whole_set(sae: SparseAutoencoder, tmp_path: Path) -> None:
    one = _reader(tmp_path, "one", [4, 1, 9], items=11, seed=1)
    two = _reader(tmp_path, "two", [2, 6], items=0, seed=5)
    whole = evaluate(sae, ShardReader.open_folders(tmp_path / "one", tmp_path / "two"))
    added = evaluate(sae, one) + evaluate(sae, two)
    assert added.scores() == pytest.approx(whole.scores(), rel=1e-12)
    assert added.densities() == whole.densities()
    assert whole.scores()["probe_rows"] == one.n + two.n


def test_dead_is_counted_over_a_probe_set_of_fixed_size(
    sae: SparseAutoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = _reader(tmp_path, "many", [30] * 20, items=40, seed=2)
    whole = evaluate(sae, reader, probe_rows=100)
    assert (whole.probe_users.n, whole.probe_items.n, whole.positions.n, whole.items.n) == (60, 40, 600, 40)
    few_items = evaluate(sae, reader, probe_rows=20)
    assert (few_items.probe_users.n, few_items.probe_items.n) == (10, 10)
    monkeypatch.setattr("recsae.sae.evaluation._CHUNK_ROWS", 7)
    in_small_chunks = evaluate(sae, reader, probe_rows=100)
    np.testing.assert_array_equal(in_small_chunks.probe.fired, whole.probe.fired)
    everything = evaluate(sae, reader)
    np.testing.assert_array_equal(everything.probe_users.fired, everything.positions.fired)
    assert whole.scores()["dead"] >= everything.scores()["dead"] >= 4 / WIDTH


@given(rows=st.integers(1, 300), most=st.integers(0, 400), cuts=st.lists(st.integers(0, 300), max_size=4))
def test_spread_rows_are_as_many_as_asked_and_do_not_depend_on_cuts(rows: int, most: int, cuts: list[int]) -> None:
    whole = evenly_spread(0, rows, rows, most)
    assert whole.sum() == min(rows, most)
    edges = sorted({0, rows, *(min(cut, rows) for cut in cuts)})
    np.testing.assert_array_equal(np.concatenate([evenly_spread(a, b, rows, most) for a, b in pairwise(edges)]), whole)
    if 0 < most < rows:
        gaps = np.diff(np.flatnonzero(whole))
        assert not len(gaps) or gaps.max() - gaps.min() <= 1


@given(fired=st.lists(st.integers(0, 10**6), min_size=1, max_size=30))
def test_every_latent_is_in_the_bin_of_its_density(fired: list[int]) -> None:
    """Against whole numbers: 10^-edge / 2 steps compared as squares, so without logarithms."""
    n = 10**6
    found = FiringSums(n, np.array(fired)).histogram
    expected = [0] * (len(LOG10_EDGES) - 1)
    for count in fired:
        # density >= 10^(-6 + i / 2)  <=>  count^2 >= 10^i, since n = 10^6
        if count:
            expected[min(11, max(i for i in range(13) if count**2 >= 10**i))] += 1
    assert list(found.latents) == expected
    assert found.dead == fired.count(0)
    assert sum(found.shares().values()) + found.dead / len(fired) == pytest.approx(1)


def test_densities_on_an_edge_belong_to_the_bin_above_it() -> None:
    shares = FiringSums(10_000, np.array([0, 1, 10, 10_000])).histogram.shares()
    assert {name for name, value in shares.items() if value} == {
        "density_log10_-4.0",
        "density_log10_-3.0",
        "density_log10_-0.5",
    }
    assert FiringSums(10_000, np.array([0, 1, 10, 10_000])).rare_share == 0.25, "1e-4 itself is not rare"


def test_half_the_coordinates_are_no_longer_sparse() -> None:
    assert [is_sparse(k, 64) for k in (8, 31, 32, 64)] == [True, True, False, False]


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
