"""Grids of sweeps: which points they have, what they refuse, and how seeds are put together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsae.errors import InvalidRequestError
from recsae.pipeline.sweeps import (
    MAX_POINTS,
    NDCG_KEPT,
    PointResult,
    SweepGrid,
    SweepPoint,
    best_per_k,
    by_configuration,
    with_result,
)
from recsae.sae.config import VARIANTS


def result(width: int, k: int, seed: int = 0, variant: str = "topk", **scores: float) -> PointResult:
    named = {"kept": NDCG_KEPT, "fvu": "sae.fvu"}
    return PointResult(SweepPoint(width, k, variant, seed), {named[name]: value for name, value in scores.items()})


@given(
    st.lists(st.integers(16, 99), max_size=4),
    st.lists(st.integers(1, 16), max_size=4),
    st.lists(st.sampled_from(VARIANTS), max_size=4),
    st.lists(st.integers(0, 9), max_size=4),
)
def test_a_grid_has_every_combination_once(
    widths: list[int], ks: list[int], variants: list[str], seeds: list[int]
) -> None:
    grid = SweepGrid.of(widths, ks, variants, seeds).completed(64)
    points = grid.points()
    wanted = {
        (width, k, variant, seed)
        for width in set(widths) or {256}
        for k in set(ks) or {min(8, *(widths or [256]))}
        for variant in set(variants) or {"topk"}
        for seed in set(seeds) or {0}
    }
    assert {(point.width, point.k, point.variant, point.seed) for point in points} == wanted
    assert len(points) == grid.size == len(wanted) == len({point.name for point in points})
    assert all(grid.point(point.name) == point for point in points)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (SweepGrid.of(widths=[8]), "width 8 is out of range"),
        (SweepGrid.of(ks=[2000]), "k 2000 is out of range"),
        (SweepGrid.of(widths=[512, 16], ks=[8, 32]), "k 32 is larger than width 16"),
        (SweepGrid.of(variants=["vanilla"]), "variant 'vanilla' is unknown; choose from topk, batchtopk, matryoshka"),
        (SweepGrid.of(seeds=[-1]), "seed -1"),
        (SweepGrid.of(range(16, 32), range(1, 18)), "272 points .* at most 256"),
    ],
)
def test_a_grid_that_can_never_work_is_refused_by_value(grid: SweepGrid, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        grid.validate()


def test_the_largest_grid_is_accepted() -> None:
    grid = SweepGrid.of(range(16, 32), range(1, 17))
    grid.validate()
    assert grid.size == MAX_POINTS


def test_seeds_of_one_configuration_give_mean_and_sample_deviation() -> None:
    (one, other) = by_configuration(
        [result(64, 4, 0, kept=0.8, fvu=0.1), result(64, 4, 1, kept=0.9, fvu=0.3), result(64, 8, 0, kept=0.7)]
    )
    assert (one.width, one.k, len(one.results)) == (64, 4, 2)
    assert one.scores["sae.fvu"].mean == pytest.approx(0.2)
    assert one.scores[NDCG_KEPT].deviation == pytest.approx(0.1 / 2**0.5)
    assert (other.scores[NDCG_KEPT].mean, other.scores[NDCG_KEPT].deviation, other.scores[NDCG_KEPT].n) == (0.7, 0.0, 1)


def test_a_point_that_failed_takes_no_part_in_a_mean() -> None:
    failed = PointResult(SweepPoint(64, 4, "topk", 1), {}, "it diverged")
    (one,) = by_configuration([result(64, 4, 0, fvu=0.25), failed])
    assert (one.scores["sae.fvu"].mean, one.scores["sae.fvu"].n) == (0.25, 1)
    assert by_configuration([failed])[0].scores == {}


def test_the_best_of_each_k_keeps_most_ndcg_over_its_seeds() -> None:
    configurations = by_configuration(
        [
            result(64, 4, 0, kept=0.99, fvu=0.1), result(64, 4, 1, kept=0.80, fvu=0.1),
            result(128, 4, 0, kept=0.91, fvu=0.4), result(128, 4, 1, kept=0.92, fvu=0.4),
            result(64, 8, 0, fvu=0.3), result(128, 8, 0, fvu=0.2),
        ]
    )  # fmt: skip
    assert {k: one.width for k, one in best_per_k(configurations).items()} == {4: 128, 8: 128}


def test_results_stay_in_the_order_of_the_grid_and_a_point_done_again_counts_once() -> None:
    grid = SweepGrid.of((32, 64), (2,))
    first, second = (PointResult(point, {"sae.fvu": 0.5}) for point in grid.points())
    again = PointResult(first.point, {"sae.fvu": 0.4})
    assert with_result((second,), grid, first) == (first, second)
    assert with_result((first, second), grid, again) == (again, second)
