"""The drift look over all models in production."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recsae.drift.counters import ConceptCounters
from recsae.drift.monitor import DriftMonitor, compare_models
from recsae.drift.panes import InMemoryPaneStore
from recsae.drift.record import DriftRecord
from recsae.drift.reference import save_reference
from recsae.pipeline.triples import Triple
from recsae.store.artifacts import ArtifactStore


class KeptRecords:
    """Records in a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, DriftRecord] = {}

    def write(self, record: DriftRecord) -> None:
        self.kept[record.model] = record

    def read_all(self) -> list[DriftRecord]:
        return list(self.kept.values())


def published(store: ArtifactStore, folder: Path, *, reference: bool) -> Triple:
    folder.mkdir()
    (folder / "concepts.json").write_text(json.dumps({"concepts": [{"latent": 0, "id": "c-1", "label": "Horror"}]}))
    if reference:
        counters = ConceptCounters(4)
        x = np.ones((60, 2), np.float32)
        counters.add(np.zeros((60, 1), np.int32), x[:, :1], x, x * 0, mean=x[0] * 2, at=5.0)
        save_reference(counters, folder)
    version = store.publish("dictionary", folder, config={}, lineage={}, scores={})
    return Triple("a" * 16, "b" * 16, version)


@pytest.mark.parametrize("broken", ["no reference", "never published"])
def test_a_model_that_cannot_be_compared_does_not_keep_the_others_from_it(tmp_path: Path, broken: str) -> None:
    store, records = ArtifactStore(str(tmp_path / "artifacts")), KeptRecords()
    bad = published(store, tmp_path / "bad", reference=False)
    if broken == "never published":
        bad = Triple(bad.model_version, bad.sae_version, "f" * 16)
    good = published(store, tmp_path / "good", reference=True)
    monitor = DriftMonitor(
        served=lambda: {"a-broken": bad, "b-fine": good},
        panes=InMemoryPaneStore(),
        records=records,
        artifacts=store,
        window_s=900,
        clock=lambda: 1_000.0,
    )
    assert [record.model for record in compare_models(monitor)] == ["b-fine"]
    assert list(records.kept) == ["b-fine"]
