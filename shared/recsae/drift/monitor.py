"""The drift look: every served model's live panes against the reference of its dictionary, and a record of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from recsae.drift.compare import compare
from recsae.drift.counters import ConceptCounters, Series
from recsae.drift.panes import PaneStore
from recsae.drift.record import DriftRecord, DriftRecords, build_record
from recsae.drift.reference import load_reference
from recsae.errors import RecsaeError
from recsae.pipeline.triples import Triple
from recsae.store.artifacts import ArtifactStore

_log = structlog.get_logger(__name__)


class ServedTriples(Protocol):
    """What is in production."""

    def __call__(self) -> Mapping[str, Triple]:
        """Production triple by model name."""


@dataclass(frozen=True)
class Baseline:
    """What live traffic of one dictionary is compared with; `names` maps latent to (concept id, label)."""

    counters: ConceptCounters
    names: Mapping[int, tuple[str, str]]


@dataclass
class DriftMonitor:
    """The adapters and what was read once: baselines are immutable, so they are kept by dictionary version."""

    served: ServedTriples
    panes: PaneStore
    records: DriftRecords
    artifacts: ArtifactStore
    window_s: float
    clock: Callable[[], float]
    baselines: dict[str, Baseline] = field(default_factory=dict)

    def baseline(self, dictionary_version: str) -> Baseline:
        """The baseline of a dictionary, fetched and verified the first time."""
        if dictionary_version not in self.baselines:
            folder = self.artifacts.fetch("dictionary", dictionary_version).folder
            self.baselines[dictionary_version] = Baseline(load_reference(folder), _names(folder / "concepts.json"))
        return self.baselines[dictionary_version]


def compare_models(monitor: DriftMonitor, only: str = "") -> list[DriftRecord]:
    """Compares and records each model in production, or `only` the one named; returns the records.

    A model that cannot be compared (its dictionary is gone, or has no reference) is logged, and the others still are.
    """
    served = monitor.served()
    wanted = {name: triple for name, triple in served.items() if only in ("", name) and triple.dictionary_version}
    monitor.baselines = {
        version: baseline
        for version, baseline in monitor.baselines.items()
        if version in {triple.dictionary_version for triple in served.values()}
    }
    compared: list[DriftRecord] = []
    for name, triple in sorted(wanted.items()):
        try:
            compared.append(_compare_one(monitor, name, triple))
        except RecsaeError as error:
            _log.warning("drift_not_compared", model=name, why=str(error))
    return compared


def _compare_one(monitor: DriftMonitor, model: str, triple: Triple) -> DriftRecord:
    baseline = monitor.baseline(triple.dictionary_version)
    now = monitor.clock()
    # Unsteered rows only: steered traffic moves because somebody wants it to.
    panes = monitor.panes.read(Series(model, triple.sae_version), now - monitor.window_s, now + 1)
    record = build_record(
        compare(baseline.counters, panes),
        baseline.names,
        model=model,
        sae_version=triple.sae_version,
        dictionary_version=triple.dictionary_version,
        compared_at=now,
        window_start=now - monitor.window_s,
    )
    monitor.records.write(record)
    return record


def _names(path: Path) -> dict[int, tuple[str, str]]:
    concepts = json.loads(path.read_bytes())["concepts"]
    return {int(concept["latent"]): (concept["id"], concept["label"] or concept["id"]) for concept in concepts}
