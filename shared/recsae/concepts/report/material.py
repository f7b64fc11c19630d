"""What a report is written from, and the few figures several of its parts need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.dictionary import ConceptOrder, Dictionary
from recsae.concepts.records import ConceptKind, ConceptRecord, ConceptStatus


@dataclass(frozen=True)
class Facts:
    """What stands at the head of the report besides the dictionary: names, and times as text. "" = not said."""

    model: str
    hook: str = ""
    dataset_version: str = ""
    channel: str = ""
    published_at: str = ""
    written_at: str = ""
    release: str = ""


@dataclass(frozen=True)
class Material:
    """A dictionary and its facts; `full` = how many concepts by mass, and by confidence, are told in full."""

    dictionary: Dictionary
    facts: Facts
    full: int

    @cached_property
    def live(self) -> tuple[ConceptRecord, ...]:
        """Concepts that fire, the most trustworthy first."""
        return tuple(self.dictionary.listed(order=ConceptOrder.CONFIDENCE))

    @cached_property
    def judged(self) -> tuple[ConceptRecord, ...]:
        """Those with enough cases for a verdict."""
        return tuple(concept for concept in self.live if is_judged(concept))

    @cached_property
    def mass(self) -> NDArray[np.float64]:
        """Share of all activation, float64 [w]: density times mean value over their sum."""
        arrays = self.dictionary.arrays
        mass = (arrays.density * arrays.mean).astype(np.float64)
        total = float(mass.sum())
        return mass / total if total > 0 else mass

    @cached_property
    def in_full(self) -> frozenset[str]:
        """Ids of the concepts told in full."""
        by_mass = sorted(self.live, key=lambda concept: (-self.mass[concept.latent], concept.latent))
        return frozenset(concept.id for concept in (*self.live[: self.full], *by_mass[: self.full]))


def is_judged(concept: ConceptRecord) -> bool:
    """Whether it had the cases for a verdict; without one its scores say nothing."""
    return concept.positives > 0 and concept.status in (ConceptStatus.VERIFIED, ConceptStatus.UNVERIFIED)


def standing(concept: ConceptRecord) -> tuple[str, str]:
    """What a concept counts as, in words, and the class of the style sheet that colours it."""
    if concept.status is ConceptStatus.VERIFIED:
        if concept.kind is ConceptKind.SEMANTIC:
            return "semantic", "semantic"
        return ("item set", "itemset") if concept.kind is ConceptKind.ITEM_SET else ("verified", "verified")
    return {
        ConceptStatus.UNVERIFIED: ("unverified", "unverified"),
        ConceptStatus.TOO_RARE: ("too rare", "rare"),
        ConceptStatus.DEAD: ("dead", "rare"),
    }[concept.status]


STANDINGS = (
    ("semantic", "semantic", "a facet rule that holds on unseen users and on unseen items"),
    ("verified", "verified", "a facet rule that holds on unseen users; unseen items are not shown"),
    ("item set", "itemset", "holds on unseen users, but only names a few items; counted apart"),
    ("unverified", "unverified", "judged, and no label passed"),
    ("too rare", "rare", "too few cases on unseen users to judge"),
)
