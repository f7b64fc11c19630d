"""Finding concepts by words in labels, facets and item titles.

Not here: paging and the wire. Every word of the query must be found somewhere in a concept; where it is found
decides the score. An index is built once per dictionary; a query then touches only concepts that hold its words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from recsae.concepts.dictionary import Dictionary
from recsae.concepts.records import ConceptRecord, ConceptStatus
from recsae.errors import InvalidRequestError

_WORD = re.compile(r"\w+")
# A word in the label says what the concept is about; one in a title may be there by chance.
_LABEL, _OUTPUT, _FACET, _EVIDENCE, _PROMOTED = 8.0, 5.0, 4.0, 2.0, 1.5
# A language model's label and description.
_TOLD, _DESCRIPTION = 6.0, 2.5
_PREFIX_DISCOUNT = 0.5
_MIN_PREFIX = 3


@dataclass(frozen=True)
class ConceptHit:
    """A concept found, its score (> 0, higher is better) and where its best word was found."""

    concept: ConceptRecord
    score: float
    matched_in: str


@dataclass(frozen=True)
class _Place:
    weight: float
    name: str


def words_of(text: str) -> list[str]:
    """Lower-case words of a text without accents: "Amélie (2001)" -> ["amelie", "2001"]."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return _WORD.findall(plain.casefold())


class ConceptSearch:
    """An index over one dictionary; read-only once built, so any number of threads may ask it."""

    def __init__(self, dictionary: Dictionary) -> None:
        """Indexes all concepts but the dead."""
        self._concepts = {c.latent: c for c in dictionary.concepts if c.status is not ConceptStatus.DEAD}
        self._places: dict[str, dict[int, _Place]] = {}
        for concept in self._concepts.values():
            for place, text in _texts(concept):
                for word in words_of(text):
                    known = self._places.setdefault(word, {})
                    if concept.latent not in known or known[concept.latent].weight < place.weight:
                        known[concept.latent] = place

    def find(self, query: str, limit: int = 20) -> list[ConceptHit]:
        """Concepts that hold every word of `query` (or a word it begins, from three letters on), best first.

        Ties go to the higher confidence. InvalidRequestError when the query has no word.
        """
        words = words_of(query)
        if not words:
            raise InvalidRequestError(f"the query {query!r} holds no word; give at least one letter or digit")
        found = [self._places_of(word) for word in words]
        latents = set.intersection(*(set(places) for places in found))
        hits = [self._hit(latent, [places[latent] for places in found]) for latent in latents]
        hits.sort(key=lambda hit: (-hit.score, -hit.concept.confidence, hit.concept.latent))
        return hits[:limit]

    def _places_of(self, word: str) -> dict[int, _Place]:
        places = dict(self._places.get(word, {}))
        if len(word) < _MIN_PREFIX:
            return places
        for longer, known in self._places.items():
            if longer == word or not longer.startswith(word):
                continue
            for latent, place in known.items():
                discounted = _Place(place.weight * _PREFIX_DISCOUNT, place.name)
                if latent not in places or places[latent].weight < discounted.weight:
                    places[latent] = discounted
        return places

    def _hit(self, latent: int, places: list[_Place]) -> ConceptHit:
        score = sum(place.weight for place in places) / len(places)
        best = max(places, key=lambda place: place.weight)
        return ConceptHit(self._concepts[latent], score, best.name)


def _texts(concept: ConceptRecord) -> Iterator[tuple[_Place, str]]:
    yield _Place(_LABEL, "label"), concept.label
    if concept.llm is not None:
        yield _Place(_TOLD, "label of the language model"), concept.llm.label
        yield _Place(_DESCRIPTION, "description of the language model"), concept.llm.description
    yield _Place(_OUTPUT, "output label"), concept.output_label
    for facet in (*concept.input_facets, *concept.output_facets):
        yield _Place(_FACET, f"facet: {facet.facet}"), facet.facet
    for evidence in concept.evidence:
        for item in evidence.items:
            if item.deciding:
                yield _Place(_EVIDENCE, f"evidence: {item.title}"), item.title
    for promoted in concept.promoted:
        yield _Place(_PROMOTED, f"promoted: {promoted.title}"), promoted.title
