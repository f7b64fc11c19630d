"""Use cases over the dictionary: a page of concepts, one concept, concepts by words or by meaning."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, replace

from recsae.concepts.dictionary import ConceptOrder
from recsae.concepts.handles import Handle
from recsae.concepts.origins import Fate, Lineage
from recsae.concepts.records import ConceptRecord, ConceptStatus
from recsae.concepts.search import ConceptHit
from recsae.errors import InvalidRequestError
from recsae.pipeline.triples import Triple
from recsae_interpreter.library import Library

DEFAULT_PAGE = 50
MOST_PAGE = 500
DEFAULT_HITS = 20
MOST_HITS = 100
LONGEST_QUERY = 200


@dataclass(frozen=True)
class ConceptPage:
    """A page, the token of the next ("" after the last), and how many concepts match in all."""

    concepts: Sequence[ConceptRecord]
    next_page_token: str
    total: int
    triple: Triple
    model: str = ""


@dataclass(frozen=True)
class FoundConcept:
    """One concept."""

    concept: ConceptRecord
    triple: Triple
    model: str = ""


@dataclass(frozen=True)
class FoundLineage:
    """What became of the dictionary before (None = there was none), and the fates asked for."""

    lineage: Lineage | None
    fates: Sequence[Fate]
    triple: Triple
    model: str = ""


@dataclass(frozen=True)
class FoundConcepts:
    """Concepts found, best first."""

    hits: Sequence[ConceptHit]
    triple: Triple
    model: str = ""


@dataclass(frozen=True)
class LabelledHandle:
    """A handle, and the labels of its concepts in order."""

    handle: Handle
    labels: tuple[str, ...]


@dataclass(frozen=True)
class FoundHandles:
    """Handles of the promoted dictionary."""

    handles: Sequence[LabelledHandle]
    triple: Triple
    model: str = ""


class ConceptsHandler:
    """Reads the promoted dictionary."""

    def __init__(self, library: Library) -> None:
        """Keeps its collaborators."""
        self._library = library

    def page(
        self, model: str, status: ConceptStatus | None, order: ConceptOrder, page_size: int, page_token: str
    ) -> ConceptPage:
        """A page; InvalidRequestError for a token of another dictionary, status or order."""
        if page_size > MOST_PAGE:
            raise InvalidRequestError(f"page_size {page_size}; ask for at most {MOST_PAGE}")
        loaded = self._library.model(model)
        # Positions mean something within one dictionary and one order only.
        context = f"{loaded.triple.dictionary_version}/{status}/{order}"
        start = _position(page_token, context)
        listed = loaded.dictionary.listed(status=status, order=order)
        end = start + (page_size or DEFAULT_PAGE)
        token = _token(context, end) if end < len(listed) else ""
        return ConceptPage(listed[start:end], token, len(listed), loaded.triple, loaded.model)

    def get(self, model: str, concept_id: str) -> FoundConcept:
        """One concept; NotFoundError names the id."""
        loaded = self._library.model(model)
        return FoundConcept(loaded.dictionary.by_id(concept_id), loaded.triple, loaded.model)

    def lineage(self, model: str, concept_id: str) -> FoundLineage:
        """What became of all concepts of the dictionary before, or of those one concept is or carries on.

        NotFoundError for an id neither dictionary has.
        """
        loaded = self._library.model(model)
        lineage = loaded.machine.lineage
        fates = lineage.fates if lineage else ()
        if concept_id:
            fates = tuple(fate for fate in fates if fate.id == concept_id or concept_id in fate.to_ids)
            if not fates:
                loaded.machine.by_id(concept_id)
        return FoundLineage(lineage, fates, loaded.triple, loaded.model)

    def handles(self, model: str) -> FoundHandles:
        """Every handle, by facet."""
        loaded = self._library.model(model)
        listed = sorted(loaded.dictionary.handles, key=lambda handle: handle.facet)
        labelled = [
            LabelledHandle(one, tuple(loaded.dictionary.by_id(concept).label for concept in one.concept_ids))
            for one in listed
        ]
        return FoundHandles(labelled, loaded.triple, loaded.model)

    def search(self, model: str, query: str, limit: int, *, by_meaning: bool = False) -> FoundConcepts:
        """Concepts that hold every word of the query, or the nearest by meaning.

        FailedPreconditionError when what a search by meaning needs is not installed.
        """
        if not 1 <= len(query) <= LONGEST_QUERY:
            raise InvalidRequestError(f"the query has {len(query)} characters; give 1 to {LONGEST_QUERY}")
        if limit > MOST_HITS:
            raise InvalidRequestError(f"limit {limit}; ask for at most {MOST_HITS}")
        loaded = self._library.model(model)
        index = loaded.meaning if by_meaning else loaded.search
        found = index.find(query, limit or DEFAULT_HITS)
        # The concept as it is shown now, whatever it was called when its index was made.
        hits = [replace(hit, concept=loaded.dictionary.by_latent(hit.concept.latent)) for hit in found]
        return FoundConcepts(hits, loaded.triple, loaded.model)


def _token(context: str, position: int) -> str:
    return base64.urlsafe_b64encode(f"{context}/{position}".encode()).decode()


def _position(token: str, context: str) -> int:
    if not token:
        return 0
    try:
        given, _, position = base64.urlsafe_b64decode(token.encode()).decode().rpartition("/")
        if given == context:
            return max(0, int(position))
    except (binascii.Error, ValueError):
        pass
    raise InvalidRequestError("the page_token is of another dictionary, status or order; start from the first page")
