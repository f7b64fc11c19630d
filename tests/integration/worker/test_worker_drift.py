"""Live counters become a record and metrics: arena, panes, the drift task of a real worker, the exporter process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsae.drift.arena import CounterArena
from recsae.drift.panes_redis import RedisPaneStore
from recsae.drift.record import RedisDriftRecords
from recsae.drift.states import DriftState
from recsae.pipeline.runs import RunState
from recsae.pipeline.triples import Triple
from recsae.sae.runtime import SparseAutoencoder
from recsae.store.artifacts import ArtifactStore
from recsae.store.redis import connect

if TYPE_CHECKING:
    from tests.integration.worker.conftest import Fleet, Samples


def live_rows(fleet: Fleet, genres: int, rows: int = 1_500) -> NDArray[np.float32]:
    """Activations of users who only consume items of the first `genres` of eight genres."""
    rng = np.random.default_rng(5)
    items = np.flatnonzero(np.arange(len(fleet.plugin.vectors)) % 8 < genres)
    states = np.zeros((rows, fleet.plugin.vectors.shape[1]), np.float32)
    for _ in range(12):
        states = 0.7 * states + fleet.plugin.vectors[rng.choice(items, rows)]
    return states.astype(np.float32)


def observe(fleet: Fleet, triple: Triple, x: NDArray[np.float32], *, steered: bool = False) -> None:
    folder = ArtifactStore(str(fleet.folder / "artifacts")).fetch("sae", triple.sae_version).folder
    sae = SparseAutoencoder.load(folder, triple.sae_version)
    codes = sae.encode(x)
    arena = CounterArena()
    marks = np.full(len(x), steered)
    arena.observe(
        "plugin", triple.sae_version, sae.width, codes.indices, codes.values, x, sae.decode(codes),
        mean=sae.mean, at=time.time(), steered=marks,
    )  # fmt: skip
    arena.flush(RedisPaneStore(connect(fleet.redis_url, decode=False)))


def test_a_shift_of_live_traffic_reaches_the_metrics_and_steered_traffic_does_not(
    fleet: Fleet, scrape: Callable[[], Samples]
) -> None:
    fleet.start_worker()
    run = fleet.start_run(width=64, k=6, epochs=60, promote=True)
    triple = fleet.wait_for_run(run, lambda r: r.state is RunState.SUCCEEDED, "end of the run").triple
    records = RedisDriftRecords(connect(fleet.redis_url))
    fleet.wait_for(lambda: bool(records.read_all()), "first comparison")
    assert records.read_all()[0].state is DriftState.INSUFFICIENT_DATA

    observe(fleet, triple, live_rows(fleet, genres=1), steered=True)
    observe(fleet, triple, live_rows(fleet, genres=2))
    fleet.wait_for(lambda: records.read_all()[0].rows >= 1_500, "comparison of the new rows")
    record = records.read_all()[0]
    assert record.rows == 1_500, "steered rows are counted apart"
    assert record.state is DriftState.DRIFTED
    assert record.moved > 0

    samples = scrape()
    model = ("model", "plugin")
    assert samples["recsae_drift_window_rows", (model,)] == 1_500
    assert samples["recsae_drift_moved_concepts", (model,)] == record.moved
    assert samples["recsae_drift_js_divergence", (model,)] > 0.05
    assert samples["recsae_drift_fvu", (model, ("side", "window"))] > 0
    assert samples["recsae_drift_fvu", (model, ("side", "reference"))] > 0
    assert samples["recsae_drift_dead_share", (model,)] > 0
    assert samples["recsae_runs", (("state", "succeeded"),)] == 1
    assert samples["recsae_run_stage_progress", (model, ("stage", "train"))] == 1.0
    assert samples["recsae_state_up", (("server", "state"),)] == 1
    assert ("recsae_queue_length", (("queue", "train"),)) in samples
    assert samples["recsae_audit_events", ()] > 0
    assert samples["recsae_audit_events_overdue", ()] == 0
    ratios = {key: value for key, value in samples.items() if key[0] == "recsae_drift_concept_log2_ratio"}
    moved = {shift.concept_id: shift.log2_ratio for shift in record.concepts if shift.moved}
    shown = {dict(labels)["concept"]: value for (_, labels), value in ratios.items()}
    assert moved.items() <= shown.items()
    rates = [labels for name, labels in samples if name == "recsae_drift_concept_firing_rate"]
    assert {dict(labels)["side"] for labels in rates} == {"window", "reference"}
    assert all(dict(labels)["sae_version"] == triple.sae_version for labels in rates)
