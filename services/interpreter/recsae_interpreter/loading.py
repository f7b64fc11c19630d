"""Loads a triple from the artifact store, verified: checksums by the store, lineage and shapes here.

Mixing versions is refused with a sentence that names both. Not here: which triples are wanted (`library`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, Protocol

from recsae.concepts.catalogue import Catalogue, load_catalogue
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.meaning import Embedder, Meanings, MeaningSearch
from recsae.concepts.records import ConceptStatus
from recsae.concepts.search import ConceptHit, ConceptSearch
from recsae.errors import FailedPreconditionError
from recsae.pipeline.triples import Triple
from recsae.recommenders.address import split_address
from recsae.sae.runtime import SparseAutoencoder
from recsae.steering.encoder import OnnxEncoder
from recsae.steering.plans import Basis
from recsae.steering.safety import judged
from recsae.store.artifacts import Artifact, ArtifactStore
from recsae.store.label_edits import LabelEdit

_ENCODER = "encoder.onnx"


@dataclass(frozen=True)
class EncoderFile:
    """The ONNX graph recommenders fetch, and its SHA-256 in hex."""

    onnx: bytes
    sha256: str


class Search(Protocol):
    """Finds concepts by words."""

    def find(self, query: str, limit: int = 20) -> list[ConceptHit]:
        """Concepts that hold every word of `query`, best first."""


@dataclass(frozen=True, eq=False)
class LoadedTriple:
    """One triple in memory; immutable, so a request that holds it is answered from one triple to its end.

    `model` is an address: a hook that is not the model's first is part of it. `machine` is the dictionary as published;
    `dictionary` and `search` are the same with people's `edits` over it. `catalogue` reads facets and counts of items
    when it is first asked; None for a dictionary of a release that kept none.
    """

    model: str
    triple: Triple
    sae: SparseAutoencoder
    dictionary: Dictionary
    search: Search
    meaning: MeaningSearch
    encoder: OnnxEncoder
    encoder_file: EncoderFile
    basis: Basis
    machine: Dictionary
    edits: Mapping[str, LabelEdit] = field(default_factory=dict)
    catalogue: Callable[[], Catalogue | None] = lambda: None

    @property
    def steerable(self) -> bool:
        """False for a hook that can only be read: nothing can be steered there or ranked from it."""
        return self.basis.steerable

    def read_only(self, consequence: str) -> str:
        """Why something is not possible at a hook that can only be read, in a sentence."""
        return f"hook {self.basis.hook or '(unnamed)'} of model {self.model} can only be read: {consequence}"


def load_triple(store: ArtifactStore, model: str, triple: Triple, *, embedder: Embedder | None = None) -> LoadedTriple:
    """Everything the interpreter needs of a triple; `embedder` embeds queries by meaning, where one is installed.

    NotFoundError or CorruptArtifactError when an artifact is not there or not whole; FailedPreconditionError when
    the three versions do not belong together.
    """
    sae_artifact = store.fetch("sae", triple.sae_version)
    dictionary_artifact = store.fetch("dictionary", triple.dictionary_version)
    _check_lineage(sae_artifact, {"model": triple.model_version})
    _check_lineage(dictionary_artifact, {"model": triple.model_version, "sae": triple.sae_version})
    hook = _check_hook(model, triple, sae_artifact.config)
    sae = SparseAutoencoder.load(sae_artifact.folder, triple.sae_version)
    dictionary = Dictionary.load(dictionary_artifact.folder, triple.dictionary_version)
    if dictionary.width != sae.width:
        raise FailedPreconditionError(
            f"dictionary {triple.dictionary_version} has {dictionary.width} concepts, "
            f"SAE {triple.sae_version} {sae.width} latents; publish a dictionary of that SAE"
        )
    onnx = sae_artifact.path(_ENCODER).read_bytes()
    return LoadedTriple(
        model=model,
        triple=triple,
        sae=sae,
        dictionary=dictionary,
        search=ConceptSearch(dictionary),
        meaning=MeaningSearch(dictionary, Meanings.load(dictionary_artifact.folder), embedder),
        encoder=OnnxEncoder(onnx, sae.d),
        encoder_file=EncoderFile(onnx, hashlib.sha256(onnx).hexdigest()),
        machine=dictionary,
        catalogue=cache(partial(load_catalogue, dictionary_artifact.folder)),
        basis=replace(
            _basis(model, triple, hook, sae, dictionary), steerable=_is_steerable(model, sae_artifact.config)
        ),
    )


def _check_hook(model: str, triple: Triple, config: Mapping[str, Any]) -> str:
    """The hook an SAE was trained at ("" = not known); FailedPreconditionError when it is not that of the address."""
    address = split_address(model)
    named, hook = str(config.get("model", model)), str(config.get("hook", ""))
    trained = split_address(named).hook or hook
    if split_address(named).model != address.model or (address.hook and trained not in ("", address.hook)):
        where = f" at hook {trained!r}" if trained else ""
        raise FailedPreconditionError(f"SAE {triple.sae_version} was trained on model {named!r}{where}, not {model!r}")
    return hook or address.hook


def _is_steerable(model: str, config: Mapping[str, Any]) -> bool:
    """What the SAE says; of one that does not say, only hooks that are not a model's first cannot be steered."""
    return bool(config.get("steerable", not split_address(model).hook))


def _basis(model: str, triple: Triple, hook: str, sae: SparseAutoencoder, dictionary: Dictionary) -> Basis:
    """What policies compile against. A dead latent has no unit of strength, so no policy can name it."""
    alive = (concept for concept in dictionary.concepts if concept.status is not ConceptStatus.DEAD)
    return Basis(
        model=model,
        triple=triple,
        hook=hook,
        latents={concept.id: concept.latent for concept in alive},
        p95=dictionary.arrays.p95,
        w_dec=sae.w_dec,
        doubt=dictionary.doubt,
        outside_safe_range=lambda operations: judged(
            operations, dictionary.handles, lambda concept_id: dictionary.by_id(concept_id).causal
        ),
    )


def _check_lineage(artifact: Artifact, wanted: dict[str, str]) -> None:
    for name, version in wanted.items():
        made_from = artifact.lineage.get(name, "")
        if made_from != version:
            raise FailedPreconditionError(
                f"{artifact.kind} {artifact.version} was made from {name} {made_from or 'unknown'}, not {version}; "
                "versions never mix: name the ones that were published together"
            )
