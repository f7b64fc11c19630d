"""Codes of several interests pooled by their maximum; shards read and judged interest by interest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.sae.codes import Codes
from recsae.sae.evaluation import evaluate
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.pooling import PooledEncoder, pooled, pooled_scores, subject_encoder
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.shards import ActivationShard, ShardReader, item_probes, write_shard
from recsae.sae.weights import SaeWeights, load_weights

D, WIDTH, K = 6, 20, 4
# Time says nothing on a busy machine.
SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def codes(rows: int, width: int, k: int, seed: int, silent: float = 0.3) -> Codes:
    """Codes as an SAE gives them: k latents a row, values falling, some of them 0."""
    rng = np.random.default_rng(seed)
    indices = np.argsort(rng.random((rows, width)), axis=1)[:, :k].astype(np.int32)
    values = np.where(rng.random((rows, k)) < silent, 0, rng.integers(1, 6, (rows, k))).astype(np.float32)
    order = np.argsort(-values, axis=1, kind="stable")
    return Codes(np.take_along_axis(indices, order, axis=1), np.take_along_axis(values, order, axis=1))


@SETTINGS
@given(st.integers(0, 5), st.integers(2, 5), st.integers(1, 4), st.integers(0, 60), st.integers(0, 10**6))
def test_a_subject_shows_the_largest_value_of_each_latent_once(
    subjects: int, interests: int, k: int, more: int, seed: int
) -> None:
    """Also where interests x k are more places than there are latents."""
    width = k + more
    single = codes(subjects * interests, width, k, seed)
    found = pooled(single, interests, width)
    assert found.indices.shape == (subjects, min(interests * k, width))
    assert ((found.indices >= 0) & (found.indices < width)).all()
    assert all(len(set(row)) == len(row) for row in found.indices.tolist()), "no row names a latent twice"
    assert (np.diff(found.values, axis=1) <= 0).all(), "values fall along a row"
    np.testing.assert_array_equal(
        found.dense(width), single.dense(width).reshape(subjects, interests, width).max(axis=1)
    )


@SETTINGS
@given(st.integers(0, 6), st.integers(0, 10**6))
def test_the_pool_of_one_interest_is_what_it_is(rows: int, seed: int) -> None:
    single = codes(rows, WIDTH, K, seed)
    assert pooled(single, 1, WIDTH) is single


@SETTINGS
@given(st.integers(2, 4), st.integers(0, 10**6))
def test_equal_interests_pool_to_one_of_them(interests: int, seed: int) -> None:
    one = codes(3, WIDTH, K, seed)
    repeated = Codes(np.repeat(one.indices, interests, axis=0), np.repeat(one.values, interests, axis=0))
    np.testing.assert_array_equal(pooled(repeated, interests, WIDTH).dense(WIDTH), one.dense(WIDTH))


def test_the_order_of_interests_does_not_matter() -> None:
    single = codes(3 * 50, WIDTH, K, 0)
    turned = single.take(np.arange(150).reshape(50, 3)[:, ::-1].ravel())
    np.testing.assert_array_equal(pooled(single, 3, WIDTH).dense(WIDTH), pooled(turned, 3, WIDTH).dense(WIDTH))


def test_rows_that_make_no_whole_subject_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="no whole number of subjects with 3 interests"):
        pooled(codes(4, WIDTH, K, 0), 3, WIDTH)


@pytest.fixture
def sae_folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    w = rng.normal(size=(WIDTH, D))
    w = (w / np.linalg.norm(w, axis=1, keepdims=True)).astype(np.float32)
    weights = SaeWeights(w, np.full(WIDTH, -0.1, np.float32), w, np.zeros(D, np.float32), np.zeros(D, np.float32))
    export_sae(weights, K, TrainingFacts(error_p99=0.5, mean_norm=1.0, scores={}, config={}), tmp_path / "sae")
    return tmp_path / "sae"


def test_an_encoder_of_subjects_encodes_each_interest(sae_folder: Path) -> None:
    sae = SparseAutoencoder.load(sae_folder, "v")
    x = np.random.default_rng(2).normal(size=(40, 3 * D)).astype(np.float32)
    found = PooledEncoder(sae, 3).encode(x).dense(WIDTH)
    each = np.stack([sae.encode(np.ascontiguousarray(part)).dense(WIDTH) for part in np.split(x, 3, axis=1)])
    np.testing.assert_array_equal(found, each.max(axis=0))
    with pytest.raises(InvalidRequestError, match=r"expected activations \[n, 3 x 6\]"):
        PooledEncoder(sae, 3).encode(x[:, :-1])
    assert subject_encoder(sae, 1) is sae


def test_scores_are_pooled_as_codes_are(sae_folder: Path) -> None:
    """What fires has its score as value, so a pooled score is never below a pooled value."""
    scores = load_weights(sae_folder).scores
    x = np.random.default_rng(3).normal(size=(30, 2 * D)).astype(np.float32)
    found = pooled_scores(scores, D, 2)(x)
    np.testing.assert_allclose(found, np.maximum(scores(x[:, :D]), scores(x[:, D:])), atol=1e-6)
    values = PooledEncoder(SparseAutoencoder.load(sae_folder, "v"), 2).encode(x).dense(WIDTH)
    assert (found[values > 0] >= values[values > 0] - 1e-5).all()
    assert pooled_scores(scores, D, 1) is scores


def shard_of(lengths: list[int], interests: int, seed: int) -> ActivationShard:
    """Users 0, 1, ... with so many rows each."""
    user = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    position = np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)
    x = np.random.default_rng(seed).normal(size=(len(user), interests * D)).astype(np.float32)
    return ActivationShard(x, user, position, np.ones(len(user), np.int32))


def opened(folder: Path, *shards: ActivationShard, interests: int) -> ShardReader:
    for number, shard in enumerate(shards):
        write_shard(folder, f"s{number}", shard, {"interests": str(interests)})
    return ShardReader.open_folders(folder)


def flattened(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x.reshape(-1, D)


def test_flat_rows_are_the_interests_of_subjects_one_after_the_other(tmp_path: Path) -> None:
    parts = shard_of([3, 1, 4], 3, 0), shard_of([2, 5], 3, 1)
    flat = opened(tmp_path, *parts, interests=3).flat()
    whole = flattened(np.concatenate([part.x for part in parts]))
    users = np.repeat(np.concatenate([part.user for part in parts]), 3)
    assert (flat.n, flat.d) == (45, D)
    for start in range(0, 45, 4):
        for stop in (start + 1, min(45, start + 17)):
            np.testing.assert_array_equal(flat.read(start, stop), whole[start:stop])
            np.testing.assert_array_equal(flat.users(start, stop), users[start:stop])


def test_rows_of_one_interest_are_read_as_they_are(tmp_path: Path) -> None:
    """Checkpoints and seeds of models with one vector go on as before: the fingerprint is the reader's."""
    reader = opened(tmp_path / "one", shard_of([3, 2], 1, 0), interests=1)
    assert reader.flat().fingerprint == reader.fingerprint
    np.testing.assert_array_equal(reader.flat().read(1, 4), reader.read(1, 4))
    several = opened(tmp_path / "two", shard_of([3, 2], 2, 0), interests=2)
    assert several.flat().fingerprint != several.fingerprint


def test_a_row_that_holds_no_whole_interests_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path, "s", shard_of([3], 1, 0), {"interests": "4"})
    with pytest.raises(InvalidRequestError, match="rows of 6 numbers do not hold 4 interests"):
        ShardReader.open_folders(tmp_path)


def test_an_evaluation_of_interests_is_that_of_their_vectors_as_rows(sae_folder: Path, tmp_path: Path) -> None:
    """A user's newest subject counts with all its interests; so do the probes of items."""
    sae, lengths = SparseAutoencoder.load(sae_folder, "v"), [3, 1, 4, 2]
    users, items = shard_of(lengths, 2, 0), np.arange(1, 6, dtype=np.int32)
    probes = item_probes(np.random.default_rng(5).normal(size=(5, 2 * D)).astype(np.float32), items)
    found = evaluate(sae, opened(tmp_path / "r", users, probes, interests=2))
    positions = evaluate(sae, opened(tmp_path / "u", _single(users), interests=1)).positions
    newest = flattened(users.x[np.cumsum(lengths) - 1])
    last = evaluate(sae, opened(tmp_path / "l", _rows(newest), interests=1)).positions
    of_items = evaluate(sae, opened(tmp_path / "i", _rows(flattened(probes.x)), interests=1)).positions
    for mine, expected in ((found.positions, positions), (found.last, last), (found.items, of_items)):
        assert mine.n == expected.n
        assert mine.squared_error == pytest.approx(expected.squared_error)
        np.testing.assert_array_equal(mine.fired, expected.fired)


def test_users_from_an_index_on_are_judged_as_items(sae_folder: Path, tmp_path: Path) -> None:
    sae, rows = SparseAutoencoder.load(sae_folder, "v"), shard_of([1, 1, 1, 1, 1], 1, 0)
    reader = opened(tmp_path / "all", rows, interests=1)
    found = evaluate(sae, reader, first_item=3)
    assert (found.positions.n, found.items.n, found.probe_items.n) == (3, 2, 2)
    whole = evaluate(sae, reader).positions
    assert (found.positions + found.items).squared_error == pytest.approx(whole.squared_error)


def _single(shard: ActivationShard) -> ActivationShard:
    return _rows(flattened(shard.x))


def _rows(x: NDArray[np.float32]) -> ActivationShard:
    """Rows of a user each."""
    numbers = np.arange(len(x), dtype=np.int32)
    return replace(item_probes(x, np.ones(len(x), np.int32)), user=numbers)
