"""A dictionary after a refresh with known fates, published and promoted, and waiting for what follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from recsae.concepts.dictionary import Dictionary
from recsae.concepts.effects import CausalRecord
from recsae.concepts.origins import DRIFTED, LOST, SPLIT, STABLE, Fate, Lineage, Origin
from recsae.pipeline.triples import Triple
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.weights import SaeWeights, load_weights
from recsae.store.artifacts import ArtifactStore
from recsae.v1 import interpreter_pb2

MODEL = "tiny"
KEPT, DOUBTED, MOVED, GONE, APART = (f"c-0-{latent}" for latent in (3, 5, 7, 9, 11))
FATES: Mapping[str, Fate] = {
    KEPT: Fate(KEPT, "Kept", STABLE, (KEPT,), 0.9, 0.9, 0.1, verified=True, kept=True),
    DOUBTED: Fate(DOUBTED, "Doubted", STABLE, (DOUBTED,), 0.8, 0.8, 0.1, verified=True, kept=False),
    MOVED: Fate(MOVED, "Moved", DRIFTED, (MOVED,), 0.5, 0.6, 0.1, verified=True, kept=True),
    GONE: Fate(GONE, "Gone", LOST, (), mass=0.1, verified=True, kept=False),
    APART: Fate(APART, "Apart", SPLIT, ("c-new-11", "c-new-9"), mass=0.1, verified=True, kept=False),
}


def refreshed(published: Any, number: int, name: str, *, causal: CausalRecord | None = None) -> Triple:
    """Triple `number` after a refresh: the same latents under other numbers, with the fates above.

    `causal`: what turning any concept does now; None = as before.
    """
    store = ArtifactStore(str(published.root))
    before = published.triples[number] if isinstance(number, int) else number
    old = Dictionary.load(store.fetch("dictionary", before.dictionary_version).folder, before.dictionary_version)
    weights = load_weights(store.fetch("sae", before.sae_version).folder)
    order = np.random.default_rng(4).permutation(weights.width)
    folder = published.root / f"refresh-{name}"
    (folder / "sae").mkdir(parents=True)
    (folder / "dictionary").mkdir()
    shuffled = SaeWeights(weights.w_enc[order], weights.b_enc[order], weights.w_dec[order], weights.b_dec, weights.mean)
    export_sae(shuffled, 6, TrainingFacts(error_p99=10.0, mean_norm=1.0), folder / "sae")
    config, lineage = {"model": MODEL, "hook": "sequence"}, {"model": before.model_version}
    sae = store.publish("sae", folder / "sae", config=config, lineage=lineage)
    concepts = []
    for latent, was in enumerate(order.tolist()):
        concept = replace(old.concepts[was], latent=latent, causal=causal or old.concepts[was].causal)
        fate = FATES.get(concept.id, Fate(concept.id, "", STABLE, (concept.id,), 1.0, 1.0))
        origin = Origin(fate.status, (concept.id,), fate.cosine, fate.correlation, fate.kept)
        origin = replace(origin, unbroken=0 if origin.doubt else 1)
        taken = concept.id if concept.id in fate.to_ids else f"c-new-{was}"
        concepts.append(replace(concept, id=taken, origin=origin))
    history = Lineage(
        (before.dictionary_version,), before.sae_version, before.model_version, 8192, None, 0.01, tuple(FATES.values())
    )
    made = Dictionary("", before.model_version, sae, tuple(concepts), old.arrays, {}, history)
    made.save(folder / "dictionary")
    version = store.publish("dictionary", folder / "dictionary", config=config, lineage={**lineage, "sae": sae})
    return Triple(before.model_version, sae, version)


def wait_for(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.01)


def wait_for_triple(stubs: Any, triple: Triple) -> None:
    def answered() -> bool:
        reply = stubs.interpreter.ListConcepts(interpreter_pb2.ListConceptsRequest(page_size=1))
        return bool(reply.triple.dictionary_version == triple.dictionary_version)

    wait_for("the promotion", answered)
