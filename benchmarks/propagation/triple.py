"""A small model with a published SAE and dictionary, made up: what travels is a policy, whatever the model's size."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recsae.concepts.dictionary import ConceptArrays, Dictionary
from recsae.concepts.records import ConceptRecord, ConceptStatus
from recsae.datasets.schema import ItemTable
from recsae.pipeline.triples import Triple
from recsae.recommenders.bundle import publish_bundle
from recsae.recommenders.families.sasrec import SasrecShape, untrained_sasrec
from recsae.recommenders.families.sequence import export_network
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.weights import SaeWeights
from recsae.store.artifacts import ArtifactStore

MODEL, CONCEPT = "small", "c-1"
ITEMS, HISTORY = 200, 12
_DIM, _WIDTH, _ACTIVE = 16, 64, 8


@dataclass(frozen=True)
class Published:
    """Where it is, and its versions."""

    artifacts: Path
    triple: Triple


def publish(folder: Path) -> Published:
    """Writes model, SAE and dictionary into an artifact store below `folder`."""
    store = ArtifactStore(str(folder / "artifacts"))
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        model = _publish_model(store, Path(scratch) / "model")
        sae = _publish_sae(store, Path(scratch) / "sae", model)
        dictionary = _publish_dictionary(store, Path(scratch) / "dictionary", model, sae)
    return Published(folder / "artifacts", Triple(model, sae, dictionary))


def _publish_model(store: ArtifactStore, folder: Path) -> str:
    folder.mkdir()
    numbers = range(1, ITEMS + 1)
    items = ItemTable(tuple(f"i-{item}" for item in numbers), tuple(f"Item {item}" for item in numbers), {})
    shape = SasrecShape(n_items=ITEMS, max_history=HISTORY, dim=_DIM)
    export_network(untrained_sasrec(shape, 0), items, folder, MODEL)
    return publish_bundle(store, folder)


def _publish_sae(store: ArtifactStore, folder: Path, model: str) -> str:
    w_dec = np.random.default_rng(0).standard_normal((_WIDTH, _DIM)).astype(np.float32)
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    zeros = np.zeros(_DIM, np.float32)
    weights = SaeWeights(w_dec.copy(), np.zeros(_WIDTH, np.float32), w_dec, zeros, zeros.copy())
    export_sae(weights, _ACTIVE, TrainingFacts(error_p99=10.0, mean_norm=1.0), folder)
    config = {"hook": "sequence", "model": MODEL, "steerable": True}
    return store.publish("sae", folder, config=config, lineage={"model": model})


def _publish_dictionary(store: ArtifactStore, folder: Path, model: str, sae: str) -> str:
    concepts = tuple(
        ConceptRecord(
            id=f"c-{latent}",
            latent=latent,
            label=f"Concept {latent}",
            status=ConceptStatus.VERIFIED,
            density=0.1,
            p95=0.5,
            confidence=0.9,
        )
        for latent in range(_WIDTH)
    )
    halves = np.full(_WIDTH, 0.5, np.float32)
    arrays = ConceptArrays(halves, halves, halves, halves, np.full(_WIDTH, 0.1, np.float32))
    Dictionary("", model, sae, concepts, arrays, {}).save(folder)
    config, lineage = {"model": MODEL, "hook": "sequence"}, {"model": model, "sae": sae}
    return store.publish("dictionary", folder, config=config, lineage=lineage)
