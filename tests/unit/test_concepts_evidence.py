"""Evidence: distinct users, distinct deciding items, the true deciding item, and a bounded number of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.evidence import Candidates, check_reproduced, decide, of_histories, strongest
from recsae.concepts.evidence_draws import DrawnFirings, Rule, by_value
from recsae.concepts.features import Windows
from recsae.concepts.firings import Firings, cofiring, encode_rows
from recsae.errors import FailedPreconditionError
from recsae.sae.codes import Codes

_ITEMS, _WIDTH, _K = 40, 12, 4


@dataclass
class World:
    """Item i is vector E_i; a history is the sum of its items, so that the deciding item of a latent is known."""

    vectors: NDArray[np.float32]
    windows: Windows
    users: NDArray[np.int32]
    embedded: int = 0
    width: int = field(default=_WIDTH)

    def embed(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        assert all(len(history) for history in histories), "an empty history has no activation"
        self.embedded += len(histories)
        return np.stack([self.vectors[history].sum(axis=0) for history in histories])

    def encode(self, x: NDArray[np.float32]) -> Codes:
        order = np.argsort(-x, axis=1, kind="stable")[:, :_K]
        return Codes(order.astype(np.int32), np.maximum(np.take_along_axis(x, order, axis=1), 0).astype(np.float32))

    def x(self) -> NDArray[np.float32]:
        pairs = zip(self.windows.start, self.windows.end, strict=True)
        return np.stack([self.vectors[self.windows.items[a:b]].sum(axis=0) for a, b in pairs])

    @property
    def newest(self) -> NDArray[np.int32]:
        return self.windows.item_at(0)


@pytest.fixture
def world() -> World:
    rng = np.random.default_rng(0)
    vectors = np.abs(rng.normal(size=(_ITEMS + 1, _WIDTH))).astype(np.float32) ** 3
    lengths = rng.integers(1, 15, 60)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = rng.integers(1, _ITEMS + 1, offsets[-1]).astype(np.int32)
    users = np.repeat(np.arange(60), lengths).astype(np.int32)
    windows = Windows(items, offsets[users], np.arange(1, len(items) + 1))
    return World(vectors, windows, users)


def candidates(world: World, rows: NDArray[np.int64] | None = None) -> Candidates:
    """The strongest firings of some rows of the world (None = all), as rows of its windows."""
    rows = np.arange(len(world.users)) if rows is None else rows
    firings = encode_rows(world, world.x()[rows])
    row, value = rows[firings.by_latent.indices], firings.by_latent.data
    places = world.users[row], row.astype(np.int32), world.newest[row]
    pool = DrawnFirings(
        firings.latents().astype(np.int64), by_value(value, np.zeros(len(row), np.uint64)), *places, value
    )
    pool = pool.drawn(Rule(len(row)))
    found = strongest(pool)
    return Candidates(found.latent, pool.position[found.row].astype(np.int64), found.value)


def test_candidates_have_distinct_users_and_newest_items_strongest_first(world: World) -> None:
    found = candidates(world)
    dense = encode_rows(world, world.x()).by_latent.toarray()
    for latent in range(_WIDTH):
        rows = found.row[found.latent == latent]
        assert 0 < len(rows) <= 8
        assert len(set(world.users[rows])) == len(set(world.newest[rows])) == len(rows)
        assert (np.diff(dense[latent, rows]) <= 0).all()
        assert dense[latent, rows[0]] == dense[latent].max()


def test_the_deciding_item_is_the_one_whose_absence_costs_most(world: World) -> None:
    found = candidates(world)
    decided = decide(found, world.windows, _WIDTH, world, of_histories(world.embed))
    for at, (latent, row) in enumerate(zip(decided.candidates.latent, decided.candidates.row, strict=True)):
        newest_first = world.windows.items[world.windows.start[row] : world.windows.end[row]][::-1][:8]
        # Taking one item away lowers no other latent, so the drop is the item's own part or, below the cut, all of it.
        assert decided.drop[at, decided.lag[at]] == np.nanmax(decided.drop[at])
        if decided.drop[at, decided.lag[at]] < 1:
            own = world.vectors[newest_first, latent]
            assert decided.lag[at] == own.argmax()
            expected = own.max() / decided.candidates.value[at]
            assert decided.drop[at, decided.lag[at]] == pytest.approx(expected, abs=1e-4)


def test_evidence_has_distinct_deciding_items_and_users(world: World) -> None:
    found = candidates(world)
    decided = decide(found, world.windows, _WIDTH, world, of_histories(world.embed))
    items = world.windows.take(decided.candidates.row).item_at(decided.lag.astype(np.int64))
    for latent in range(_WIDTH):
        mine = decided.candidates.latent == latent
        assert 0 < mine.sum() <= 5
        assert len(set(items[mine])) == len(set(world.users[decided.candidates.row[mine]])) == mine.sum()


def test_a_history_of_one_item_is_decided_by_it_without_embedding(world: World) -> None:
    alone = np.flatnonzero(world.windows.lengths == 1)
    decided = decide(candidates(world, alone), world.windows, _WIDTH, world, of_histories(world.embed))
    assert world.embedded == 0
    assert (decided.lag == 0).all()
    assert (decided.drop[:, 0] == 1).all()


@pytest.mark.parametrize("budget", [0, 50, 10_000])
def test_embeddings_never_exceed_their_budget(world: World, budget: int) -> None:
    found = candidates(world)
    decided = decide(found, world.windows, _WIDTH, world, of_histories(world.embed), budget)
    assert world.embedded == decided.embeddings <= budget
    assert set(decided.candidates.latent.tolist()) == set(range(_WIDTH)), "evidence stays, its drops are unknown"
    unknown = np.isnan(decided.drop).all(axis=1)
    assert (decided.lag[unknown] == -1).all()
    assert unknown.any() == (budget < 1000)


def test_activations_that_cannot_be_reproduced_are_refused(world: World) -> None:
    check_reproduced(world.x(), world.windows, of_histories(world.embed))
    with pytest.raises(FailedPreconditionError, match="other activations"):
        check_reproduced(world.x()[::-1], world.windows, of_histories(world.embed))


def test_neighbours_are_those_of_highest_firing_correlation() -> None:
    rng = np.random.default_rng(2)
    fired = rng.random((8, 2000)) < 0.2
    fired[5] = fired[2] & (rng.random(2000) < 0.9)
    fired[7] = False
    near = cofiring(Firings(sparse.csr_matrix(fired.astype(np.float32))), nearest=3)
    expected = np.array(np.corrcoef(fired[:7]))
    np.fill_diagonal(expected, -2)
    for latent in range(7):
        best = np.argsort(-expected[latent])[:3]
        assert near.latents[latent].tolist() == best.tolist()
        np.testing.assert_allclose(near.correlations[latent], expected[latent, best], atol=1e-5)
    assert (near.latents[7] == -1).all(), "a dead latent has no neighbours and is none"
    assert 7 not in near.latents
