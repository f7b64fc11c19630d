"""Verdicts: true labels are verified, and permuted, swapped, lucky or memorised ones are not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.cases import Cases, group_users, resampling_weights
from recsae.concepts.controls import swap_labels
from recsae.concepts.rules import Predictor
from recsae.concepts.verification import Labels, Verdict, judge

Mask = NDArray[np.bool_]
_WIDTH, _USERS, _PER_USER = 60, 200, 60


@dataclass(frozen=True)
class World:
    """Planted cases: latent j fires where its truth [w, n] holds, but for a little noise."""

    cases: Cases
    truth: Mask

    def verdict(self, called: Mask, sets: Mask | None = None) -> Verdict:
        nothing = np.zeros_like(called)
        sets = nothing if sets is None else sets
        return judge(
            self.cases,
            Labels(predictor(called), np.asarray(called.any(axis=1))),
            Labels(predictor(sets), np.asarray(sets.any(axis=1))),
            predictor(nothing),
            prefers_set=np.zeros(len(called), bool),
            density=np.full(len(called), 0.05, np.float32),
            weights=resampling_weights(self.cases.groups),
        )


def csr(mask: Mask) -> sparse.csr_matrix:
    return sparse.csr_matrix(mask.astype(np.float32))


def predictor(called: Mask) -> Predictor:
    matrix = csr(called)
    return lambda latents: matrix[latents]


@pytest.fixture(scope="module")
def world() -> World:
    rng = np.random.default_rng(0)
    n = _USERS * _PER_USER
    truth = rng.random((_WIDTH, n)) < 0.05
    strong = truth & (rng.random((_WIDTH, n)) < 0.95)
    user = np.repeat(np.arange(_USERS), _PER_USER)
    cases = Cases(
        strong=csr(strong),
        weak=csr((rng.random((_WIDTH, n)) < 0.01) & ~strong),
        user=user,
        group=group_users(user.astype(np.int32)),
        unseen=rng.random(n) < 0.3,
        stratum=rng.integers(0, 10, n).astype(np.int32),
        n_strata=10,
        groups=_USERS,
        neighbours=((np.arange(_WIDTH)[:, None] + np.arange(1, 6)) % _WIDTH).astype(np.int32),
    )
    return World(cases, truth)


def test_true_labels_are_verified_and_semantic(world: World) -> None:
    verdict = world.verdict(world.truth)
    assert verdict.facet.all()
    assert verdict.semantic.all()
    assert (verdict.scores.f1.low > 0.9).all()
    assert (verdict.control.low < 0.15).all()
    assert not verdict.swapped_passes.any()


def test_permuted_labels_are_not_verified(world: World) -> None:
    assert not world.verdict(np.roll(world.truth, 1, axis=0)).facet.any()


def test_labels_of_shuffled_rows_are_not_verified(world: World) -> None:
    assert not world.verdict(world.truth[:, np.random.default_rng(1).permutation(world.truth.shape[1])]).facet.any()


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 1.0])
def test_a_coin_flip_is_never_verified(world: World, share: float) -> None:
    """Balanced F1 of a coin that says yes with probability q is 2q / (1 + 2q) <= 2/3, far below .8 in 60 tries."""
    coin = np.random.default_rng(2).random(world.truth.shape) < share
    assert not world.verdict(coin).facet.any()


def test_a_label_that_holds_on_seen_items_only_is_facet_not_semantic(world: World) -> None:
    called = world.truth & ~(world.cases.unseen & (np.random.default_rng(3).random(world.truth.shape) < 0.45))
    verdict = world.verdict(called)
    assert verdict.facet.mean() > 0.9
    assert not verdict.semantic.any()


def test_a_memorised_label_passes_as_an_item_set_only(world: World) -> None:
    memorised = world.truth & ~world.cases.unseen
    verdict = world.verdict(np.zeros_like(memorised), memorised)
    assert verdict.item_set.all()
    assert verdict.uses_set.all()
    assert not verdict.facet.any()
    assert not verdict.semantic.any()
    assert (verdict.scores.recall.value < 0.8).all(), "the natural mix counts unseen items against it"


def test_a_facet_label_that_passes_is_never_replaced_by_an_item_set(world: World) -> None:
    verdict = world.verdict(world.truth, world.truth)
    assert not verdict.item_set.any()
    assert not verdict.uses_set.any()


def test_labels_that_everyone_could_wear_do_not_beat_their_swaps(world: World) -> None:
    """Every latent fires alike and every label is the same true one: nothing tells the concepts apart."""
    one = np.repeat(world.truth[:1], _WIDTH, axis=0)
    cases = Cases(**(vars(world.cases) | {"strong": csr(one), "weak": csr(np.zeros_like(one))}))
    assert not World(cases, one).verdict(one).facet.any()


def test_a_label_that_fires_with_its_neighbours_fails_on_hard_negatives(world: World) -> None:
    near = np.logical_or.reduce([np.roll(world.truth, -shift, axis=0) for shift in range(6)])
    verdict = world.verdict(near)
    assert (verdict.scores.balanced_f1.value > 0.8).all()
    assert (verdict.scores.hard_f1.value < 0.7).all()
    assert not verdict.facet.any()


def test_a_concept_with_fewer_than_a_hundred_cases_is_not_judged() -> None:
    rng = np.random.default_rng(4)
    truth = rng.random((30, 3000)) < np.where(np.arange(30) < 15, 0.02, 0.08)[:, None]
    user = np.repeat(np.arange(100), 30)
    cases = Cases(
        csr(truth),
        csr(np.zeros_like(truth)),
        user,
        user,
        rng.random(3000) < 0.3,
        np.zeros(3000, np.int32),
        1,
        100,
        ((np.arange(30)[:, None] + np.arange(1, 6)) % 30).astype(np.int32),
    )
    verdict = World(cases, truth).verdict(truth)
    assert verdict.enough.tolist() == [False] * 15 + [True] * 15
    assert not verdict.facet[:15].any()
    assert verdict.facet[15:].all()


def test_swaps_never_meet_their_own_concept_and_stay_within_the_density_group(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsae.concepts.controls._LEAST_PER_GROUP", 30)
    density = np.linspace(0.01, 0.2, _WIDTH).astype(np.float32)
    swaps = swap_labels(world.cases, predictor(world.truth), density, np.ones(_WIDTH, bool))
    latents = np.arange(_WIDTH)
    assert (swaps.at_percentile != latents).all()
    assert (swaps.random != latents).all()
    assert (swaps.balanced_f1 < 0.5).all()
    assert ((swaps.at_percentile < 30) == (latents < 30)).all(), "60 labels make two groups by density"
