"""What a describer is: it turns the evidence of a latent into a label for people and a description to be tested.

Two implement it: the rules (statistical, the default) and a language model (`recsae.concepts.llm`). Not here: how
evidence is found, and whether a description holds on users it was not written from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from recsae.concepts.labels import UNDESCRIBED
from recsae.concepts.records import ConceptRecord


@dataclass(frozen=True)
class Example:
    """A construction user's history: titles, oldest first, and how strongly the latent fires there.

    `rating` is 0 (silent) to 10: the tenth of the latent's firings its value lies in, as in RecSAE. `deciding` is the
    title of the item without which the latent loses most, "" where nobody looked.
    """

    titles: tuple[str, ...]
    rating: int
    deciding: str = ""


@dataclass(frozen=True)
class LatentEvidence:
    """What a describer sees of a latent: its strongest histories, random firings, near misses and silent histories."""

    latent: int
    strongest: tuple[Example, ...]
    firing: tuple[Example, ...] = ()
    near_misses: tuple[Example, ...] = ()
    silent: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Words:
    """A label for people, and a description that says on which histories the latent fires.

    The description of a rule is its predicate. `failure` says in a sentence why there are none.
    """

    label: str = ""
    description: str = ""
    failure: str = ""


class Describer(Protocol):
    """Describes latents."""

    @property
    def name(self) -> str:
        """Who describes, e.g. "rules" or a model's name."""
        ...

    @property
    def version(self) -> str:
        """Version of what the words depend on besides the evidence."""
        ...

    def describe(self, evidence: Sequence[LatentEvidence]) -> Sequence[Words]:
        """Words for each latent, in the same order; one that cannot be described says why, and costs no other."""
        ...


class RulesDescriber:
    """The rules of a dictionary, behind the same interface.

    They are fitted for all latents at once (`recsae.concepts.describing`), so this looks them up.
    """

    name = "rules"
    version = "1"

    def __init__(self, concepts: Sequence[ConceptRecord]) -> None:
        """`concepts[j]` is latent j."""
        self._concepts = concepts

    def describe(self, evidence: Sequence[LatentEvidence]) -> list[Words]:
        """Label and predicate of each latent."""
        return [self._words(self._concepts[one.latent]) for one in evidence]

    def _words(self, concept: ConceptRecord) -> Words:
        if not concept.predicate:
            return Words(failure=f"no rule describes latent {concept.latent}; it stays {UNDESCRIBED!r}")
        return Words(concept.label, concept.predicate)
