"""The dictionary keeps what it was given, and finds concepts by id, latent and words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsae.concepts.dictionary import ConceptArrays, ConceptOrder, Dictionary
from recsae.concepts.estimates import Estimate
from recsae.concepts.records import (
    ConceptKind,
    ConceptRecord,
    ConceptStatus,
    Evidence,
    EvidenceItem,
    FacetLift,
    ItemScore,
    LiteralRecord,
    LlmRecord,
    Neighbour,
    QuantileBand,
    RuleRecord,
)
from recsae.concepts.search import ConceptSearch
from recsae.errors import CorruptArtifactError, FailedPreconditionError, InvalidRequestError, NotFoundError


def make_dictionary() -> Dictionary:
    evidence = Evidence(1.5, (EvidenceItem("7", "Alien (1979)", 0.9, True), EvidenceItem("8", "Heat (1995)", 0.1)))
    horror = ConceptRecord(
        id="c-00000001",
        latent=0,
        label="Recent: Horror, 1980s",
        output_label="Horror",
        kind=ConceptKind.SEMANTIC,
        status=ConceptStatus.VERIFIED,
        density=0.02,
        p95=2.0,
        confidence=0.6,
        control_confidence=0.1,
        f1=Estimate(0.7, 0.6, 0.8),
        evidence=(evidence,),
        bands=(QuantileBand(0.5, 1.0, 3, evidence), QuantileBand(0.0, 0.5, 0)),
        promoted=(ItemScore("9", "Amélie (2001)", 0.3),),
        suppressed=(ItemScore("10", "Babe (1995)", -0.3),),
        neighbours=(Neighbour("c-00000002", "Thriller", 0.4),),
        input_facets=(FacetLift("genre=Horror", 2.0, 1.5),),
        rule=RuleRecord((LiteralRecord("", "recent", "genre=Horror", 0.4),)),
        scores={"lift": 12.0},
    )
    thriller = ConceptRecord(id="c-00000002", latent=1, label="Thriller", density=0.3, confidence=0.2)
    dead = ConceptRecord(id="c-00000003", latent=2, label="Horror of the dead", status=ConceptStatus.DEAD)
    ones = np.array([2, 4, 1], np.float32)
    arrays = ConceptArrays(ones, ones, ones, ones, np.array([0.02, 0.3, 0], np.float32))
    return Dictionary("d" * 16, "a" * 16, "b" * 16, (horror, thriller, dead), arrays, {"live": 2})


def test_a_saved_dictionary_loads_equal(tmp_path: Path) -> None:
    dictionary = make_dictionary()
    dictionary.save(tmp_path)
    loaded = Dictionary.load(tmp_path, dictionary.version)
    assert loaded.concepts == dictionary.concepts
    assert loaded.summary == dictionary.summary
    np.testing.assert_array_equal(loaded.arrays.density, dictionary.arrays.density)


def test_concepts_are_found_by_id_and_latent() -> None:
    dictionary = make_dictionary()
    assert dictionary.by_id("c-00000002").latent == 1
    assert dictionary.by_latent(2).status is ConceptStatus.DEAD
    with pytest.raises(NotFoundError, match="c-ffffffff"):
        dictionary.by_id("c-ffffffff")
    for latent in (-1, 3):
        with pytest.raises(NotFoundError, match=f"latent {latent}"):
            dictionary.by_latent(latent)


def test_lists_leave_the_dead_out_unless_asked_for() -> None:
    dictionary = make_dictionary()
    assert [c.latent for c in dictionary.listed()] == [0, 1]
    assert [c.latent for c in dictionary.listed(order=ConceptOrder.DENSITY)] == [1, 0]
    assert [c.latent for c in dictionary.listed(status=ConceptStatus.DEAD)] == [2]


def test_strength_is_value_over_p95_and_zero_when_silent() -> None:
    strengths = make_dictionary().strengths(np.array([[1, 0]]), np.array([[2.0, -1.0]], np.float32))
    assert strengths.tolist() == [[0.5, 0.0]]


def test_a_dictionary_that_disagrees_with_its_arrays_is_refused(tmp_path: Path) -> None:
    dictionary = make_dictionary()
    dictionary.save(tmp_path)
    stored = json.loads((tmp_path / "concepts.json").read_text())
    (tmp_path / "concepts.json").write_text(json.dumps(stored | {"concepts": stored["concepts"][:2]}))
    with pytest.raises(CorruptArtifactError, match="2 concepts but arrays of 3"):
        Dictionary.load(tmp_path, "d" * 16)
    (tmp_path / "concepts.json").write_text(json.dumps(stored | {"schema_version": 99}))
    with pytest.raises(FailedPreconditionError, match="schema 99"):
        Dictionary.load(tmp_path, "d" * 16)


def test_a_dictionary_of_the_release_before_is_read_with_what_it_lacks_unknown(tmp_path: Path) -> None:
    dictionary = make_dictionary()
    dictionary.save(tmp_path)
    stored = json.loads((tmp_path / "concepts.json").read_text())
    later = ("label_source", "random_evidence", "near_misses", "decoder_neighbours", "machine_label", "note")
    for concept in stored["concepts"]:
        for name in (*later, "origin", "causal", "llm"):
            del concept[name]
        del concept["rule"]["levels"]
    del stored["learnt"]
    (tmp_path / "concepts.json").write_text(json.dumps(stored | {"schema_version": 1}))
    loaded = Dictionary.load(tmp_path, dictionary.version)
    assert loaded.concepts == dictionary.concepts
    assert (loaded.lineage, loaded.handles, loaded.learnt) == (None, (), {})


def test_search_ranks_label_above_title_and_needs_every_word() -> None:
    search = ConceptSearch(make_dictionary())
    (hit,) = search.find("horror 1980s")
    assert (hit.concept.latent, hit.matched_in) == (0, "label")
    (alien,) = search.find("alien")
    assert alien.matched_in == "evidence: Alien (1979)"
    assert alien.score < hit.score
    assert search.find("horror thriller") == []


def test_search_ignores_case_and_accents_and_takes_beginnings() -> None:
    search = ConceptSearch(make_dictionary())
    assert search.find("AMELIE")[0].matched_in == "promoted: Amélie (2001)"
    (whole,), (part,) = search.find("thriller"), search.find("thri")
    assert whole.concept == part.concept
    assert part.score < whole.score
    assert search.find("th") == [], "two letters begin too many words"


def test_search_never_returns_the_dead_and_refuses_an_empty_query() -> None:
    search = ConceptSearch(make_dictionary())
    assert search.find("dead") == []
    with pytest.raises(InvalidRequestError, match="no word"):
        search.find("  --  ")


def test_search_finds_concepts_by_the_words_of_a_language_model() -> None:
    dictionary = make_dictionary()
    horror, *others = dictionary.concepts
    told = replace(horror, llm=LlmRecord("Frights", "Films that make people jump.", "small", "v1", 100))
    search = ConceptSearch(replace(dictionary, concepts=(told, *others)))
    (label,), (description,) = search.find("frights"), search.find("jump")
    assert (label.concept, label.matched_in) == (told, "label of the language model")
    assert description.matched_in == "description of the language model"
    assert description.score < label.score < search.find("thriller")[0].score
