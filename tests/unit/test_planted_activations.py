"""Planted activations: the world is what it says, and a small SAE with the describer finds and names what is in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.study.planted import Setting, one_world, planted_study

from recsae.datasets.planted_activations import PlantedActivations, PlantedSpec, make_planted_activations, newest_items
from recsae.errors import InvalidRequestError

_SMALL = PlantedSpec(d=24, families=(12, 10), n_users=900, n_items=144, mean_length=40)


@pytest.fixture(scope="module")
def world() -> PlantedActivations:
    return make_planted_activations(_SMALL)


def histories_of(world: PlantedActivations) -> list[np.ndarray]:
    histories = world.dataset.histories
    return [histories.of(user)[: 5 + user % 30] for user in range(histories.n_users)]


def test_a_history_embedded_again_gives_the_same_bits_whatever_stands_beside_it(world: PlantedActivations) -> None:
    histories = histories_of(world)
    again = np.concatenate([world.embed(histories[at : at + 1]) for at in range(20)])
    np.testing.assert_allclose(again, world.embed(histories)[:20], atol=1e-5)


def test_activations_are_strengths_times_directions_plus_the_noise_asked_for(world: PlantedActivations) -> None:
    histories = histories_of(world)
    x, signal = world.embed(histories), world.strengths(histories) @ world.directions + world.offset
    noise = np.square(x - signal).sum() / np.square(x - x.mean(axis=0)).sum()
    assert noise == pytest.approx(_SMALL.noise_share, abs=0.01)
    np.testing.assert_allclose(np.linalg.norm(world.directions, axis=1), 1, rtol=1e-6)


def test_concepts_are_sparse_fire_on_their_facet_and_some_fire_together(world: PlantedActivations) -> None:
    histories = histories_of(world)
    fired = world.strengths(histories) > 0
    assert 1 < fired.sum(axis=1).mean() < 4
    newest = newest_items(histories)
    for concept in range(_SMALL.concepts):
        for column in world.columns[concept]:
            carries = world.facets.matrix[:, [column]].toarray().ravel()[newest].any(axis=1)
            assert not (fired[:, concept] & ~carries).any()
    phi = np.asarray(np.corrcoef(fired.T))
    assert phi[np.triu_indices(_SMALL.concepts, 1)].max() > 0.2


def test_the_same_spec_gives_the_same_world_and_another_seed_another() -> None:
    one, two = make_planted_activations(_SMALL), make_planted_activations(PlantedSpec(**vars(_SMALL) | {"seed": 1}))
    again = make_planted_activations(_SMALL)
    assert one.dataset.fingerprint() == again.dataset.fingerprint() != two.dataset.fingerprint()
    assert (one.directions == again.directions).all()
    assert not (one.directions == two.directions).any()


def test_a_pair_fires_only_where_both_of_its_facets_do() -> None:
    world = make_planted_activations(replace(_SMALL, pairs=4))
    assert world.concept_facets[-4:] == tuple(pair for pair in world.concept_facets if len(pair) == 2)
    histories = histories_of(world)
    fired = world.strengths(histories) > 0
    single = {names[0]: at for at, names in enumerate(world.concept_facets) if len(names) == 1}
    for at, names in enumerate(world.concept_facets[-4:], _SMALL.concepts):
        both = fired[:, single[names[0]]] & fired[:, single[names[1]]]
        assert fired[:, at].any()
        assert (fired[:, at] == both).all()


@pytest.mark.parametrize("wrong", [{"pairs": 17}, {"families": (8, 1)}, {"noise_share": 1.0}, {"d": 1}])
def test_a_world_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError):
        PlantedSpec(**wrong)  # type: ignore[arg-type]


def test_what_was_planted_is_found_and_rightly_named_and_random_directions_find_it_not() -> None:
    trained, frozen = one_world(Setting(_SMALL, k=3, rows_to_see=600_000))
    assert trained["mcc"] >= 0.9
    assert trained["recovered"] >= 0.9
    assert frozen["mcc"] <= trained["mcc"] - 0.2
    assert frozen["recovered"] <= 0.4


def test_the_study_reports_every_figure_with_an_interval_over_seeds() -> None:
    spec = PlantedSpec(d=16, families=(4, 3), n_users=300, n_items=60, mean_length=20)
    found = planted_study(seeds=(0, 1), setting=Setting(spec, k=2, rows_to_see=20_000))
    for figures in (found, found["frozen_random"], found["with_pairs"]):
        for name in ("mcc", "recovered"):
            low, high = figures[f"{name}_ci"]
            assert 0 <= low <= figures[name] <= high <= 1
