"""Refreshes over a planted world: who keeps its id, what is kept, and what is said of the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.refreshed_saes import DEAD, WIDTH, Edited, Shuffled, Turned
from tests.unit.test_concepts_build import Sae, make_inputs

from recsae.concepts.build import build_dictionary
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.identity import Identity, Previous, identify
from recsae.concepts.inputs import DictionaryInputs
from recsae.concepts.origins import DRIFTED, LOST, MERGED, NEW, SILENT, SPLIT, STABLE
from recsae.concepts.probe_set import ProbeSet, load_probe_set, make_probe_set
from recsae.concepts.records import ConceptStatus
from recsae.datasets.facets import FacetTable
from recsae.datasets.planted import make_planted
from recsae.errors import NotFoundError

GENRES = 8
OTHER_MODEL = "d" * 16


@pytest.fixture(scope="module")
def inputs() -> DictionaryInputs:
    return make_inputs(make_planted(seed=3, n_users=400, n_items=160, n_concepts=GENRES, mean_length=40))


@pytest.fixture(scope="module")
def dictionary(inputs: DictionaryInputs) -> Dictionary:
    return replace(build_dictionary(inputs), version="1" * 16)


@pytest.fixture(scope="module")
def probe(inputs: DictionaryInputs) -> ProbeSet:
    return make_probe_set(inputs)


@pytest.fixture(scope="module")
def previous(inputs: DictionaryInputs, dictionary: Dictionary, probe: ProbeSet) -> Previous:
    return Previous(dictionary, inputs.sae, probe)


def original(inputs: DictionaryInputs) -> Sae:
    assert isinstance(inputs.sae, Sae)
    return inputs.sae


def turned_world(inputs: DictionaryInputs) -> DictionaryInputs:
    """The same world read by a model of another version, whose space is turned."""
    d = inputs.sae.w_dec.shape[1]
    rotation = np.linalg.qr(np.random.default_rng(5).normal(size=(d, d)))[0].astype(np.float32)

    def embed(histories: Sequence[NDArray[np.int32]], users: NDArray[np.int32]) -> NDArray[np.float32]:
        return 2 * inputs.embed(histories, users) @ rotation

    shards = [replace(shard, x=2 * shard.x @ rotation) for shard in inputs.shards]  # type: ignore[type-var]
    order = np.random.default_rng(2).permutation(WIDTH)
    sae = Turned(Shuffled(Sae(original(inputs).w_dec), order), rotation)
    vectors = inputs.item_vectors
    assert vectors is not None
    return replace(
        inputs, model_version=OTHER_MODEL, embed=embed, shards=shards, sae=sae, item_vectors=2 * vectors @ rotation
    )


def test_a_refresh_keeps_ids_and_concepts_whose_old_rule_still_holds(
    inputs: DictionaryInputs, dictionary: Dictionary, previous: Previous
) -> None:
    order = np.random.default_rng(1).permutation(WIDTH)
    again = build_dictionary(replace(inputs, sae=Shuffled(original(inputs), order), previous=previous))
    assert [concept.id for concept in again.concepts] == [dictionary.by_latent(old).id for old in order.tolist()]
    for latent, old in enumerate(order.tolist()):
        origin, before = again.by_latent(latent).origin, dictionary.by_latent(old)
        assert origin is not None
        assert origin.from_ids == (before.id,)
        assert origin.status == (SILENT if old == DEAD else STABLE)
        assert origin.cosine == pytest.approx(1, abs=1e-5)
        assert origin.kept is (True if before.status is ConceptStatus.VERIFIED else None)
        assert origin.unbroken == (0 if old == DEAD else 1)
    assert again.lineage is not None
    summary = again.lineage.summary()
    assert summary["kept"] == sum(concept.status is ConceptStatus.VERIFIED for concept in dictionary.concepts)
    assert (summary["kept_share"], summary["live"][STABLE]["count"]) == (1.0, WIDTH - 1)
    assert summary["live"][STABLE]["share_of_mass"] == pytest.approx(1)
    assert summary["false_match_rate"] < 0.05
    assert again.lineage.ancestors == (dictionary.version,)


def test_ids_survive_a_new_version_of_the_model(
    inputs: DictionaryInputs, dictionary: Dictionary, previous: Previous
) -> None:
    world = turned_world(inputs)
    again = build_dictionary(replace(world, previous=previous))
    assert isinstance(world.sae, Turned)
    assert isinstance(world.sae.of, Shuffled)
    order = world.sae.of.order.tolist()
    live = [latent for latent, old in enumerate(order) if old != DEAD]
    assert [again.by_latent(at).id for at in live] == [dictionary.by_latent(order[at]).id for at in live]
    assert again.lineage is not None
    assert again.lineage.explained == pytest.approx(1, abs=1e-3)
    genres = [again.by_latent(at) for at in live if order[at] < GENRES]
    assert all(concept.origin is not None and concept.origin.kept for concept in genres)


def test_without_probe_rows_a_new_version_of_the_model_keeps_nothing_and_says_lost(
    inputs: DictionaryInputs, dictionary: Dictionary
) -> None:
    found = identify(replace(turned_world(inputs), previous=Previous(dictionary, inputs.sae)))
    assert not set(found.ids) & {concept.id for concept in dictionary.concepts}
    assert found.lineage is not None
    assert {fate.status for fate in found.lineage.fates} == {LOST}
    assert {fate.kept for fate in found.lineage.fates if fate.verified} == {False}


def test_without_probe_rows_the_same_model_is_compared_on_rows_of_today(
    inputs: DictionaryInputs, dictionary: Dictionary
) -> None:
    order = np.random.default_rng(1).permutation(WIDTH)
    sae = Shuffled(original(inputs), order)
    found = identify(replace(inputs, sae=sae, previous=Previous(dictionary, inputs.sae)))
    assert found.ids == tuple(dictionary.by_latent(old).id for old in order.tolist())


def test_a_found_concept_whose_old_rule_fails_is_in_doubt(
    inputs: DictionaryInputs, dictionary: Dictionary, previous: Previous
) -> None:
    """The catalogue renames its genres by turns: latents fire as before, and what was said of them is wrong."""
    names = [name for name in inputs.facets.names if name.startswith("genre=")]
    renamed = dict(zip(names, [*names[1:], names[0]], strict=True))
    facets = replace(inputs.facets, names=tuple(renamed.get(name, name) for name in inputs.facets.names))
    again = build_dictionary(replace(inputs, facets=facets, sae=replace(original(inputs)), previous=previous))
    for latent in range(GENRES):
        concept = again.by_latent(latent)
        assert concept.id == dictionary.by_latent(latent).id
        assert concept.origin is not None
        assert (concept.origin.status, concept.origin.kept, concept.origin.unbroken) == (STABLE, False, 0)
        assert "old rule" in concept.origin.doubt
    assert again.lineage is not None
    assert again.lineage.summary()["kept"] == 0


def test_a_rule_about_a_facet_that_is_gone_is_not_kept_and_breaks_nothing(
    inputs: DictionaryInputs, previous: Previous
) -> None:
    gone = tuple(name.replace("genre=", "mood=") for name in inputs.facets.names)
    families = tuple("mood" if family == "genre" else family for family in inputs.facets.families)
    facets = FacetTable(gone, families, inputs.facets.matrix)
    again = build_dictionary(replace(inputs, facets=facets, previous=previous))
    assert [again.by_latent(latent).origin.kept for latent in range(GENRES)] == [False] * GENRES  # type: ignore[union-attr]


def test_a_learnt_facet_keeps_its_items_when_its_name_is_gone(
    inputs: DictionaryInputs, dictionary: Dictionary, previous: Previous
) -> None:
    """A genre is taken for learnt here: today's table has no such facet, the dictionary before has its items."""
    columns = inputs.facets.matrix.tocsc()
    learnt = {
        name: tuple(inputs.item_ids[item - 1] for item in columns[:, at].nonzero()[0].tolist())
        for at, name in enumerate(inputs.facets.names)
    }
    gone = replace(inputs.facets, names=tuple(f"mood={name}" for name in inputs.facets.names))
    before = replace(previous, dictionary=replace(dictionary, learnt=learnt))
    again = build_dictionary(replace(inputs, facets=gone, previous=before))
    kept = [origin.kept for origin in (again.by_latent(latent).origin for latent in range(GENRES)) if origin]
    assert kept == [True] * GENRES


def test_a_rule_with_too_few_cases_left_is_not_kept_and_says_so(inputs: DictionaryInputs, previous: Previous) -> None:
    """Fewer rows than a verdict takes: nothing speaks against the concepts, and nothing for them."""
    again = build_dictionary(replace(inputs, rows_per_part=300, previous=previous))
    origins = [origin for origin in (again.by_latent(latent).origin for latent in range(GENRES)) if origin]
    assert {(origin.status, origin.kept, origin.too_few_cases) for origin in origins} == {(STABLE, False, True)}
    assert "too few cases" in origins[0].doubt
    assert again.lineage is not None
    summary = again.lineage.summary()
    assert (summary["kept"], summary["kept_share_of_judged"]) == (0, None)


def test_a_lost_concept_is_named_with_what_became_of_it(
    inputs: DictionaryInputs, dictionary: Dictionary, previous: Previous
) -> None:
    lost = dictionary.by_latent(2)
    found = build_dictionary(replace(inputs, sae=Edited(original(inputs), silenced=(2,)), previous=previous))
    assert found.lineage is not None
    fate = found.lineage.fate(lost.id)
    assert fate is not None
    assert (fate.status, fate.to_ids, fate.kept) == (LOST, (), False)
    assert lost.id not in {concept.id for concept in found.concepts}
    with pytest.raises(NotFoundError, match="was lost at the refresh"):
        found.by_id(lost.id)


def test_merged_concepts_give_up_their_ids_and_point_to_the_whole(
    inputs: DictionaryInputs, dictionary: Dictionary, previous: Previous
) -> None:
    found = identify(replace(inputs, sae=Edited(original(inputs), merged=(0, 1)), previous=previous))
    parts = {dictionary.by_latent(latent).id for latent in (0, 1)}
    origin = found.origins[0]
    assert origin is not None
    assert (origin.status, set(origin.from_ids)) == (MERGED, parts)
    assert not parts & set(found.ids)
    assert [fate_of(found, part) for part in sorted(parts)] == [(MERGED, (found.ids[0],))] * 2


def test_a_split_concept_gives_its_id_to_none_of_its_parts(inputs: DictionaryInputs, dictionary: Dictionary) -> None:
    whole = Edited(original(inputs), merged=(0, 1))
    before = Previous(dictionary, whole, make_probe_set(inputs))
    found = identify(replace(inputs, previous=before))
    assert dictionary.by_latent(0).id not in found.ids
    assert [origin.status for origin in found.origins[:2] if origin] == [SPLIT] * 2
    assert fate_of(found, dictionary.by_latent(0).id) == (SPLIT, (found.ids[0], found.ids[1]))


def fate_of(found: Identity, concept_id: str) -> tuple[str, tuple[str, ...]]:
    assert found.lineage is not None
    fate = found.lineage.fate(concept_id)
    assert fate is not None
    return fate.status, fate.to_ids


def test_nothing_of_an_unrelated_dictionary_is_found(inputs: DictionaryInputs, previous: Previous) -> None:
    d = inputs.sae.w_dec.shape[1]
    rotation = np.linalg.qr(np.random.default_rng(8).normal(size=(d, d)))[0].astype(np.float32)
    found = identify(replace(inputs, sae=Turned(original(inputs), rotation), previous=previous))
    live = [origin.status for latent, origin in enumerate(found.origins) if origin and latent != DEAD]
    # In 24 dimensions a random direction may come as near as .35; never does one fire on the same rows too.
    assert set(live) <= {NEW, DRIFTED}
    assert live.count(NEW) > len(live) / 2


def test_without_a_dictionary_before_ids_are_unique_stable_and_well_formed(inputs: DictionaryInputs) -> None:
    first, second = identify(inputs), identify(inputs)
    assert first == second
    assert len(set(first.ids)) == WIDTH
    assert all(len(one) == 10 and one.startswith("c-") for one in first.ids)
    assert (set(first.origins), first.lineage) == ({None}, None)


def test_a_new_concept_never_takes_an_id_of_before(inputs: DictionaryInputs, dictionary: Dictionary) -> None:
    """Every id a new latent would get is taken."""
    would_be = identify(replace(inputs, model_version=OTHER_MODEL)).ids
    taken = tuple(replace(one, id=name) for one, name in zip(dictionary.concepts, would_be, strict=True))
    before = Previous(replace(dictionary, concepts=taken), inputs.sae)
    assert not set(identify(replace(inputs, model_version=OTHER_MODEL, previous=before)).ids) & set(would_be)


def test_trust_in_an_id_goes_back_as_far_as_it_was_never_in_doubt(
    inputs: DictionaryInputs, dictionary: Dictionary, previous: Previous
) -> None:
    second = build_dictionary(replace(inputs, previous=previous))
    second = replace(second, version="2" * 16)
    third = build_dictionary(replace(inputs, previous=Previous(second, inputs.sae, previous.probe)))
    third = replace(third, version="3" * 16)
    concept = dictionary.by_latent(0).id
    assert third.lineage is not None
    assert third.lineage.ancestors == ("2" * 16, "1" * 16)
    assert [third.doubt(concept, made_for) for made_for in ("3" * 16, "2" * 16, "1" * 16, "")] == [""] * 4
    assert "goes back to" in third.doubt(concept, "9" * 16)
    doubted = replace(third.by_latent(0), origin=replace(third.by_latent(0).origin, unbroken=1))  # type: ignore[type-var]
    later = replace(third, concepts=(doubted, *third.concepts[1:]))
    assert later.doubt(concept, "2" * 16) == ""
    assert "came into doubt since dictionary 1111" in later.doubt(concept, "1" * 16)
    # Of what an older release left nobody knows since when; it counts from the oldest dictionary there is.
    assert "came into doubt" in later.doubt(concept, "")


def test_lineage_and_probe_rows_come_back_from_their_files(
    inputs: DictionaryInputs, previous: Previous, probe: ProbeSet, tmp_path: Path
) -> None:
    again = build_dictionary(replace(inputs, previous=previous))
    again.save(tmp_path)
    probe.save(tmp_path)
    loaded = Dictionary.load(tmp_path, "")
    assert loaded.lineage == again.lineage
    assert json.loads((tmp_path / "lineage.json").read_text())["summary"]["kept_share"] == 1.0
    read = load_probe_set(tmp_path)
    assert read is not None
    assert (read.item_ids, len(read)) == (probe.item_ids, len(probe))
    np.testing.assert_array_equal(read.x, probe.x)
    np.testing.assert_array_equal(read.windows.items, probe.windows.items)
