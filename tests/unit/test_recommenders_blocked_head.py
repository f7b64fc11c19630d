"""The head in blocks: exact against numpy, and to the bit the answers of the whole head."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from recsae.recommenders.blocked_head import BLOCK, BLOCKED_FROM, blocked_head_graph, dot_product_head
from recsae.recommenders.graph import Graph
from recsae.recommenders.head_memory import HeadMemory
from recsae.recommenders.heads import head_graph

N_ITEMS, DIM = 200_000, 6
SIZE = BLOCK - 1
OUTPUTS = ["items", "scores"]
NONE = np.zeros((0,), np.int64)


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    """Whole numbers, so that numpy's scores are the graph's to the bit and thousands of items tie in every block."""
    return np.random.default_rng(2).integers(-3, 4, size=(N_ITEMS + 1, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def bias() -> NDArray[np.float32]:
    return np.random.default_rng(3).integers(0, 2, size=N_ITEMS + 1).astype(np.float32)


@pytest.fixture(scope="module")
def activation() -> NDArray[np.float32]:
    return np.random.default_rng(4).integers(-3, 4, size=(8, DIM)).astype(np.float32)


def opened(model: onnx.ModelProto, folder: Path) -> Graph:
    onnx.save(model, folder / "head.onnx")
    return Graph(folder / "head.onnx", 1)


@pytest.fixture(scope="module")
def blocked(vectors: NDArray[np.float32], bias: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return opened(blocked_head_graph(vectors, bias), tmp_path_factory.mktemp("blocked"))


@pytest.fixture(scope="module")
def whole(vectors: NDArray[np.float32], bias: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return opened(head_graph(vectors, bias), tmp_path_factory.mktemp("whole"))


def feed(
    activation: NDArray[np.float32],
    k: int,
    exclude: NDArray[np.int64] = NONE,
    candidates: NDArray[np.int64] = NONE,
) -> dict[str, NDArray[np.generic]]:
    """The same exclusions and candidates for every row."""
    rows = (len(activation), 1)
    return {
        "activation": activation,
        "exclude": np.tile(exclude, rows),
        "candidates": np.tile(candidates, rows),
        "k": np.array([k]),
    }


# At both ends of blocks, in the last one, 0 as filling, and twice.
EDGES = np.array([0, 1, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE, N_ITEMS, N_ITEMS, 0, 131_072], np.int64)
MANY = np.random.default_rng(5).permutation(N_ITEMS)[:5_000].astype(np.int64) + 1


@pytest.mark.parametrize(
    ("k", "exclude", "candidates"),
    [(20, NONE, NONE), (1_000, MANY, NONE), (50, EDGES, NONE), (20, EDGES, MANY), (20, MANY[:9], MANY[:12])],
    ids=["all", "many left out", "edges left out", "candidates", "fewer than k"],
)
def test_lists_are_those_of_sorting_all_scores(
    blocked: Graph,
    whole: Graph,
    vectors: NDArray[np.float32],
    bias: NDArray[np.float32],
    activation: NDArray[np.float32],
    k: int,
    exclude: NDArray[np.int64],
    candidates: NDArray[np.int64],
) -> None:
    asked = feed(activation, k, exclude, candidates)
    items, scores = blocked.run(OUTPUTS, asked, len(activation))
    expected = activation @ vectors.T + bias
    expected[:, [0, *exclude]] = -np.inf
    if len(candidates):
        expected[:, np.setdiff1d(np.arange(N_ITEMS + 1), candidates)] = -np.inf
    order = np.argsort(-expected, axis=1, kind="stable")[:, :k]  # the lower index first among equals
    assert (items == order).all()
    assert (scores == np.take_along_axis(expected, order, axis=1)).all()
    by_whole = whole.run(OUTPUTS, asked, len(activation))
    assert [one.tobytes() for one in by_whole] == [items.tobytes(), scores.tobytes()]


def test_equal_scores_of_different_blocks_stand_in_the_order_of_their_indices(
    blocked: Graph, activation: NDArray[np.float32]
) -> None:
    items, scores = blocked.run(OUTPUTS, feed(activation, 400), len(activation))
    ties = scores[:, 1:] == scores[:, :-1]
    crossing = ties & (items[:, 1:] // SIZE != items[:, :-1] // SIZE)
    assert crossing.sum() > 20
    assert (items[:, 1:] > items[:, :-1])[ties].all()


def test_real_scores_are_the_whole_heads_to_the_bit_in_every_batch(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    vectors, bias = (random.standard_normal(shape, dtype=np.float32) for shape in ((1_500, 64), 1_500))
    activation = random.standard_normal((33, 64), dtype=np.float32)
    (tmp_path / "whole").mkdir()
    blocked, whole = (
        opened(blocked_head_graph(vectors, bias, 256), tmp_path),
        opened(head_graph(vectors, bias), tmp_path / "whole"),
    )
    every = whole.run(OUTPUTS, feed(activation, 1_499, MANY[:0]), 33)
    for size in (1, 2, 8, 32, 33):
        parts = [
            blocked.run(OUTPUTS, feed(activation[start : start + size], 1_499), len(activation[start : start + size]))
            for start in range(0, 33, size)
        ]
        for place, expected in enumerate(every):
            assert np.concatenate([part[place] for part in parts]).tobytes() == expected.tobytes()


def test_small_catalogues_stay_whole_and_large_ones_are_cut_and_say_so(tmp_path: Path) -> None:
    def head(columns: int) -> Graph:
        return opened(dot_product_head(np.ones((columns, 1), np.float32), np.zeros(columns, np.float32)), tmp_path)

    assert head(BLOCKED_FROM).columns_at_once is None
    assert head(BLOCKED_FROM + 1).columns_at_once == BLOCK


def test_the_lists_made_at_once_keep_a_batch_within_a_quarter_of_a_gibibyte() -> None:
    assert HeadMemory(3_706).lists(0) > 1_024
    assert HeadMemory(1_000_001).lists(0) == 22
    assert HeadMemory(1_000_001, interests=4).lists(0) == 11
    assert HeadMemory(BLOCK).lists(20_000) == 224
    assert HeadMemory(100_000_000).lists(0) == 1


def test_pieces_of_a_batch_give_what_the_batch_gives(whole: Graph, activation: NDArray[np.float32]) -> None:
    asked = feed(activation, 30, EDGES)
    together, pieces = whole.run(OUTPUTS, asked, 8), whole.run(OUTPUTS, asked, 8, most=3)
    assert [one.tobytes() for one in together] == [one.tobytes() for one in pieces]
