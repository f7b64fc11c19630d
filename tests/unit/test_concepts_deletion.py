"""Deletion: the curves equal brute force, good attributions beat random order, useless ones do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.concepts.attribution import ScoreAttributor
from recsae.concepts.deletion import (
    Score,
    contributions_by_removal,
    delete_in_order,
    dot_product_score,
    evenly_chosen,
    linear_contributions,
    top_items,
    validate_attribution,
)
from recsae.errors import InvalidRequestError
from recsae.recommenders.runtime import OnnxRecommender
from recsae.recommenders.synthetic import tiny_bundle
from recsae.sae.codes import Codes
from recsae.sae.dot_product import ExcludedItems

_N, _D, _K, _WIDTH, _ITEMS = 150, 12, 4, 40, 60
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """Activations made of their codes and noise, and items to score them with."""

    x: Floats
    codes: Codes
    w_dec: Floats
    vectors: Floats
    biases: Floats

    @property
    def users(self) -> NDArray[np.int64]:
        return np.arange(_N) // 2

    def contributions(self, items: NDArray[np.int64]) -> NDArray[np.float64]:
        return linear_contributions(self.codes, self.w_dec, self.vectors, items)


@pytest.fixture
def case() -> Case:
    rng = np.random.default_rng(0)
    w_dec = rng.normal(size=(_WIDTH, _D)).astype(np.float32)
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    indices = np.stack([rng.permutation(_WIDTH)[:_K] for _ in range(_N)]).astype(np.int32)
    values = -np.sort(-rng.exponential(2, (_N, _K))).astype(np.float32)
    values[::7, -1] = 0  # fewer fire
    codes = Codes(indices, values)
    x = np.einsum("nk,nkd->nd", values, w_dec[indices]) + rng.normal(0, 0.2, (_N, _D))
    vectors = rng.normal(size=(_ITEMS + 1, _D)).astype(np.float32)
    vectors[0] = 0
    return Case(x.astype(np.float32), codes, w_dec, vectors, rng.normal(0, 0.1, _ITEMS + 1).astype(np.float32))


def tanh_head(case: Case) -> Score:
    """A head that is no dot product."""
    inner = dot_product_score(case.vectors, case.biases)

    def score(x: Floats, rows: NDArray[np.int64]) -> Floats:
        return np.tanh(inner(x, rows) / 5).astype(np.float32)

    return score


def test_curves_equal_deleting_by_hand(case: Case) -> None:
    score = dot_product_score(case.vectors, case.biases)
    items = top_items(case.x, score)
    contributions = case.contributions(items)
    found = delete_in_order(case.x, case.codes, case.w_dec, contributions, score, users=case.users)
    for row in (0, 1, 7):
        order = sorted(range(_K), key=lambda at: (case.codes.values[row, at] <= 0, -contributions[row, at]))
        left = case.x[row].copy()
        whole = score(case.x[[row]], np.array([row]))[0, 1:]
        for step, at in enumerate(order):
            left = left - case.codes.values[row, at] * case.w_dec[case.codes.indices[row, at]]
            scores = score(left[None], np.array([row]))[0, 1:]
            item = items[row] - 1
            share = (scores[item] - scores.mean()) / (whole[item] - whole.mean())
            place = int((scores >= scores[item]).sum())
            assert found.curves["attributed"].score[row, step] == pytest.approx(share, abs=1e-4)
            assert found.curves["attributed"].gain[row, step] == pytest.approx(1 / np.log2(place + 1))


def test_all_orders_end_where_nothing_is_left_to_delete(case: Case) -> None:
    score = dot_product_score(case.vectors, case.biases)
    contributions = case.contributions(top_items(case.x, score))
    curves = delete_in_order(case.x, case.codes, case.w_dec, contributions, score, users=case.users).curves
    for order in ("strength", "random"):
        np.testing.assert_allclose(curves["attributed"].score[:, -1], curves[order].score[:, -1], atol=1e-4)


@pytest.mark.parametrize("head", [lambda case: dot_product_score(case.vectors, case.biases), tanh_head])
def test_true_contributions_beat_random_order_and_random_contributions_do_not(
    case: Case, head: Callable[[Case], Score]
) -> None:
    score = head(case)
    items = top_items(case.x, score)
    true = contributions_by_removal(case.x, case.codes, case.w_dec, score, items)
    good = delete_in_order(case.x, case.codes, case.w_dec, true, score, users=case.users)
    assert good.areas["score_over_random"].low > 0.03
    assert good.areas["gain_over_random"].low > 0.03
    noise = np.random.default_rng(1).random(true.shape)
    useless = delete_in_order(case.x, case.codes, case.w_dec, noise, score, users=case.users)
    assert abs(useless.areas["score_over_random"].value) < good.areas["score_over_random"].value / 3
    reversed_order = delete_in_order(case.x, case.codes, case.w_dec, -true, score, users=case.users)
    assert reversed_order.areas["score_over_random"].high < 0


def test_linear_contributions_are_those_of_the_attributor_and_of_removal(case: Case) -> None:
    score = dot_product_score(case.vectors, case.biases)
    items = top_items(case.x, score)
    found = case.contributions(items)
    attributor = ScoreAttributor(case.vectors, case.biases, case.w_dec, np.zeros(_D, np.float32))
    for row in (0, 7, 20):
        (part,) = attributor.attribute(case.x[row], case.codes.indices[row], case.codes.values[row], [int(items[row])])
        told = dict(zip(part.latents.tolist(), part.contributions.tolist(), strict=True))
        mine = dict(zip(case.codes.indices[row].tolist(), found[row].tolist(), strict=True))
        assert {latent: mine[latent] for latent in told} == pytest.approx(told, abs=1e-9)
    removed = contributions_by_removal(case.x, case.codes, case.w_dec, score, items)
    np.testing.assert_allclose(removed, found, atol=1e-4)


def test_consumed_items_are_never_the_top_item(case: Case) -> None:
    first = top_items(case.x, dot_product_score(case.vectors, case.biases))
    consumed = ExcludedItems(np.arange(_N + 1), first)
    second = top_items(case.x, dot_product_score(case.vectors, case.biases, consumed))
    assert not (first == second).any()
    assert (second > 0).all()


def test_attribution_holds_on_the_head_of_an_exported_network(tmp_path: Path) -> None:
    """Parts sum to what the ONNX head serves within 1e-4, and removal through that head tells the same."""
    recommender = OnnxRecommender(tiny_bundle(tmp_path, n_items=_ITEMS, dim=_D))
    rng = np.random.default_rng(2)
    histories = recommender.pad([rng.integers(1, _ITEMS + 1, size=6) for _ in range(40)])
    x = recommender.embed(histories).activation
    w_dec = np.linalg.qr(rng.normal(size=(_D, _D)))[0].astype(np.float32)
    values = x @ w_dec.T
    order = np.argsort(-values, axis=1)[:, :_K]
    codes = Codes(order.astype(np.int32), np.maximum(np.take_along_axis(values, order, axis=1), 0))
    biases = recommender.item_bias

    def score(part: Floats, rows: NDArray[np.int64]) -> Floats:
        ranked = recommender.rank(part, k=_ITEMS)
        scores = np.full((len(part), _ITEMS + 1), -np.inf, np.float32)
        np.put_along_axis(scores, ranked.items, ranked.scores, axis=1)
        return scores

    items = top_items(x, score)
    vectors = np.asarray(recommender.item_vectors, np.float32)
    attributor = ScoreAttributor(vectors, biases, w_dec, np.zeros(_D, np.float32))
    removed = contributions_by_removal(x, codes, w_dec, score, items)
    np.testing.assert_allclose(removed, linear_contributions(codes, w_dec, vectors, items), atol=1e-4)
    for row in range(len(x)):
        served = score(x[[row]], np.array([row]))[0]
        listed = np.arange(1, _ITEMS + 1)
        for part in attributor.attribute(x[row], codes.indices[row], codes.values[row], listed, served[1:]):
            assert part.total == pytest.approx(float(served[part.item]), abs=1e-4)
    deleted = delete_in_order(x, codes, w_dec, removed, score, users=np.arange(40), items=items)
    assert deleted.areas["score_over_random"].low > 0


def test_a_stage_validates_exact_attribution_on_a_bounded_number_of_rows(case: Case) -> None:
    @dataclass(frozen=True)
    class Sae:
        """Reads the directions it writes; never more than four fire."""

        w_dec: Floats
        version: str = "0" * 16
        width: int = _WIDTH

        def encode(self, x: Floats) -> Codes:
            values = x @ self.w_dec.T
            order = np.argsort(-values, axis=1, kind="stable")[:, :_K]
            kept = np.maximum(np.take_along_axis(values, order, axis=1), 0)
            return Codes(order.astype(np.int32), kept.astype(np.float32))

    x = np.tile(case.x, (10, 1))
    found = validate_attribution(Sae(case.w_dec), x, np.arange(len(x)) % _N, case.vectors, case.biases)
    assert (found.rows, found.steps) == (1_000, _K)
    assert found.areas["score_over_random"].low > 0
    assert set(found.scores()) >= {"score_over_random", "gain_over_random", "score_over_strength", "curves"}
    with pytest.raises(InvalidRequestError, match="at least one"):
        validate_attribution(Sae(case.w_dec), x[:0], np.zeros(0, np.int64), case.vectors)


def test_rows_are_spread_evenly_and_bounded() -> None:
    assert evenly_chosen(10_000).tolist()[:2] == [0, 10]
    assert len(evenly_chosen(10_000)) == 1_000
    assert evenly_chosen(3).tolist() == [0, 1, 2]
    assert evenly_chosen(0).tolist() == []


def test_arrays_that_do_not_belong_together_are_refused(case: Case) -> None:
    score = dot_product_score(case.vectors)
    with pytest.raises(InvalidRequestError, match="do not belong together"):
        delete_in_order(case.x, case.codes, case.w_dec, np.zeros((_N, _K + 1)), score, users=case.users)
    empty = Codes(np.zeros((0, _K), np.int32), np.zeros((0, _K), np.float32))
    with pytest.raises(InvalidRequestError, match="at least one"):
        delete_in_order(case.x[:0], empty, case.w_dec, np.zeros((0, _K)), score, users=np.zeros(0, np.int64))
