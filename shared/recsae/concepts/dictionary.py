"""The dictionary of one SAE version: all its concepts, lookups, and the files they live in.

Reads and writes numpy arrays, JSON and safetensors only, so that serving can load it. Not here: finding by words
(`search`), building it (`build`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from recsae.concepts.estimates import Estimate
from recsae.concepts.handles import Handle, load_handles, save_handles
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
_CONCEPTS = "concepts.json"
_ARRAYS = "arrays.safetensors"


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

    `model_version` and `sae_version` say what it belongs to; `summary` holds the shares over all live latents,
    `handles` what turns a facet by several concepts.
    """

    version: str
    model_version: str
    sae_version: str
    concepts: tuple[ConceptRecord, ...]
    arrays: ConceptArrays
    summary: Mapping[str, Any]
    handles: tuple[Handle, ...] = ()

    @property
    def width(self) -> int:
        """Number of latents."""
        return len(self.concepts)

    @cached_property
    def _by_id(self) -> dict[str, int]:
        return {concept.id: concept.latent for concept in self.concepts}

    def by_id(self, concept_id: str) -> ConceptRecord:
        """The concept of that stable id; NotFoundError names the id."""
        latent = self._by_id.get(concept_id)
        if latent is None:
            raise NotFoundError(f"no concept {concept_id!r} in dictionary {self.version}; list or search for its id")
        return self.concepts[latent]

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
        """Writes `concepts.json`, `arrays.safetensors` and `handles.json` (if any) into `folder`, ready to publish."""
        stored = {
            "schema_version": SCHEMA_VERSION,
            "model_version": self.model_version,
            "sae_version": self.sae_version,
            "summary": dict(self.summary),
            "concepts": [concept.as_json() for concept in self.concepts],
        }
        # Without indentation the file is a third smaller; sorted keys keep equal dictionaries equal to the byte.
        plain = json.dumps(stored, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        write_atomic(folder / _CONCEPTS, plain.encode())
        arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in vars(self.arrays).items()}
        write_atomic(folder / _ARRAYS, safetensors.numpy.save(arrays))
        save_handles(self.handles, folder)

    @classmethod
    def load(cls, folder: Path, version: str) -> Dictionary:
        """Reads an artifact's folder; `version` is the artifact's.

        FailedPreconditionError for another schema, CorruptArtifactError when the two files do not agree.
        """
        stored = json.loads((folder / _CONCEPTS).read_bytes())
        if stored.get("schema_version") != SCHEMA_VERSION:
            raise FailedPreconditionError(
                f"dictionary {version} has schema {stored.get('schema_version')!r}, this release reads "
                f"{SCHEMA_VERSION}; run a refresh with this release"
            )
        concepts = tuple(concept_from_json(value) for value in stored["concepts"])
        arrays = ConceptArrays(**safetensors.numpy.load_file(folder / _ARRAYS))
        if arrays.width != len(concepts) or any(concept.latent != row for row, concept in enumerate(concepts)):
            raise CorruptArtifactError(
                f"dictionary {version} has {len(concepts)} concepts but arrays of {arrays.width} latents; "
                "publish it again"
            )
        handles = load_handles(folder)
        summary = stored["summary"]
        return cls(version, stored["model_version"], stored["sae_version"], concepts, arrays, summary, handles)
