"""The study's measures on a planted world whose truth is known: probing, coherence, the intruder test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.study.coherence import coherence_of, top_pairs
from benchmarks.study.planted import activation_rows, frozen_random, planted_inputs
from benchmarks.study.probing import probing
from benchmarks.study.rivals import RATE, recsae_saes
from scipy import sparse

from recsae.concepts.build import build_dictionary
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.firings import Firings
from recsae.concepts.inputs import DictionaryInputs, read_part
from recsae.concepts.intruder_scores import intruder_scores
from recsae.concepts.records import ConceptStatus, RuleRecord
from recsae.concepts.splits import UserPart
from recsae.datasets.planted_activations import PlantedActivations, PlantedSpec, make_planted_activations
from recsae.sae.batches import ArrayRows
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.weights import SaeWeights

_K = 3


@dataclass(frozen=True)
class World:
    """A planted world, the SAE whose directions are the planted ones, and one of random directions."""

    world: PlantedActivations
    true: DictionaryInputs
    random: DictionaryInputs
    dictionary: Dictionary
    attributes: dict[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("saes")
    world = make_planted_activations(PlantedSpec(d=24, families=(8, 6), n_users=500, n_items=112, mean_length=30))
    rows = activation_rows(world)
    weights = SaeWeights(
        world.directions,
        np.full(len(world.directions), -0.3, np.float32),
        world.directions,
        world.offset,
        rows.x.mean(axis=0),
    )
    export_sae(weights, _K, TrainingFacts(error_p99=1.0, mean_norm=1.0), folder / "true")
    true = planted_inputs(world, rows, SparseAutoencoder.load(folder / "true", "1" * 16))
    random = planted_inputs(world, rows, frozen_random(rows.x, len(world.directions), _K, folder / "random", seed=1))
    return World(world, true, random, build_dictionary(true), _attributes(world))


def _attributes(world: PlantedActivations) -> dict[str, tuple[str, ...]]:
    """One attribute that a history gives away (its most frequent genre is in the first half), and one of chance."""
    histories = world.dataset.histories
    genre = np.argmax(world.facets.matrix[:, world.columns[:8, 0]].toarray(), axis=1)
    usual = [np.bincount(genre[histories.of(user)], minlength=8).argmax() for user in range(histories.n_users)]
    return {
        "taste": tuple("early" if one < 4 else "late" for one in usual),
        "coin": tuple("FM"[bit] for bit in np.random.default_rng(0).integers(0, 2, histories.n_users)),
    }


def test_single_true_latents_read_genres_nearly_as_well_as_a_probe_and_random_ones_do_not(opened: World) -> None:
    found = probing(opened.true, {}, k=_K, untrained=opened.random)["genre_corr"]["recent"]
    assert found["linear_probe"]["value"] > 0.8
    assert found["sae_over_linear_probe"]["ci"][0] > 0.9
    assert found["sae_minus_untrained"]["ci"][0] > 0.1
    assert found["sae_minus_raw"]["ci"][0] > 0.1


def test_k_sparse_probing_rises_with_k_and_the_probe_is_above_it(opened: World) -> None:
    found = probing(opened.true, {}, k=_K)["k_sparse"]
    for method in ("sae", "raw", "data_points"):
        reached = [found[method][f"k{k}"]["auc"]["value"] for k in (1, 2, 5)]
        assert reached == sorted(reached)
    assert found["sae"]["k1"]["f1"]["value"] > found["raw"]["k1"]["f1"]["value"] + 0.05
    assert found["linear_probe"]["auc"]["value"] > 0.9


def test_user_attributes_are_read_where_the_history_tells_them_and_at_chance_where_it_does_not(opened: World) -> None:
    found = probing(opened.true, opened.attributes, k=_K)["user_attributes"]
    assert found["taste"]["sae"]["k5"]["ci"][0] > 0.7
    low, high = found["coin"]["sae"]["k5"]["ci"]
    assert low < 0.5 < high


def test_facets_of_true_latents_are_recalled(opened: World) -> None:
    found = probing(opened.true, {}, k=_K, dictionary=opened.dictionary)["facet_recall"]
    assert found["single_latent"]["value"] > 0.9
    assert found["verified_label"] > 0.4
    control = probing(opened.random, {}, k=_K)["facet_recall"]
    assert control["single_latent"]["value"] < found["single_latent"]["value"] - 0.2


def test_items_of_true_latents_are_alike_by_the_metadata_their_genre_is_in(opened: World) -> None:
    found = coherence_of(opened.true, opened.dictionary)
    metadata = found["metadata"]
    assert metadata["evidence"]["lift"]["ci"][0] > 1.5
    assert metadata["promoted"]["lift"]["ci"][0] > 1.5
    assert metadata["evidence"]["distinct_items"] > 3
    assert metadata["evidence_matched"]["latents"] <= metadata["recsae"]["latents"]
    assert 0 < found["recsae_evidence"]["same_user_pairs"] <= 1
    assert found["effective_items"]["median"] > 5


def test_titles_that_say_nothing_are_not_alike(opened: World) -> None:
    rng = np.random.default_rng(5)
    words = np.array([f"{one}{other}x" for one in "abcdef" for other in "ghijk"])
    titles = [" ".join(rng.choice(words, 5)) for _ in range(opened.true.n_items)]
    low, high = coherence_of(replace(opened.true, titles=titles), opened.dictionary)["title"]["evidence"]["lift"]["ci"]
    assert low < 1.2
    assert 0.8 < high < 1.5


def test_a_rival_is_measured_on_the_same_rows(opened: World) -> None:
    rival = opened.true.sae
    assert isinstance(rival, SparseAutoencoder)
    found = coherence_of(opened.true, opened.dictionary, rivals={"same": rival})["metadata"]
    assert found["rivals"]["same"]["lift"]["value"] == found["recsae"]["lift"]["value"]
    assert found["recsae"]["over_best_rival"]["value"] == pytest.approx(1)


def test_recsaes_choice_is_the_newest_item_of_the_five_strongest_rows() -> None:
    values = np.array([[5, 4, 3, 2, 1, 0.5], [0, 0, 1, 0, 0, 0]], np.float32)
    newest = np.array([7, 7, 8, 9, 7, 3], np.int32)
    members = top_pairs(Firings(sparse.csr_matrix(values)), newest, 10).toarray()
    assert [np.flatnonzero(row).tolist() for row in members] == [[7, 8, 9], [8]]


def test_the_intruder_test_of_a_dictionary_finds_true_latents_above_chance_and_the_control_at_it(opened: World) -> None:
    part = read_part(opened.true, UserPart.VERIFICATION)
    lag = np.array([int(one.scores["typical_lag"]) for one in opened.dictionary.concepts])
    concepts = opened.dictionary.concepts
    # Nothing is said by records without rules: the judge sees every family.
    unlabelled = [replace(one, rule=RuleRecord()) for one in concepts]
    found = intruder_scores(opened.true, part, opened.dictionary.arrays.p95, lag, unlabelled)
    verified = np.array([one.status is ConceptStatus.VERIFIED for one in concepts])
    summary = found.summary(verified)
    assert summary["facets"]["all"]["ci"][0] > 0.35
    low, high = summary["facets"]["control"]["ci"]
    assert low < 0.25
    assert high > 0.15
    scores = found.as_scores()
    assert scores["intruder"].shape == (len(concepts),)
    assert np.nanmax(scores["intruder"]) <= 1
    # A label that names the genre may not be judged by it.
    honest = intruder_scores(opened.true, part, opened.dictionary.arrays.p95, lag, concepts)
    assert honest.by_facets.overall(verified).value < found.by_facets.overall(verified).value


def test_rivals_have_recsaes_settings_and_are_trained_once(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    first = recsae_saes(ArrayRows(x), "planted", tmp_path, ks=(2, 3), epochs=2)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again = recsae_saes(ArrayRows(x), "planted", tmp_path, ks=(2, 3), epochs=2)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == made
    assert {name: (one.k, one.width) for name, one in again.items()} == {"k2": (2, 64), "k3": (3, 64)}
    assert again["k2"].config["learning_rate"] == RATE
    assert (again["k2"].w_dec == first["k2"].w_dec).all()
