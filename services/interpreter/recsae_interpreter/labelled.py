"""People's words laid over a loaded dictionary: their labels are shown and found, the machine's stay beside them.

An edit is not laid over a concept that may no longer be what its author saw; it stays stored and is listed with the
reason. Not here: keeping edits (`recsae.store.label_edits`), when they are read (`sync`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from recsae.concepts.dictionary import Dictionary
from recsae.concepts.records import ConceptRecord, LabelSource
from recsae.concepts.search import ConceptHit, ConceptSearch
from recsae.store.label_edits import LabelEdit
from recsae_interpreter.loading import LoadedTriple, Search


def labelled(loaded: LoadedTriple, edits: Mapping[str, LabelEdit]) -> LoadedTriple:
    """The triple with the edits of its model, by concept id, over it; the same object when it has these already."""
    if dict(loaded.edits) == dict(edits):
        return loaded
    machine = loaded.machine
    shown = {
        concept.latent: _edited(concept, edit)
        for concept in machine.concepts
        if (edit := edits.get(concept.id)) and not doubt_of(edit, machine)
    }
    concepts = tuple(shown.get(concept.latent, concept) for concept in machine.concepts)
    dictionary = replace(machine, concepts=concepts)
    base = loaded.search.base if isinstance(loaded.search, LabelledSearch) else loaded.search
    search = LabelledSearch.over(base, dictionary, shown) if shown else base
    return replace(loaded, dictionary=dictionary, search=search, edits=edits)


def doubt_of(edit: LabelEdit, machine: Dictionary) -> str:
    """Why an edit is not shown with this dictionary; "" when it is."""
    why = machine.doubt(edit.concept_id, edit.dictionary_version)
    return f"edit of a concept that {why}" if why else ""


@dataclass(frozen=True)
class LabelledSearch:
    """The machine's index, and a small one of the edited concepts with both labels in it."""

    base: Search
    edited: ConceptSearch
    shown: Mapping[int, ConceptRecord]

    @classmethod
    def over(cls, base: Search, dictionary: Dictionary, shown: Mapping[int, ConceptRecord]) -> LabelledSearch:
        """An index over `base` in which the concepts `shown`, by latent, are found by people's words too."""
        texts = tuple(replace(one, label=" ".join((one.label, one.machine_label, one.note))) for one in shown.values())
        return cls(base, ConceptSearch(replace(dictionary, concepts=texts)), shown)

    def find(self, query: str, limit: int = 20) -> list[ConceptHit]:
        """Concepts that hold every word of `query`, best first, as people see them."""
        best: dict[int, ConceptHit] = {}
        for hit in (*self.edited.find(query, limit), *self.base.find(query, limit)):
            latent = hit.concept.latent
            if latent not in best or best[latent].score < hit.score:
                best[latent] = replace(hit, concept=self.shown.get(latent, hit.concept))
        found = sorted(best.values(), key=lambda hit: (-hit.score, -hit.concept.confidence, hit.concept.latent))
        return found[:limit]


def _edited(concept: ConceptRecord, edit: LabelEdit) -> ConceptRecord:
    if not edit.label:
        return replace(concept, note=edit.note)
    return replace(
        concept,
        label=edit.label,
        label_source=LabelSource.HUMAN,
        machine_label=concept.label,
        note=edit.note,
    )
