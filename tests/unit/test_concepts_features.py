"""Row features equal what a loop over histories would compute, and rows that do not fit their histories are refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts import features as features_module
from recsae.concepts.features import (
    RECENCY_DECAY,
    RECENT_ITEMS,
    USUAL_ITEMS,
    build_features,
    cut_strata,
    locate,
    log_item_counts,
    popularity_deciles,
)
from recsae.concepts.sampling import RowSample, sample_rows
from recsae.datasets.facets import FacetTable
from recsae.datasets.schema import Histories
from recsae.datasets.windows import cut
from recsae.errors import FailedPreconditionError

_ITEMS = 30


@dataclass(frozen=True)
class Shard:
    """Activation rows whose x tells which row they are."""

    x: NDArray[np.float32]
    user: NDArray[np.int32]
    position: NDArray[np.int32]
    item: NDArray[np.int32]


def make_histories() -> Histories:
    rng = np.random.default_rng(0)
    lengths = np.array([1, 3, 12, 25, 0, 40])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = rng.integers(1, _ITEMS + 1, offsets[-1]).astype(np.int32)
    return Histories(offsets, items, np.arange(len(items), dtype=np.float64))


def make_facets() -> FacetTable:
    matrix = (np.random.default_rng(1).random((_ITEMS + 1, 4)) < 0.3).astype(np.float32)
    matrix[0] = 0
    return FacetTable(
        ("genre=A", "genre=B", "decade=1980s", "title=star"), ("g", "g", "d", "t"), sparse.csr_matrix(matrix)
    )


def rows_of(histories: Histories) -> RowSample:
    """Every interaction of every user."""
    user = np.repeat(np.arange(histories.n_users), histories.lengths).astype(np.int32)
    position = np.concatenate([np.arange(length) for length in histories.lengths]).astype(np.int32)
    x = np.arange(len(user), dtype=np.float32)[:, None]
    return RowSample(x, user, position, histories.items, len(user))


@pytest.mark.parametrize("max_history", [8, 100])
def test_features_equal_those_of_a_loop(max_history: int) -> None:
    histories, facets = make_histories(), make_facets()
    sample = rows_of(histories)
    features = build_features(locate(histories, sample, max_history), facets, log_item_counts(histories, _ITEMS))
    table = facets.matrix.toarray()
    recent, usual = features.shares(RECENT_ITEMS, RECENCY_DECAY), features.shares(USUAL_ITEMS, 1.0)
    last, before = features.carried(0), features.carried(1)
    for row in range(len(sample)):
        seen = as_the_model_saw(histories.of(int(sample.user[row])), int(sample.position[row]), max_history)[::-1]
        weights = RECENCY_DECAY ** np.arange(len(seen[:RECENT_ITEMS]))
        expected = (weights[:, None] * table[seen[:RECENT_ITEMS]]).sum(axis=0) / weights.sum()
        np.testing.assert_allclose(recent[row], expected, atol=1e-6)
        np.testing.assert_allclose(usual[row], table[seen[:USUAL_ITEMS]].mean(axis=0), atol=1e-6)
        np.testing.assert_array_equal(last[row], table[seen[0]])
        np.testing.assert_array_equal(before[row], table[seen[1]] if len(seen) > 1 else 0)
        assert features.newest[row].tolist() == [*seen[:3], 0, 0][:3]
        assert features.length[row] == len(seen)
        assert features.popularity[row] == pytest.approx(np.log1p((histories.items == seen[0]).sum()))


def as_the_model_saw(items: NDArray[np.int32], position: int, max_history: int) -> list[int]:
    (window,) = (each for each in cut(len(items), max_history) if each.keep <= position < each.end)
    seen: list[int] = items[window.begin : position + 1].tolist()
    return seen


def test_rows_of_other_histories_are_refused() -> None:
    histories = make_histories()
    sample = rows_of(histories)
    sample = replace(sample, item=np.roll(sample.item, 1))
    with pytest.raises(FailedPreconditionError, match="pass the histories the activations were collected from"):
        locate(histories, sample, max_history=100)


def test_a_sample_is_bounded_seeded_and_of_the_wanted_users_only() -> None:
    rows = rows_of(make_histories())
    shards = [Shard(rows.x[a:b], rows.user[a:b], rows.position[a:b], rows.item[a:b]) for a, b in ((0, 30), (30, 81))]
    wanted = np.array([False, True, True, False, False, True, False])
    one, two = (sample_rows(shards, wanted, cap=20, seed=3) for _ in range(2))
    assert (len(one), one.available) == (20, 55)
    assert set(one.user.tolist()) <= {1, 2, 5}
    np.testing.assert_array_equal(one.x, two.x)
    for at in range(20):
        row = int(one.x[at, 0])
        assert (rows.user[row], rows.position[row], rows.item[row]) == (one.user[at], one.position[at], one.item[at])


def test_item_probes_are_rows_of_nobody() -> None:
    probe = Shard(
        np.zeros((2, 1), np.float32), np.array([-1, 0], np.int32), np.zeros(2, np.int32), np.ones(2, np.int32)
    )
    assert sample_rows([probe], np.array([False, True])).user.tolist() == [-1]
    assert sample_rows([probe], np.array([True, False])).user.tolist() == [0]


def test_a_part_without_rows_is_an_error_that_says_so() -> None:
    rows = rows_of(make_histories())
    with pytest.raises(FailedPreconditionError, match="collect from more users"):
        sample_rows([Shard(rows.x, rows.user, rows.position, rows.item)], np.zeros(7, bool))


def test_deciles_hold_equally_many_items_and_rise_with_popularity() -> None:
    counts = np.random.default_rng(0).permutation(101).astype(np.float32)
    counts[0] = 0
    deciles = popularity_deciles(counts)
    assert deciles[0] == -1
    assert np.bincount(deciles[1:]).tolist() == [10] * 10
    assert np.all(np.diff(deciles[1:][np.argsort(counts[1:])]) >= 0)


def test_every_row_falls_into_a_stratum() -> None:
    histories = make_histories()
    windows = locate(histories, rows_of(histories), 100)
    features = build_features(windows, make_facets(), log_item_counts(histories, _ITEMS))
    strata = cut_strata(features)
    cells = strata.of(features)
    assert cells.min() >= 0
    assert cells.max() < strata.count
    assert len(np.unique(cells)) > 10


def test_blocks_cover_all_rows_and_hold_fewer_of_many_facets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_module, "_CELLS_AT_ONCE", 20)
    histories = make_histories()
    windows = locate(histories, rows_of(histories), 50)
    features = build_features(windows, make_facets(), log_item_counts(histories, _ITEMS))
    spans = [rows for rows, _ in features.blocks()]
    most = 20 // len(features.facets.names)
    assert [row for span in spans for row in range(span.start, span.stop)] == list(range(len(features)))
    assert max(span.stop - span.start for span in spans) == most
