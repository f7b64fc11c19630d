"""Finding concepts by meaning: texts about each concept are embedded once, a query is compared with them by cosine.

The embeddings lie beside the dictionary, made when it is published, so that serving embeds nothing but queries. Not
here: the network (`minilm`), finding by words (`search`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from recsae.concepts.dictionary import Dictionary
from recsae.concepts.minilm import REMEDY
from recsae.concepts.records import ConceptRecord, ConceptStatus, LabelSource
from recsae.concepts.search import ConceptHit
from recsae.datasets.facet_names import BOTH
from recsae.errors import CorruptArtifactError, FailedPreconditionError, InvalidRequestError
from recsae.store.files import write_atomic

FILE = "meaning.safetensors"
FOUND_IN = "meaning"
_VECTORS, _EMBEDDER = "vectors", "embedder"
_FACETS, _TITLES = 3, 5
# Families that say nothing about what an item is about.
_FORMAL = frozenset({"popularity"})


class Embedder(Protocol):
    """What turns texts into vectors; `name` says which one, since vectors of two are not comparable."""

    @property
    def name(self) -> str:
        """Package and version."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors float32 [n, dim] of length 1."""
        ...


@dataclass(frozen=True, eq=False)
class Meanings:
    """Embeddings of all concepts: `vectors` float32 [w, dim] of length 1, 0 for those nothing is known of."""

    vectors: NDArray[np.float32]
    embedder: str

    def save(self, folder: Path) -> None:
        """Writes the file into the folder of a dictionary, before it is published."""
        vectors = np.ascontiguousarray(self.vectors, np.float32)
        write_atomic(folder / FILE, save({_VECTORS: vectors}, metadata={_EMBEDDER: self.embedder}))

    @classmethod
    def load(cls, folder: Path) -> Meanings | None:
        """What lies beside a dictionary; None when it was published without."""
        if not (folder / FILE).is_file():
            return None
        with safe_open(folder / FILE, framework="numpy") as file:
            metadata = file.metadata() or {}
            if _EMBEDDER not in metadata:
                raise CorruptArtifactError(f"{folder / FILE} does not say what embedded it; publish it again")
            return cls(file.get_tensor(_VECTORS), metadata[_EMBEDDER])


def embed_concepts(concepts: Sequence[ConceptRecord], embedder: Embedder) -> Meanings:
    """Embeds what each concept is about: the mean of that with and without titles of deciding items.

    With the titles alone of two hundred concepts many look alike; without any, item sets and rare facets get lost.
    """
    said = [(place, *about_of(concept)) for place, concept in enumerate(concepts)]
    said = [one for one in said if one[1] or one[2]]
    short = embedder.embed([topic or titles for _, topic, titles in said])
    long = embedder.embed([": ".join(filter(None, (topic, titles))) for _, topic, titles in said])
    mean = short + long
    vectors = np.zeros((len(concepts), short.shape[1]), np.float32)
    places = [place for place, _, _ in said]
    vectors[places] = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return Meanings(vectors, embedder.name)


def about_of(concept: ConceptRecord) -> tuple[str, str]:
    """What a concept is about, and titles of items that make it fire; either may be "", both are for the dead.

    A label by a person or a language model, the facets a rule asks for (what it rules out would mislead: "not Sci-Fi"
    lies close to Sci-Fi), and the facets of what makes it fire.
    """
    if concept.status is ConceptStatus.DEAD:
        return "", ""
    written = [concept.label] if concept.label_source is not LabelSource.RULES else []
    if concept.llm is not None:
        written.append(concept.llm.label)
    asked = [literal.facet for literal in concept.rule.literals if literal.facet and "not" not in literal.joined]
    facets = [*asked, *(lift.facet for lift in concept.input_facets[:_FACETS])]
    topics = [*written, *(_said(facet) for facet in facets if facet.partition("=")[0] not in _FORMAL)]
    deciding = [item.title for one in concept.evidence for item in one.items if item.deciding]
    return ", ".join(dict.fromkeys(filter(None, topics))), ", ".join(dict.fromkeys(deciding[:_TITLES]))


def _said(facet: str) -> str:
    """The value of a facet, or both of a pair's."""
    return " ".join(value for part in facet.split(BOTH) if (value := part.partition("=")[2]))


class MeaningSearch:
    """Finds concepts of one dictionary by meaning, where everything for it is there; read-only, for any thread."""

    def __init__(self, dictionary: Dictionary, meanings: Meanings | None, embedder: Embedder | None) -> None:
        """CorruptArtifactError when the embeddings are not of this dictionary's width."""
        if meanings is not None and len(meanings.vectors) != dictionary.width:
            raise CorruptArtifactError(
                f"dictionary {dictionary.version} has {dictionary.width} concepts but {len(meanings.vectors)} "
                "embeddings; publish it again"
            )
        self._dictionary = dictionary
        self._meanings = meanings
        self._embedder = embedder

    def find(self, query: str, limit: int = 20) -> list[ConceptHit]:
        """The `limit` live concepts nearest to the query, best first; the score is the cosine, and above 0.

        FailedPreconditionError says what is missing and how to get it.
        """
        if not query.strip():
            raise InvalidRequestError(f"the query {query!r} says nothing; give a few words")
        vectors, embedder = self._ready()
        cosines = vectors @ embedder.embed([query])[0]
        best = np.argsort(-cosines, kind="stable")[:limit]
        concepts = self._dictionary.concepts
        return [ConceptHit(concepts[at], float(cosines[at]), FOUND_IN) for at in best.tolist() if cosines[at] > 0]

    def _ready(self) -> tuple[NDArray[np.float32], Embedder]:
        if self._embedder is None:
            raise FailedPreconditionError(
                f"search by meaning needs an embedding model, which is not installed here; {REMEDY} for the "
                "interpreter, or search by words"
            )
        if self._meanings is None:
            raise FailedPreconditionError(
                f"dictionary {self._dictionary.version} was published without embeddings; {REMEDY} for the worker and "
                "run a refresh, or search by words"
            )
        if self._meanings.embedder != self._embedder.name:
            raise FailedPreconditionError(
                f"dictionary {self._dictionary.version} was embedded by {self._meanings.embedder}, queries would be by "
                f"{self._embedder.name}; install the same version on both sides, or run a refresh"
            )
        return self._meanings.vectors, self._embedder
