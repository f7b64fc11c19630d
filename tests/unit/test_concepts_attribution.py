"""Attribution: parts sum exactly to the score, and heads that are no dot product are refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.concepts.attribution import ScoreAttributor, refusal, unexplained_shares
from recsae.errors import FailedPreconditionError, InvalidRequestError


@dataclass(frozen=True)
class Case:
    """One activation with its codes and a model to score it."""

    x: NDArray[np.float32]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    vectors: NDArray[np.float32]
    bias: NDArray[np.float32]
    w_dec: NDArray[np.float32]
    b_dec: NDArray[np.float32]

    def attributor(self) -> ScoreAttributor:
        return ScoreAttributor(self.vectors, self.bias, self.w_dec, self.b_dec)


@pytest.fixture
def case() -> Case:
    rng = np.random.default_rng(0)
    d, width, items = 16, 64, 40
    w_dec = rng.normal(size=(width, d)).astype(np.float32)
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    values = np.array([3.0, 2.0, 1.0, 0.5, 0.0], np.float32)
    return Case(
        x=rng.normal(size=d).astype(np.float32),
        indices=np.array([5, 9, 2, 40, 0], np.int32),
        values=values,
        vectors=rng.normal(size=(items + 1, d)).astype(np.float32),
        bias=rng.normal(size=items + 1).astype(np.float32),
        w_dec=w_dec,
        b_dec=rng.normal(size=d).astype(np.float32),
    )


def test_parts_sum_to_the_served_score(case: Case) -> None:
    items = [1, 7, 40]
    served = case.vectors[items] @ case.x + case.bias[items]
    for limit in (None, 2, 0):
        for part, score in zip(
            case.attributor().attribute(case.x, case.indices, case.values, items, served, limit=limit),
            served,
            strict=True,
        ):
            assert part.score == score
            assert part.total == pytest.approx(float(score), abs=1e-9)


def test_contributions_equal_the_score_lost_when_the_latent_is_removed(case: Case) -> None:
    item = 7
    (part,) = case.attributor().attribute(case.x, case.indices, case.values, [item])
    centred = case.vectors[item] - case.vectors[1:].mean(axis=0)
    for latent, contribution in zip(part.latents, part.contributions, strict=True):
        value = case.values[list(case.indices).index(latent)]
        lost = case.x @ centred - (case.x - value * case.w_dec[latent]) @ centred
        assert contribution == pytest.approx(lost, abs=1e-4)


def test_parts_over_the_whole_catalogue_have_mean_zero(case: Case) -> None:
    parts = case.attributor().attribute(case.x, case.indices, case.values, np.arange(1, 41))
    assert np.mean([part.base for part in parts]) == pytest.approx(0, abs=1e-5)
    assert np.mean([part.unexplained for part in parts]) == pytest.approx(0, abs=1e-5)
    assert np.mean([part.score for part in parts]) == pytest.approx(parts[0].catalogue_mean, abs=1e-5)


def test_a_limit_names_the_strongest_and_moves_the_rest_to_other(case: Case) -> None:
    (every,) = case.attributor().attribute(case.x, case.indices, case.values, [3])
    (two,) = case.attributor().attribute(case.x, case.indices, case.values, [3], limit=2)
    assert set(two.latents) == {5, 9}
    assert two.contributions.sum() + two.other == pytest.approx(every.contributions.sum())
    assert np.abs(np.diff(np.abs(every.contributions))).size == 3, "silent codes are not named"
    assert list(np.abs(every.contributions)) == sorted(np.abs(every.contributions), reverse=True)


def test_shares_do_not_depend_on_how_many_are_named_and_stay_below_one(case: Case) -> None:
    (every,) = case.attributor().attribute(case.x, case.indices, case.values, [3])
    (one,) = case.attributor().attribute(case.x, case.indices, case.values, [3], limit=1)
    share = dict(zip(every.latents.tolist(), every.shares, strict=True))
    assert one.shares[0] == share[int(one.latents[0])]
    assert 0 < sum(every.shares) <= 1


def test_a_head_that_is_no_dot_product_is_refused(case: Case) -> None:
    served = (case.vectors[[1]] @ case.x + case.bias[[1]]) * np.float32(1.1) + np.float32(0.5)
    with pytest.raises(FailedPreconditionError, match="not a plain dot product"):
        case.attributor().attribute(case.x, case.indices, case.values, [1], served)


@pytest.mark.parametrize("item", [0, -1, 41])
def test_padding_and_unknown_items_are_refused(case: Case, item: int) -> None:
    with pytest.raises(InvalidRequestError, match=r"leave 1\.\.40"):
        case.attributor().attribute(case.x, case.indices, case.values, [item])


def test_unexplained_share_is_zero_for_a_perfect_copy_and_one_for_the_mean(case: Case) -> None:
    x = np.stack([case.x, case.x])
    mean = np.zeros(16, np.float32)
    assert unexplained_shares(x, np.stack([case.x, mean]), mean).tolist() == [0.0, 1.0]


def test_only_errors_beyond_the_training_percentile_are_refused() -> None:
    assert refusal(0.2, 0.2) == ""
    assert "cannot explain: 30%" in refusal(0.3, 0.2)
