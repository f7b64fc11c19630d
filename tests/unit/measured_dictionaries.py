"""Dictionaries of a toy model whose concepts were measured, one after the other as refreshes make them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.unit.toy_interpreter import MODEL_VERSION

from recsae.concepts.dictionary import Dictionary
from recsae.concepts.effects import CausalRecord, DoseEffect, range_of
from recsae.concepts.estimates import UNKNOWN
from recsae.concepts.origins import STABLE, Lineage, Origin
from recsae.pipeline.triples import Triple
from recsae.store.artifacts import ArtifactStore


def record(most: float, loss: float = 0.01) -> CausalRecord:
    """Adding up to `most` costs at most `loss` of NDCG@10; anything more, half of it."""
    doses = tuple(
        DoseEffect("add", dose, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, 0.5, cost, 0.0)
        for dose, cost in ((most, loss), (most + 0.5, 0.5))
    )
    return CausalRecord("genre=Horror", 2_000, doses, (range_of("add", doses),), True, 0.99)


def measured(folder: Path, address: str, before: Triple, causal: CausalRecord, *, refresh: bool = False) -> Triple:
    """The triple with every concept measured so; with `refresh`, as a later dictionary that kept them all."""
    store = ArtifactStore(str(folder / "store"))
    old = Dictionary.load(store.fetch("dictionary", before.dictionary_version).folder, before.dictionary_version)
    origin = Origin(STABLE, unbroken=1) if refresh else None
    concepts = tuple(replace(one, causal=causal, origin=origin) for one in old.concepts)
    history = None
    if refresh:
        history = Lineage((before.dictionary_version,), before.sae_version, MODEL_VERSION, 100, None, 0.01, ())
    made = replace(old, version="", concepts=concepts, lineage=history)
    work = folder / f"measured-{before.dictionary_version}-{refresh}"
    work.mkdir()
    made.save(work)
    lineage = {"model": MODEL_VERSION, "sae": before.sae_version}
    version = store.publish("dictionary", work, config={"model": address, "hook": "final"}, lineage=lineage)
    return Triple(MODEL_VERSION, before.sae_version, version)
