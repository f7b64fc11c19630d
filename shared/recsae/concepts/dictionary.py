"""The dictionary of one SAE version: all its concepts, lookups, and the files they live in.

Reads and writes numpy arrays, JSON and safetensors only, so that serving can load it. Not here: finding by words
(`search`), building it (`build`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from recsae.concepts.estimates import Estimate
from recsae.concepts.handles import Handle, load_handles, save_handles
from recsae.concepts.origins import Lineage, doubt_since, lineage_from_json
from recsae.concepts.records import (
    ConceptKind,
    ConceptRecord,
    ConceptStatus,
    Evidence,
    EvidenceItem,
    FacetLift,
    ItemScore,
    LiteralRecord,
    Neighbour,
    QuantileBand,
    RuleRecord,
    concept_from_json,
)
from recsae.errors import CorruptArtifactError, FailedPreconditionError, NotFoundError
from recsae.store.files import write_atomic

__all__ = [
    "ConceptArrays",
    "ConceptKind",
    "ConceptOrder",
    "ConceptRecord",
    "ConceptStatus",
    "Dictionary",
    "Estimate",
    "Evidence",
    "EvidenceItem",
    "FacetLift",
    "ItemScore",
    "LiteralRecord",
    "Neighbour",
    "QuantileBand",
    "RuleRecord",
]

SCHEMA_VERSION = 2
# Schema 1 lacks origins, effects and a language model's words, all of which may be missing: it is served and refreshed
# from as it is, or no platform could be updated without losing its concepts.
_READ = (1, SCHEMA_VERSION)
_CONCEPTS = "concepts.json"
_ARRAYS = "arrays.safetensors"
_LINEAGE = "lineage.json"


class ConceptOrder(StrEnum):
    """Order of a list of concepts."""

    CONFIDENCE = "confidence"
    DENSITY = "density"
    LATENT = "latent"


@dataclass(frozen=True)
class ConceptArrays:
    """Per latent, float32 [w], on construction users: quantiles and mean of positive values, share of rows it fires on.

    `p95` is the unit of strength and always > 0 (1 for a latent that never fired).
    """

    p50: NDArray[np.float32]
    p95: NDArray[np.float32]
    p99: NDArray[np.float32]
    mean: NDArray[np.float32]
    density: NDArray[np.float32]

    @property
    def width(self) -> int:
        """Number of latents."""
        return len(self.p95)


@dataclass(frozen=True)
class Dictionary:
    """All concepts of one SAE version; `concepts[j]` is latent j, dead latents included.

    `model_version` and `sae_version` say what it belongs to; `summary` holds the shares over all live latents;
    `lineage` what became of the dictionary before (None = there was none); `learnt` the item ids of facets in its rules
    that were learnt from histories (`learnt_facets`), by name; `handles` what turns a facet by several concepts.
    """

    version: str
    model_version: str
    sae_version: str
    concepts: tuple[ConceptRecord, ...]
    arrays: ConceptArrays
    summary: Mapping[str, Any]
    lineage: Lineage | None = None
    learnt: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    handles: tuple[Handle, ...] = ()

    @property
    def width(self) -> int:
        """Number of latents."""
        return len(self.concepts)

    @cached_property
    def _by_id(self) -> dict[str, int]:
        return {concept.id: concept.latent for concept in self.concepts}

    def by_id(self, concept_id: str) -> ConceptRecord:
        """The concept of that stable id; NotFoundError names the id, and says what became of it when that is known."""
        latent = self._by_id.get(concept_id)
        if latent is None:
            raise NotFoundError(self.absence(concept_id))
        return self.concepts[latent]

    def absence(self, concept_id: str) -> str:
        """A sentence on why there is no concept of that id."""
        fate = self.lineage.fate(concept_id) if self.lineage else None
        if fate is None:
            return f"no concept {concept_id!r} in dictionary {self.version}; list or search for its id"
        named = f"concept {concept_id!r} ({fate.label})" if fate.label else f"concept {concept_id!r}"
        remedy = "ask for these" if fate.to_ids else "search for another"
        return f"{named} was {fate.words} at the refresh that made dictionary {self.version}; {remedy}"

    def doubt(self, concept_id: str, made_for: str) -> str:
        """Why this may not be what the id meant in dictionary `made_for`, in words that follow the id; "" when it is.

        `made_for` "" = the oldest dictionary this one goes back to.
        """
        latent = self._by_id.get(concept_id)
        if latent is None:
            fate = self.lineage.fate(concept_id) if self.lineage else None
            return f"was {fate.words}" if fate else f"is not in dictionary {self.version}"
        return doubt_since(made_for, self.version, self.lineage, self.concepts[latent].origin)

    def by_latent(self, latent: int) -> ConceptRecord:
        """The concept of a latent index; NotFoundError when it is outside the width."""
        if not 0 <= latent < self.width:
            raise NotFoundError(f"latent {latent} is outside dictionary {self.version}, which has {self.width}")
        return self.concepts[latent]

    def listed(
        self, *, status: ConceptStatus | None = None, order: ConceptOrder = ConceptOrder.CONFIDENCE
    ) -> Sequence[ConceptRecord]:
        """Concepts of a status (None = all but dead) in order: confidence or density descending, or latent."""
        kept = [
            concept
            for concept in self.concepts
            if (concept.status is status if status else concept.status is not ConceptStatus.DEAD)
        ]
        if order is ConceptOrder.CONFIDENCE:
            kept.sort(key=lambda concept: (-concept.confidence, concept.latent))
        elif order is ConceptOrder.DENSITY:
            kept.sort(key=lambda concept: (-concept.density, concept.latent))
        return kept

    def strengths(self, indices: NDArray[np.integer[Any]], values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Strengths (value / p95) of codes `indices`, `values` of any one shape; 0 where nothing fires."""
        strengths: NDArray[np.float32] = (np.maximum(values, 0) / self.arrays.p95[indices]).astype(np.float32)
        return strengths

    def save(self, folder: Path) -> None:
        """Writes `concepts.json`, `arrays.safetensors`, and `lineage.json` and `handles.json` if any, into `folder`."""
        stored = {
            "schema_version": SCHEMA_VERSION,
            "model_version": self.model_version,
            "sae_version": self.sae_version,
            "summary": dict(self.summary),
            "learnt": {name: list(ids) for name, ids in self.learnt.items()},
            "concepts": [concept.as_json() for concept in self.concepts],
        }
        # Without indentation the file is a third smaller; sorted keys keep equal dictionaries equal to the byte.
        plain = json.dumps(stored, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        write_atomic(folder / _CONCEPTS, plain.encode())
        arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in vars(self.arrays).items()}
        write_atomic(folder / _ARRAYS, safetensors.numpy.save(arrays))
        if self.lineage is not None:
            write_atomic(folder / _LINEAGE, self.lineage.as_json().encode())
        save_handles(self.handles, folder)

    @classmethod
    def load(cls, folder: Path, version: str) -> Dictionary:
        """Reads an artifact's folder; `version` is the artifact's.

        FailedPreconditionError for a schema of a later release, CorruptArtifactError when the two files do not agree.
        """
        stored = json.loads((folder / _CONCEPTS).read_bytes())
        if stored.get("schema_version") not in _READ:
            raise FailedPreconditionError(
                f"dictionary {version} has schema {stored.get('schema_version')!r}, this release reads up to "
                f"{SCHEMA_VERSION}; update to the release that wrote it"
            )
        concepts = tuple(concept_from_json(value) for value in stored["concepts"])
        arrays = ConceptArrays(**safetensors.numpy.load_file(folder / _ARRAYS))
        if arrays.width != len(concepts) or any(concept.latent != row for row, concept in enumerate(concepts)):
            raise CorruptArtifactError(
                f"dictionary {version} has {len(concepts)} concepts but arrays of {arrays.width} latents; "
                "publish it again"
            )
        path = folder / _LINEAGE
        lineage = lineage_from_json(path.read_bytes()) if path.is_file() else None
        learnt = {name: tuple(ids) for name, ids in stored.get("learnt", {}).items()}
        about = (stored["model_version"], stored["sae_version"])
        handles = load_handles(folder)
        return cls(version, *about, concepts, arrays, stored["summary"], lineage, learnt, handles)
