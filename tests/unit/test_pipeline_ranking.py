"""Ranks and lists of held-out users' targets through the contract of a recommender."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.bare_source import BareSource

from recsae.datasets.schema import Dataset, Histories, ItemTable, UserTable
from recsae.pipeline.sources import Crossing, RankedItems, SourceModel, Subject, Tensors
from recsae.pipeline.stages.evaluate import sentence
from recsae.pipeline.stages.ranking import TargetRanker, TargetRows
from recsae.pipeline.stages.run_data import RunData
from recsae.recommenders.metrics import NOWHERE
from recsae.sae.dot_product import DotProductRanker, ExcludedItems
from recsae.sae.rankings import DEPTH, NO_ITEM, agreement

USERS, ITEMS, UNKNOWN, D = 700, 60, 5, 6
MODEL = SourceModel("m", "v", "h", D, 50, ITEMS + UNKNOWN, 4_096, dot_product=True, all_positions=True)
Floats = NDArray[np.float32]


class ArraySource(BareSource):
    """A recommender that scores by a dot product; its last items are none of the data set's."""

    def __init__(self, items: int) -> None:
        self.ids = [*(f"i{number}" for number in range(items)), *(f"new{number}" for number in range(UNKNOWN))]
        self.vectors = np.random.default_rng(0).integers(-3, 4, size=(len(self.ids), D)).astype(np.float32)

    def rank(
        self,
        model: SourceModel,
        activations: Floats,
        k: int,
        exclude: Sequence[Sequence[str]],
        candidates: Sequence[str] = (),
        passthrough: Tensors | None = None,
    ) -> list[RankedItems]:
        lists = []
        for x, without in zip(activations, exclude, strict=True):
            scores = self.vectors @ x
            order = [at for at in np.argsort(-scores, kind="stable").tolist() if self.ids[at] not in without][:k]
            lists.append(RankedItems(tuple(self.ids[at] for at in order), tuple(float(scores[at]) for at in order)))
        return lists


def _data(items: int, lengths: NDArray[np.int64]) -> RunData:
    rng = np.random.default_rng(1)
    taken = [1 + rng.permutation(items)[: length + 1] for length in lengths]
    rows = np.concatenate([some[:-1] for some in taken])
    histories = Histories.from_rows(
        np.repeat(np.arange(len(lengths)), lengths), rows, np.arange(len(rows), dtype=np.float64), len(lengths)
    )
    table = ItemTable(tuple(f"i{at}" for at in range(items)), tuple("title" for _ in range(items)), {})
    users = UserTable(tuple(f"u{at}" for at in range(len(lengths))), {})
    targets = np.array([some[-1] for some in taken], np.int32)
    return RunData(Dataset("d", table, users, histories), histories, targets)


def test_the_recommender_ranks_as_its_vectors_do() -> None:
    """Also across calls of 512 rows, with ties, and with items that the data set does not know."""
    source, data = ArraySource(ITEMS), _data(ITEMS, np.full(USERS, 4))
    x = np.random.default_rng(2).integers(-3, 4, size=(USERS, D)).astype(np.float32)
    rows = TargetRows(np.arange(USERS), np.full(USERS, 3), x)
    checks: list[None] = []
    ranker = TargetRanker(source, MODEL, data, rows, lambda: checks.append(None))
    found = ranker(x)
    excluded = ExcludedItems(np.arange(0, 4 * USERS + 1, 4), data.histories.items.astype(np.int64) - 1)
    expected = DotProductRanker(source.vectors, data.targets - 1, excluded=excluded)(x)
    # A list of 21 tells apart the places up to 20, the largest cut-off.
    for cutoff in range(1, 21):
        np.testing.assert_array_equal(found.ranks <= cutoff, expected.ranks <= cutoff)
    assert len(checks) == 2, "a lost lease is noticed between calls"


def test_lists_are_the_same_up_to_the_numbering_of_items() -> None:
    source, data = ArraySource(ITEMS), _data(ITEMS, np.full(USERS, 4))
    x = np.random.default_rng(3).normal(size=(USERS, D)).astype(np.float32)
    rows = TargetRows(np.arange(USERS), np.full(USERS, 3), x)
    listed = TargetRanker(source, MODEL, data, rows, lambda: None)(x).items
    assert listed.shape == (USERS, 21)
    excluded = ExcludedItems(np.arange(0, 4 * USERS + 1, 4), data.histories.items.astype(np.int64) - 1)
    expected = DotProductRanker(source.vectors, data.targets - 1, excluded=excluded)(x).items
    pairs = np.unique(np.stack([listed[:, :DEPTH].ravel(), expected.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(pairs[0])) == len(np.unique(pairs[1])) > ITEMS, "one number, one item"


def test_a_target_is_the_item_after_the_row() -> None:
    source, data = ArraySource(ITEMS), _data(ITEMS, np.array([4, 4]))
    rows = TargetRows(np.zeros(2, np.int64), np.array([2, 3]), np.zeros((2, D), np.float32))
    x = np.ones((2, D), np.float32)
    history = data.histories.of(0)
    found = TargetRanker(source, MODEL, data, rows, lambda: None)(x)
    for row, (target, consumed) in enumerate(((history[3], history[:3]), (data.targets[0], history))):
        scores = source.vectors @ x[row]
        allowed = np.delete(scores, consumed - 1)
        rank = (allowed >= scores[target - 1]).sum()
        assert found.ranks[row] == (rank if rank <= 21 else NOWHERE)


class CrossingSource(ArraySource):
    """Its head reads whose rows they are; `ranked` are those it was asked to rank."""

    def __init__(self, items: int) -> None:
        super().__init__(items)
        self.ranked: list[int] = []

    def crossing(self, model: SourceModel, subjects: Sequence[Subject], candidates: Sequence[str] = ()) -> Crossing:
        users = np.array([int(subject.user_id.removeprefix("u")) for subject in subjects])
        x = np.zeros((len(subjects), model.row_length), np.float32)
        return Crossing(x, {"user": np.repeat(users, model.interests)})

    def rank(
        self,
        model: SourceModel,
        activations: Floats,
        k: int,
        exclude: Sequence[Sequence[str]],
        candidates: Sequence[str] = (),
        passthrough: Tensors | None = None,
    ) -> list[RankedItems]:
        assert passthrough is not None
        whose = passthrough["user"].reshape(len(exclude), model.interests)
        assert len(activations) == whose.size
        assert (whose == whose[:, :1]).all()
        self.ranked += whose[:, 0].tolist()
        return [RankedItems(("i1",), (1.0,))] * len(exclude)


@pytest.mark.parametrize("interests", [1, 3])
def test_tensors_that_cross_the_cut_go_with_their_rows(interests: int) -> None:
    """Over calls of 512 rows, and with a tensor for each interest."""
    data = _data(ITEMS, np.full(USERS, 4))
    model = replace(MODEL, dot_product=False, rows="subject" if interests == 1 else "interest", interests=interests)
    users = np.random.default_rng(0).permutation(USERS)
    rows = TargetRows(users, np.full(USERS, 3), np.zeros((USERS, interests * D), np.float32))
    source = CrossingSource(ITEMS)
    ranker = TargetRanker(source, model, data, rows, lambda: None)
    assert ranker.passthrough == ("user",)
    ranker(np.zeros((USERS * interests, D), np.float32))
    assert source.ranked == users.tolist()


def test_lists_shorter_than_asked_for_end_early() -> None:
    source, data = ArraySource(8), _data(8, np.array([6, 2]))
    rows = TargetRows(np.arange(2), np.array([5, 1]), np.zeros((2, D), np.float32))
    found = TargetRanker(source, MODEL, data, rows, lambda: None)(np.ones((2, D), np.float32))
    assert (found.items != NO_ITEM).sum(axis=1).tolist() == [8 + UNKNOWN - 6, 8 + UNKNOWN - 2]
    assert agreement(found.items, found.items)["rbo@10"].tolist() == [1, 1]


def test_a_result_with_half_the_coordinates_is_called_not_sparse() -> None:
    scores = {"sae.fvu": 0.1, "sae.l0": 31.9, "sae.dead": 0.02, "sae.k": 32.0, "sae.d": 64.0}
    assert sentence(scores) == "FVU 0.1000, L0 31.9, dead 2.0%; not sparse: k = 32 of d = 64"
    ranked = {"rank.ndcg@10_kept": 0.95, "rank.ndcg@10_kept_adaptive_pca": 0.9}
    sparse = sentence(scores | ranked | {"sae.d": 256.0})
    assert sparse == "FVU 0.1000, L0 31.9, dead 2.0%, NDCG@10 kept 0.950 (adaptive PCA 0.900)"
