"""The ONNX runtime: masks, padding, batch invariance, threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.recommenders.bundle import ModelBundle
from recsae.recommenders.description import BundleDescription
from recsae.recommenders.heads import head_graph
from recsae.recommenders.inputs import stack_indices
from recsae.recommenders.invariance import BatchInvariance, batch_invariance
from recsae.recommenders.runtime import OnnxRecommender
from recsae.recommenders.synthetic import tiny_bundle

N_ITEMS = 30


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> OnnxRecommender:
    return OnnxRecommender(tiny_bundle(tmp_path_factory.mktemp("bundle"), n_items=N_ITEMS))


def some_histories(recommender: OnnxRecommender, count: int, seed: int = 0) -> NDArray[np.int64]:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, recommender.max_history + 1, size=count)
    return recommender.pad([random.integers(1, recommender.n_items + 1, size=length) for length in lengths])


def test_padding_stands_on_the_right_and_the_newest_items_stay(recommender: OnnxRecommender) -> None:
    padded = recommender.pad([[1, 2], list(range(1, 14))])
    assert padded.tolist() == [[1, 2, 0, 0, 0, 0, 0, 0, 0, 0], [4, 5, 6, 7, 8, 9, 10, 11, 12, 13]]


@pytest.mark.parametrize(
    ("history", "message"), [([], "history 1 is empty"), ([0], "history 1 has"), ([-1], "1..30"), ([31], "1..30")]
)
def test_history_that_would_wrap_or_mean_nothing_is_refused(
    recommender: OnnxRecommender, history: list[int], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        recommender.pad([[1], history])


def test_every_position_equals_serving_on_the_history_up_to_there(recommender: OnnxRecommender) -> None:
    histories = some_histories(recommender, 5)
    positions = recommender.embed_positions(histories)
    for row, history in enumerate(histories):
        length = int((history > 0).sum())
        prefixes = recommender.pad([history[: end + 1] for end in range(length)])
        alone = recommender.embed(prefixes).activation
        np.testing.assert_allclose(positions[row, :length], alone, rtol=0, atol=1e-5)
        assert not positions[row, length:].any()


@example(excluded=[], candidates=[], k=2 * N_ITEMS, seed=0)
@example(excluded=[3, 5], candidates=[], k=N_ITEMS, seed=0)
@example(excluded=[3], candidates=[3, 4], k=5, seed=0)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    excluded=st.lists(st.integers(1, N_ITEMS), max_size=N_ITEMS),
    candidates=st.lists(st.integers(1, N_ITEMS), max_size=6),
    k=st.integers(1, 2 * N_ITEMS),
    seed=st.integers(0, 9),
)
def test_head_equals_a_full_sort(
    recommender: OnnxRecommender, excluded: list[int], candidates: list[int], k: int, seed: int
) -> None:
    activation = recommender.embed(some_histories(recommender, 1, seed)).activation
    ranked = recommender.rank(
        activation, k=k, exclude=stack_indices([excluded]), candidates=stack_indices([candidates])
    )
    vectors = recommender.item_vectors
    assert vectors is not None
    scores = activation[0] @ vectors.T
    allowed = (set(candidates) or set(range(1, N_ITEMS + 1))) - set(excluded)
    expected = sorted((float(scores[item]) for item in allowed), reverse=True)[:k]
    items, found = ranked.row(0)
    assert set(items.tolist()) <= allowed
    assert len(set(items.tolist())) == len(items) == len(expected)
    # Scores, not places, are compared: two items may be closer than numpy and the graph agree.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(scores[items], expected, rtol=0, atol=1e-5)
    assert ranked.items.shape == (1, min(k, N_ITEMS))


def test_one_row_without_candidates_left_does_not_disturb_its_neighbour(recommender: OnnxRecommender) -> None:
    activation = recommender.embed(some_histories(recommender, 2)).activation
    alone = recommender.rank(activation[1:], k=5)
    together = recommender.rank(activation, k=5, exclude=stack_indices([range(1, N_ITEMS + 1), []]))
    assert together.row(0)[0].size == 0
    assert together.scores[1].tobytes() == alone.scores[0].tobytes()


def test_equal_scores_rank_by_lower_index(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, n_items=9)
    onnx.save(head_graph(np.zeros((10, 16), np.float32), np.zeros(10, np.float32)), tmp_path / "head.onnx")
    ranked = OnnxRecommender(bundle).rank(np.ones((1, 16), np.float32), k=4)
    assert ranked.items.tolist() == [[1, 2, 3, 4]]


def test_item_bias_is_added_once(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, n_items=3)
    bias = np.array([9, 1, 3, 2], np.float32)
    onnx.save(head_graph(np.zeros((4, 16), np.float32), bias), tmp_path / "head.onnx")
    ranked = OnnxRecommender(bundle).rank(np.ones((1, 16), np.float32), k=3)
    assert (ranked.items.tolist(), ranked.scores.tolist()) == ([[2, 3, 1]], [[3.0, 2.0, 1.0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"exclude": np.array([[-1]])}, "exclude holds an item index outside 0..30"),
        ({"candidates": np.array([[31]])}, "candidates holds an item index outside"),
        ({"exclude": np.zeros((3, 1), np.int64)}, r"expected \[1, any\]"),
        ({"activation": np.zeros((1, 5), np.float32)}, r"needs \[n, 16\]"),
        ({"activation": np.full((1, 16), np.nan, np.float32)}, "not finite"),
    ],
)
def test_wrong_ranking_input_is_refused_before_the_graph(
    recommender: OnnxRecommender, change: dict[str, NDArray[np.generic]], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        recommender.rank(**({"activation": np.zeros((1, 16), np.float32), "k": 3} | change))  # type: ignore[arg-type]


def test_bundle_without_all_positions_says_so(tmp_path: Path) -> None:
    tiny_bundle(tmp_path)
    (tmp_path / "trunk_positions.onnx").unlink()
    description = BundleDescription.read(tmp_path)
    hook = type(description.hooks[0])("sequence", "user", 16, all_positions=False)
    BundleDescription("tiny", "sasrec", 10, 40, "dot_product", (hook,)).write(tmp_path)
    recommender = OnnxRecommender(ModelBundle.load(tmp_path, "0" * 16))
    with pytest.raises(FailedPreconditionError, match="last positions only"):
        recommender.embed_positions(some_histories(recommender, 1))


def test_a_row_has_the_same_bits_at_every_batch_size(recommender: OnnxRecommender) -> None:
    report = batch_invariance(recommender)
    assert report.holds, report
    assert report.batch_sizes == (1, 2, 8, 64)


def test_warm_up_notices_results_that_depend_on_the_batch(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    graph = onnx.load(str(tmp_path / "trunk.onnx"))
    produced = next(node for node in graph.graph.node if "activation" in node.output)
    produced.output[list(produced.output).index("activation")] = "own"
    mean = onnx.helper.make_node("ReduceMean", ["own"], ["batch_mean"], axes=[0], keepdims=1)
    graph.graph.node.extend([mean, onnx.helper.make_node("Add", ["own", "batch_mean"], ["activation"])])
    onnx.save(graph, tmp_path / "trunk.onnx")
    report = batch_invariance(OnnxRecommender(bundle))
    assert not report.holds
    assert {"activation@2", "activation@8", "activation@64"} <= set(report.differs)
    assert "activation@1" not in report.differs
    assert isinstance(report, BatchInvariance)


def test_threads_get_the_answers_a_single_caller_gets(recommender: OnnxRecommender) -> None:
    def answer(seed: int) -> bytes:
        histories = some_histories(recommender, 4, seed)
        embedded = recommender.embed(histories)
        ranked = recommender.rank(embedded.activation, k=10, exclude=histories)
        return recommender.embed_positions(histories).tobytes() + ranked.items.tobytes() + ranked.scores.tobytes()

    alone = [answer(seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answer, range(40))) == alone
