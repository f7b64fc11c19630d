"""Evidence as sums: any partition into shards in any order gives the same bytes, and figures are those of a loop."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsae.concepts import evidence_reading
from recsae.concepts.bands import strength_bands
from recsae.concepts.evidence_buckets import RELATIVE_ERROR, ValueBuckets
from recsae.concepts.evidence_files import load_sums, save_sums
from recsae.concepts.evidence_reading import RowFacts, read_shard
from recsae.concepts.evidence_sums import DRAWS, EvidenceSums, health_scores
from recsae.concepts.features import log_item_counts
from recsae.concepts.splits import UserPart
from recsae.datasets.schema import Histories
from recsae.errors import CorruptArtifactError, FailedPreconditionError, InvalidRequestError
from recsae.sae.codes import Codes

_USERS, _ITEMS, _WIDTH, _K, _D = 24, 15, 10, 3, 6


@dataclass(frozen=True)
class Encoder:
    """Whole-numbered scores, so that a row's values are the same in every block; the last latent never fires."""

    w: NDArray[np.float32]
    width: int = _WIDTH

    def encode(self, x: NDArray[np.float32]) -> Codes:
        z = np.rint(x) @ self.w.T / 7
        z[:, -1] = -1
        order = np.argsort(-z, axis=1, kind="stable")[:, :_K]
        return Codes(order.astype(np.int32), np.maximum(np.take_along_axis(z, order, axis=1), 0).astype(np.float32))


@dataclass(frozen=True)
class Rows:
    """A shard, or all rows there are."""

    x: NDArray[np.float32]
    user: NDArray[np.int32]
    position: NDArray[np.int32]
    item: NDArray[np.int32]

    def take(self, rows: NDArray[np.int64]) -> Rows:
        return Rows(self.x[rows], self.user[rows], self.position[rows], self.item[rows])


@dataclass(frozen=True)
class World:
    """Rows of every position of every user and one probe per item, an encoder and what is known of the rows."""

    rows: Rows
    encoder: Encoder
    facts: RowFacts

    def read(self, rows: Rows) -> EvidenceSums:
        return read_shard(rows, self.encoder, self.facts)

    def rows_of(self, part: UserPart) -> Rows:
        return self.rows.take(np.flatnonzero(self.facts.parts[self.rows.user] == part))

    def dense(self, rows: Rows) -> NDArray[np.float32]:
        return self.encoder.encode(rows.x).dense(_WIDTH)


def make_world(mean_length: int = 12, rows_per_part: int = 60, seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 2 * mean_length, _USERS)
    user = np.repeat(np.arange(_USERS), lengths)
    histories = Histories.from_rows(user, rng.integers(1, _ITEMS + 1, len(user)), rng.random(len(user)), _USERS)
    position = np.concatenate([np.arange(length) for length in lengths])
    columns = (
        np.append(user, np.full(_ITEMS, -1)),
        np.append(position, np.zeros(_ITEMS)),
        np.append(histories.items, np.arange(1, _ITEMS + 1)),
    )
    # Few distinct activations: many firings of equal value.
    x = rng.integers(-3, 4, (len(columns[0]), _D)).astype(np.float32)
    rows = Rows(x, *(column.astype(np.int32) for column in columns))
    parts = np.append(rng.integers(0, 3, _USERS), UserPart.SAE).astype(np.int8)
    encoder = Encoder(rng.integers(-4, 5, (_WIDTH, _D)).astype(np.float32))
    return World(rows, encoder, RowFacts(parts, histories, log_item_counts(histories, _ITEMS), rows_per_part))


WORLD = make_world()


def files(sums: EvidenceSums, folder: Path) -> dict[str, bytes]:
    save_sums(sums, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_partition_and_order_of_shards_gives_the_bytes_of_one_pass(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    n = len(WORLD.rows.user)
    order = np.array(data.draw(st.permutations(range(n))))
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=8)))
    shards = [WORLD.rows.take(rows) for rows in np.split(order, cuts)]
    merged = EvidenceSums.merge(WORLD.read(shard) for shard in shards)
    folder = tmp_path_factory.mktemp("sums")
    assert files(merged, folder / "merged") == files(WORLD.read(WORLD.rows), folder / "whole")


def test_merging_pairs_of_pairs_is_merging_all(tmp_path: Path) -> None:
    parts = [WORLD.read(WORLD.rows.take(rows)) for rows in np.array_split(np.arange(len(WORLD.rows.user)), 4)]
    pairs = [EvidenceSums.merge(parts[2:]), EvidenceSums.merge(parts[:2])]
    assert files(EvidenceSums.merge(pairs), tmp_path / "a") == files(EvidenceSums.merge(parts), tmp_path / "b")


def test_sums_come_back_from_their_files_and_rows_only_when_asked_for(tmp_path: Path) -> None:
    sums = WORLD.read(WORLD.rows)
    written = files(sums, tmp_path / "sums")
    assert files(load_sums(tmp_path / "sums"), tmp_path / "again") == written
    (tmp_path / "sums" / "rows-verification.safetensors").unlink()
    described = load_sums(tmp_path / "sums", [UserPart.CONSTRUCTION])
    assert len(described.samples[UserPart.VERIFICATION]) == 0
    assert len(described.samples[UserPart.CONSTRUCTION]) == 60
    with pytest.raises(CorruptArtifactError, match="start a new run"):
        load_sums(tmp_path / "sums")


def test_health_is_that_of_a_loop_over_all_construction_rows() -> None:
    world = make_world(mean_length=400)
    sums, rows = world.read(world.rows), world.rows_of(UserPart.CONSTRUCTION)
    values = world.dense(rows).astype(np.float64)
    arrays, scores = sums.health(), health_scores(sums)
    log_counts = world.facts.log_counts[rows.item]
    assert sums.rows.tolist() == np.bincount(world.facts.parts[world.rows.user]).tolist()
    for latent in range(_WIDTH - 1):
        fired = np.sort(values[values[:, latent] > 0, latent])
        assert arrays.density[latent] == pytest.approx(len(fired) / len(rows.user), rel=1e-6)
        assert arrays.mean[latent] == pytest.approx(fired.mean(), rel=1e-6)
        for name, share in (("p50", 50), ("p95", 95), ("p99", 99)):
            exact = np.percentile(fired, share)
            assert getattr(arrays, name)[latent] == pytest.approx(exact, rel=RELATIVE_ERROR), name
        correlation = np.corrcoef(values[:, latent], log_counts)[0, 1]
        assert scores["popularity_correlation"][latent] == pytest.approx(correlation, abs=2e-3)
        assert scores["max"][latent] == pytest.approx(fired[-1])
        when = world.facts.histories.timestamps[world.facts.histories.offsets[rows.user] + rows.position]
        assert scores["last_fired"][latent] == when[values[:, latent] > 0].max()
        whole = int(0.01 * len(fired))
        top = fired[len(fired) - whole :].sum() + (0.01 * len(fired) - whole) * fired[len(fired) - whole - 1]
        assert scores["concentration"][latent] == pytest.approx(top / fired.sum(), rel=2 * RELATIVE_ERROR)


def test_a_silent_latent_borrows_quantiles_of_the_saes_rows_and_a_dead_one_has_none() -> None:
    parts = np.where(np.arange(_USERS + 1) % 2, UserPart.CONSTRUCTION, UserPart.SAE).astype(np.int8)
    world = replace(WORLD, facts=replace(WORLD.facts, parts=parts))
    here = world.rows_of(UserPart.CONSTRUCTION)
    kept = here.take(np.flatnonzero(world.dense(here)[:, 0] == 0))
    elsewhere = world.rows_of(UserPart.SAE)
    sums = EvidenceSums.merge([world.read(kept), world.read(elsewhere)])
    arrays, borrowed = sums.health(), world.dense(elsewhere)[:, 0]
    assert arrays.density[0] == 0
    assert arrays.p95[0] == pytest.approx(np.percentile(borrowed[borrowed > 0], 95), rel=RELATIVE_ERROR)
    assert arrays.mean[0] == pytest.approx(borrowed[borrowed > 0].mean())
    dead = [float(getattr(arrays, name)[-1]) for name in ("p50", "p95", "p99", "mean", "density")]
    assert dead == [1, 1, 1, 0, 0]
    assert math.isnan(health_scores(sums)["concentration"][-1])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(2.0**-140, 2.0**120, width=32), min_size=1, max_size=60), st.floats(0, 1))
def test_quantiles_and_sums_of_any_values_keep_their_bounds(values: list[float], share: float) -> None:
    array = np.array(values, np.float32)
    latents = np.zeros(len(array), np.int64)
    buckets = reduce(
        lambda one, other: ValueBuckets.merge([one, other]),
        [ValueBuckets.of(latents[at : at + 7], array[at : at + 7], latents[at : at + 7]) for at in range(0, 60, 7)],
    )
    assert buckets.counts(1)[0] == len(array)
    assert buckets.sums(1)[0] == pytest.approx(math.fsum(array.tolist()), rel=1e-12)
    exact = np.quantile(array.astype(np.float64), share)
    assert buckets.quantiles(1, (share,))[0, 0] == pytest.approx(exact, rel=RELATIVE_ERROR)


@pytest.mark.parametrize("name", list(DRAWS))
def test_what_is_remembered_is_what_sorting_all_firings_gives(name: str) -> None:
    world = make_world(mean_length=60)
    drawn, rows = world.read(world.rows).draws[name], world.rows_of(UserPart.CONSTRUCTION)
    values = world.dense(rows)
    if name == "per_bucket":
        assert np.array_equal(drawn.group, world.read(rows).construction.key)
        return
    for latent in range(_WIDTH):
        mine = drawn.take(drawn.group == latent)
        fired = np.flatnonzero(values[:, latent])
        at = {(u, p): row for row, (u, p) in enumerate(zip(rows.user.tolist(), rows.position.tolist(), strict=True))}
        where = [at[pair] for pair in zip(mine.user.tolist(), mine.position.tolist(), strict=True)]
        assert len(set(where)) == len(where)
        np.testing.assert_array_equal(values[where, latent], mine.value)
        if name == "at_random":
            assert len(mine) == min(16, len(fired))
            continue
        owner = rows.user if name == "by_user" else rows.item
        best = np.sort([values[fired[owner[fired] == one], latent].max() for one in set(owner[fired].tolist())])[::-1]
        np.testing.assert_array_equal(mine.value, best[:16])
        assert len(set(getattr(mine, name.removeprefix("by_")).tolist())) == len(mine)


def test_random_firings_are_drawn_evenly() -> None:
    """Of 100 seeds' draws, mean values lie around the mean of all: the standard error of 1,600 draws, three times."""
    rows = WORLD.rows_of(UserPart.CONSTRUCTION)
    fired = WORLD.dense(rows)[:, 0]
    fired = fired[fired > 0]
    means = []
    for seed in range(100):
        drawn = replace(WORLD, facts=replace(WORLD.facts, seed=seed)).read(rows).draws["at_random"]
        means.append(drawn.value[drawn.group == 0].mean())
    assert len(fired) > 32
    assert abs(np.mean(means) - fired.mean()) < 3 * fired.std() / 40
    assert np.std(means) > 0


def test_verification_rows_only_say_who_is_alive_and_are_drawn_for_themselves(tmp_path: Path) -> None:
    hidden = WORLD.facts.parts[WORLD.rows.user] == UserPart.VERIFICATION
    other = replace(WORLD.rows, x=np.where(hidden[:, None], WORLD.rows.x[::-1], WORLD.rows.x))
    one, two = WORLD.read(WORLD.rows), WORLD.read(other)
    assert not np.array_equal(one.verification_fired, two.verification_fired)
    two = replace(two, verification_fired=one.verification_fired)
    written, changed = files(one, tmp_path / "one"), files(two, tmp_path / "two")
    assert {name for name in written if written[name] != changed[name]} == {"rows-verification.safetensors"}


def test_bands_count_every_firing_once_and_show_one_of_their_own() -> None:
    world = make_world(mean_length=60)
    sums = world.read(world.rows)
    bands = strength_bands(sums, sums.health())
    values = world.dense(world.rows_of(UserPart.CONSTRUCTION))
    for latent in range(_WIDTH):
        fired = values[values[:, latent] > 0, latent]
        edges = [0, *bands.edges[:, latent], np.inf]
        expected = [int(((fired >= low) & (fired < high)).sum()) for low, high in pairwise(edges)]
        assert bands.count[latent].tolist() == expected
        for band, count in enumerate(expected):
            example = bands.example[latent, band]
            assert (example >= 0) == (count > 0)
            assert not count or edges[band] <= sums.draws["per_bucket"].value[example] < edges[band + 1]
        assert bands.largest[latent] == (fired.max() if len(fired) else 0)


def test_memory_for_many_shards_is_that_for_few() -> None:
    world = make_world(mean_length=4_000, rows_per_part=500)
    order = np.random.default_rng(0).permutation(len(world.rows.user))
    shards = [world.rows.take(rows) for rows in np.array_split(order, 48)]
    peaks = {}
    for count in (12, 48):
        tracemalloc.start()
        try:
            EvidenceSums.merge(world.read(shard) for shard in shards[:count])
            peaks[count] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peaks[48] < 1.15 * peaks[12]


def test_rows_of_other_histories_and_sums_read_differently_are_refused(tmp_path: Path) -> None:
    wrong = replace(WORLD.rows, item=np.roll(WORLD.rows.item, 1))
    with pytest.raises(FailedPreconditionError, match="pass the histories the activations were collected from"):
        WORLD.read(wrong)
    other = replace(WORLD, facts=replace(WORLD.facts, seed=1)).read(WORLD.rows)
    with pytest.raises(InvalidRequestError, match="read all shards alike"):
        EvidenceSums.merge([WORLD.read(WORLD.rows), other])
    with pytest.raises(InvalidRequestError, match="read at least one shard"):
        EvidenceSums.merge([])


def test_memory_for_a_long_shard_is_that_for_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_reading, "_ROWS_AT_ONCE", 64)
    world = make_world(mean_length=1_000, rows_per_part=100)
    order = np.random.default_rng(0).permutation(len(world.rows.user))
    peaks = {}
    for count in (3_000, 12_000):
        rows = world.rows.take(order[:count])
        tracemalloc.start()
        try:
            world.read(rows)
            peaks[count] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    # Four times as much if blocks were kept; users, positions and items of all rows are.
    assert peaks[12_000] < 2 * peaks[3_000]
