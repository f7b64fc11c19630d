"""A dictionary built end to end over a world whose concepts are known: half of its latents read one genre each, the
other half read directions that mean nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.concepts.build import build_dictionary
from recsae.concepts.construction import describe
from recsae.concepts.description import Description
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.evidence import of_histories
from recsae.concepts.inputs import DictionaryInputs
from recsae.concepts.judgement import verify
from recsae.concepts.output_differences import ScoredLists
from recsae.concepts.records import ConceptKind, ConceptStatus
from recsae.concepts.splits import UserPart, split_users
from recsae.concepts.thresholds import Standing
from recsae.datasets.facets import build_facets
from recsae.datasets.planted import Planted, make_planted
from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.sae.codes import Codes

_GENRES, _NOISE, _D, _K = 8, 8, 24, 4
_WIDTH = _GENRES + _NOISE + 1
_DECAY = 0.75


@dataclass(frozen=True)
class Model:
    """An item is its genre's direction plus a little of its own; a history is their recency-weighted mean."""

    vectors: NDArray[np.float32]

    def embed(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        rows = []
        for history in histories:
            newest = np.asarray(history)[-10:][::-1]
            weights = _DECAY ** np.arange(len(newest))
            rows.append(weights @ self.vectors[newest] / weights.sum())
        return np.array(rows, dtype=np.float32)


@dataclass(frozen=True)
class Sae:
    """Latents 0-7 read a genre, 8-15 random directions of no meaning, 16 never fires."""

    w_dec: NDArray[np.float32]
    version: str = "b" * 16
    width: int = _WIDTH

    def scores(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        z = x @ self.w_dec.T
        z[:, :_GENRES] -= 0.4
        z[:, _GENRES:-1] -= 0.15
        z[:, -1] = -1
        return z

    def encode(self, x: NDArray[np.float32]) -> Codes:
        z = self.scores(x)
        order = np.argsort(-z, axis=1, kind="stable")[:, :_K]
        return Codes(order.astype(np.int32), np.maximum(np.take_along_axis(z, order, axis=1), 0).astype(np.float32))


@dataclass(frozen=True)
class Shard:
    """Every position of every user."""

    x: NDArray[np.float32]
    user: NDArray[np.int32]
    position: NDArray[np.int32]
    item: NDArray[np.int32]


@pytest.fixture(scope="module")
def planted() -> Planted:
    return make_planted(seed=3, n_users=400, n_items=160, n_concepts=_GENRES, mean_length=40)


def make_inputs(planted: Planted, seed: int = 0) -> DictionaryInputs:
    rng = np.random.default_rng(seed)
    dataset, histories = planted.dataset, planted.dataset.histories
    w_dec = np.eye(_D, dtype=np.float32)[:_WIDTH].copy()
    w_dec[_GENRES:] = rng.normal(size=(_NOISE + 1, _D))
    w_dec[_GENRES:, :_GENRES] = 0
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    vectors = np.zeros((dataset.items.count + 1, _D), np.float32)
    vectors[:, _GENRES:] = 0.35 * rng.normal(size=(len(vectors), _D - _GENRES))
    vectors[np.arange(1, len(vectors)), planted.concept_of_item[1:]] = 1
    vectors[0] = 0
    model = Model(vectors)
    user = np.repeat(np.arange(histories.n_users), histories.lengths).astype(np.int32)
    position = np.concatenate([np.arange(length) for length in histories.lengths]).astype(np.int32)
    x = model.embed([histories.of(u)[: p + 1] for u, p in zip(user.tolist(), position.tolist(), strict=True)])
    half = len(user) // 2
    shards = [
        Shard(x[part], user[part], position[part], histories.items[part]) for part in (slice(half), slice(half, None))
    ]
    return DictionaryInputs(
        model="planted",
        model_version="a" * 16,
        sae=Sae(w_dec),
        shards=shards,
        histories=histories,
        pseudonyms=dataset.users.ids,
        item_ids=dataset.items.ids,
        titles=dataset.items.titles,
        facets=build_facets(dataset.items, histories),
        embed=of_histories(model.embed),
        max_history=200,
        item_vectors=vectors,
    )


@pytest.fixture(scope="module")
def inputs(planted: Planted) -> DictionaryInputs:
    return make_inputs(planted)


@pytest.fixture(scope="module")
def dictionary(inputs: DictionaryInputs) -> Dictionary:
    return build_dictionary(inputs)


def test_planted_genres_are_found_verified_and_named(dictionary: Dictionary, planted: Planted) -> None:
    for latent in range(_GENRES):
        concept = dictionary.by_latent(latent)
        name = planted.concept_names[latent]
        assert concept.status is ConceptStatus.VERIFIED
        assert concept.kind is ConceptKind.SEMANTIC
        assert f"genre={name}" in concept.predicate
        assert name in concept.label
        assert concept.input_facets[0].facet == f"genre={name}"
        assert concept.output_facets[0].facet == f"genre={name}"
        assert name in concept.output_label
        assert concept.confidence > 0.8
        assert concept.control_confidence < 0.5


def test_meaningless_latents_are_not_verified_as_facets(dictionary: Dictionary) -> None:
    kinds = [dictionary.by_latent(latent) for latent in range(_GENRES, _GENRES + _NOISE)]
    assert not [c.label for c in kinds if c.status is ConceptStatus.VERIFIED and c.kind is not ConceptKind.ITEM_SET]
    assert max(c.confidence for c in kinds) < min(dictionary.by_latent(latent).confidence for latent in range(_GENRES))


def test_a_latent_that_never_fires_is_dead_and_has_no_label(dictionary: Dictionary) -> None:
    dead = dictionary.by_latent(_WIDTH - 1)
    assert (dead.status, dead.kind, dead.label, dead.density) == (ConceptStatus.DEAD, ConceptKind.NONE, "", 0)
    assert dictionary.summary["live"] == _WIDTH - 1


def test_the_summary_counts_shares_of_all_live_latents(dictionary: Dictionary) -> None:
    assert dictionary.summary["verified"]["count"] == _GENRES
    assert dictionary.summary["verified"]["share_of_live"] == pytest.approx(_GENRES / (_WIDTH - 1))
    assert dictionary.summary["swapped_labels_verified_share"] == 0


def test_evidence_shows_the_genre_in_its_deciding_items(dictionary: Dictionary, planted: Planted) -> None:
    index = {item_id: at for at, item_id in enumerate(planted.dataset.items.ids, 1)}
    for latent in range(_GENRES):
        evidence = dictionary.by_latent(latent).evidence
        deciding = [item.item_id for each in evidence for item in each.items if item.deciding]
        assert len(evidence) >= 3
        assert len(set(deciding)) == len(evidence)
        assert {int(planted.concept_of_item[index[item]]) for item in deciding} == {latent}


def test_examples_show_how_a_concept_fires_at_every_strength(dictionary: Dictionary, inputs: DictionaryInputs) -> None:
    rows = int((inputs.parts[np.concatenate([s.user for s in inputs.shards])] == UserPart.CONSTRUCTION).sum())
    for latent in range(_GENRES):
        concept = dictionary.by_latent(latent)
        assert 0 < len(concept.random_evidence) <= 5
        assert all(case.strength >= 0.5 for case in concept.random_evidence)
        assert sum(band.firings for band in concept.bands) == round(concept.density * rows) == concept.scores["firings"]
        for band in concept.bands:
            assert (band.example is None) == (band.firings == 0)
            assert band.example is None or band.low <= band.example.strength <= band.high * (1 + 1e-6)
        assert 0.01 <= concept.scores["concentration"] < 0.1
        assert -1 <= concept.scores["popularity_correlation"] <= 1
    assert not dictionary.by_latent(_WIDTH - 1).bands


def test_near_misses_are_shown_where_scores_are_known(inputs: DictionaryInputs, planted: Planted) -> None:
    assert not any(concept.near_misses for concept in build_dictionary(inputs).concepts)
    sae = inputs.sae
    assert isinstance(sae, Sae)
    shown = describe(replace(inputs, scores=sae.scores)).draft.concepts
    genres = [case for concept in shown[:_GENRES] for case in concept.near_misses]
    assert genres
    assert all(0 < case.strength < 1 and not any(item.deciding for item in case.items) for case in genres)


def test_decoder_neighbours_are_other_live_latents_nearest_first(
    dictionary: Dictionary, inputs: DictionaryInputs
) -> None:
    latent_of = {concept.id: concept.latent for concept in dictionary.concepts}
    for concept in dictionary.concepts[:-1]:
        near = [latent_of[one.concept_id] for one in concept.decoder_neighbours]
        assert len(near) == 5
        assert not {concept.latent, _WIDTH - 1} & set(near)
        cosines = [float(inputs.sae.w_dec[concept.latent] @ inputs.sae.w_dec[other]) for other in near]
        np.testing.assert_allclose([one.correlation for one in concept.decoder_neighbours], cosines, atol=1e-6)
        assert cosines == sorted(cosines, reverse=True)


def test_two_stages_with_files_between_give_the_same_dictionary(
    inputs: DictionaryInputs, dictionary: Dictionary, tmp_path: Path
) -> None:
    describe(inputs).save(tmp_path / "description")
    again = verify(inputs, Description.load(tmp_path / "description"))
    for folder, each in (("one", dictionary), ("two", again)):
        each.save(tmp_path / folder)
    one, two = (json.loads((tmp_path / folder / "concepts.json").read_text()) for folder in ("one", "two"))
    assert one == two
    assert Dictionary.load(tmp_path / "two", "c" * 16).by_latent(0).label == dictionary.by_latent(0).label


def test_describing_reads_no_verification_user(inputs: DictionaryInputs, tmp_path: Path) -> None:
    """Whatever verification users do, the description's files stay the same to the byte."""
    parts = split_users(inputs.pseudonyms)
    rng = np.random.default_rng(9)
    shards = []
    for shard in inputs.shards:
        hidden = parts[shard.user] == UserPart.VERIFICATION
        shards.append(replace_x(shard, np.where(hidden[:, None], rng.normal(size=shard.x.shape), shard.x)))
    describe(inputs).save(tmp_path / "one")
    describe(replace(inputs, shards=shards)).save(tmp_path / "two")
    for name in ("concepts.json", "arrays.safetensors", "rules.json", "describing.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def replace_x(shard: object, x: NDArray[np.float64]) -> Shard:
    assert isinstance(shard, Shard)
    return replace(shard, x=x.astype(np.float32))


def test_a_record_says_what_keeps_its_label_from_being_verified(dictionary: Dictionary) -> None:
    judged = [concept for concept in dictionary.listed() if concept.kind is not ConceptKind.ITEM_SET]
    assert {concept.status for concept in judged} >= {ConceptStatus.VERIFIED, ConceptStatus.TOO_RARE}
    for concept in judged:
        standing = Standing.of(concept)
        assert standing is not None
        assert bool(standing.misses()) == (concept.status is not ConceptStatus.VERIFIED), concept.label


def test_labels_name_no_unseen_item(dictionary: Dictionary, inputs: DictionaryInputs) -> None:
    unseen = {inputs.item_ids[item - 1] for item in np.flatnonzero(inputs.unseen).tolist()}
    named = {item_id for concept in dictionary.concepts for item_id in concept.rule.item_ids}
    assert not named & unseen


def test_a_control_dictionary_is_compared_in_the_summary(inputs: DictionaryInputs, dictionary: Dictionary) -> None:
    control = build_dictionary(replace(inputs, control=dictionary.summary)).summary["trained_minus_control"]
    assert control["verified"]["difference"] == 0
    assert control["verified"]["low"] < 0 < control["verified"]["high"]


def test_progress_rises_from_start_to_end(inputs: DictionaryInputs) -> None:
    shares: list[float] = []
    build_dictionary(inputs, lambda _message, share: shares.append(share))
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] < 1


def test_a_description_of_another_sae_is_refused(inputs: DictionaryInputs) -> None:
    description = describe(inputs)
    with pytest.raises(FailedPreconditionError, match="describe again"):
        verify(replace(inputs, model_version="f" * 16), description)


def test_a_description_of_an_earlier_release_is_refused_with_what_it_lacks(
    inputs: DictionaryInputs, tmp_path: Path
) -> None:
    describe(inputs).save(tmp_path)
    rules = json.loads((tmp_path / "rules.json").read_text())
    del rules["permuted_rules"]
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    with pytest.raises(FailedPreconditionError, match="without permuted_rules; start a new run"):
        Description.load(tmp_path)


def test_tables_of_different_data_are_refused(inputs: DictionaryInputs) -> None:
    with pytest.raises(InvalidRequestError, match="pass one per user"):
        replace(inputs, pseudonyms=inputs.pseudonyms[1:])
    with pytest.raises(InvalidRequestError, match="take all from one data set"):
        replace(inputs, titles=inputs.titles[1:])


def test_a_head_that_is_no_dot_product_is_asked_what_a_concept_promotes(inputs: DictionaryInputs) -> None:
    vectors = inputs.item_vectors
    assert vectors is not None

    def rank(x: NDArray[np.float32]) -> ScoredLists:
        scores = np.tanh(x) @ vectors[1:].T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :100]
        return ScoredLists((order + 1).astype(np.int32), np.take_along_axis(scores, order, axis=1))

    for latent, concept in enumerate(describe(replace(inputs, item_vectors=None, rank=rank)).draft.concepts[:_GENRES]):
        assert concept.output_facets[0].facet == concept.input_facets[0].facet, latent
        assert concept.promoted[0].score > 0 > concept.suppressed[0].score


def test_without_a_dot_product_head_there_are_no_outputs(inputs: DictionaryInputs) -> None:
    concept = build_dictionary(replace(inputs, item_vectors=None)).by_latent(0)
    assert concept.status is ConceptStatus.VERIFIED
    assert (concept.promoted, concept.output_facets, concept.output_label) == ((), (), "")
