"""`python -m recsae_worker.exporter`: Prometheus metrics of runs, queues, drift and audit, read from Redis per scrape.

One process for the whole fleet of workers: metrics kept in prefork children would undercount. Nothing is cached, so
a scrape shows what Redis holds; when Redis does not answer, `recsae_state_up` is 0 and the rest is absent.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import redis
import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from recsae.drift.record import DriftRecord, DriftRecords, RedisDriftRecords
from recsae.pipeline.contracts import QUEUES
from recsae.pipeline.run_store import RunStore
from recsae.pipeline.runs import Run, RunState
from recsae.pipeline.runs_redis import RedisRunStore
from recsae.rpc.settings import load_settings
from recsae.store.audit_archiving import AuditLength, Kept
from recsae.store.redis import connect
from recsae.telemetry.logging import configure_logging
from recsae.telemetry.metrics import MetricsServer, MetricsTls, new_registry
from recsae_worker.settings import WorkerSettings

_NEWEST_RUNS = 500
_log = structlog.get_logger(__name__)


class FleetCollector(Collector):
    """Metrics of the whole fleet."""

    def __init__(self, runs: RunStore, drift: DriftRecords, bus: redis.Redis, audit: AuditLength) -> None:
        """`bus` is the broker's server, read for the length of its queues."""
        self._runs, self._drift, self._bus, self._audit = runs, drift, bus, audit

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called by each scrape."""
        up = GaugeMetricFamily("recsae_state_up", "1 when the server answered this scrape.", labels=["server"])
        try:
            families = [
                *run_metrics(self._runs),
                *drift_metrics(self._drift.read_all()),
                *audit_metrics(self._audit),
            ]
            up.add_metric(["state"], 1)
            yield from families
        except redis.RedisError as error:
            _log.warning("state_unreachable", kind=type(error).__name__)
            up.add_metric(["state"], 0)
        try:
            bus: Any = self._bus
            lengths = {name: int(bus.llen(name)) for name in QUEUES}
            up.add_metric(["bus"], 1)
            yield _gauge("recsae_queue_length", "Tasks waiting.", ["queue"], {(n,): v for n, v in lengths.items()})
        except redis.RedisError as error:
            _log.warning("bus_unreachable", kind=type(error).__name__)
            up.add_metric(["bus"], 0)
        yield up


def run_metrics(store: RunStore) -> Iterator[GaugeMetricFamily]:
    """How many of the newest runs are in each state, and how far the newest run of each model is."""
    runs = store.list(limit=_NEWEST_RUNS)
    states = Counter(run.state for run in runs)
    counts = {(str(state),): float(states[state]) for state in RunState}
    yield _gauge("recsae_runs", f"Refresh runs and sweeps by state, of the newest {_NEWEST_RUNS}.", ["state"], counts)
    progress: dict[tuple[str, ...], float] = {}
    newest = {run.config.model: run for run in reversed(runs)}
    for model, run in newest.items():
        progress |= {(model, stage.name): stage.progress for stage in run.stages}
    help_text = "Done share of each stage of a model's newest run."
    yield _gauge("recsae_run_stage_progress", help_text, ["model", "stage"], progress)
    yield from training_metrics(runs)


def audit_metrics(length: AuditLength) -> Iterator[GaugeMetricFamily]:
    """How long the audit trail is in Redis, and how much of it should have been archived by now."""
    yield _gauge("recsae_audit_events", "Audit events kept in Redis.", [], {(): float(length.events())})
    help_text = "Audit events beyond those that stay in Redis, which no worker has archived yet."
    yield _gauge("recsae_audit_events_overdue", help_text, [], {(): float(length.overdue())})


def training_metrics(runs: Iterable[Run]) -> Iterator[GaugeMetricFamily]:
    """What training measures now, of each model's newest run at work; absent when nothing trains."""
    newest = {run.config.model: run for run in reversed(list(runs)) if run.state is RunState.RUNNING}
    stages = {
        (model, stage.name): stage.measures
        for model, run in newest.items()
        for stage in run.stages
        if stage.state is RunState.RUNNING and stage.measures
    }
    for name, help_text, measure in (
        ("recsae_training_activations_per_second", "Activations SAE training reads a second.", "activations_per_s"),
        ("recsae_training_fvu", "Fraction of variance unexplained of the newest batches.", "fvu"),
        ("recsae_training_l0", "Latents that fire per activation of the newest batches.", "l0"),
        ("recsae_training_dead_latents", "Latents that have not fired for long.", "dead"),
        ("recsae_training_eta_seconds", "Time left at the speed so far.", "eta_s"),
    ):
        values = {labels: measures[measure] for labels, measures in stages.items() if measure in measures}
        yield _gauge(name, help_text, ["model", "stage"], values)


def drift_metrics(records: list[DriftRecord]) -> Iterator[GaugeMetricFamily]:
    """The last comparison of each model; series per concept only for those listed in its record."""
    models = {record.model: record for record in records}
    for name, help_text, value in (
        ("recsae_drift_concepts_capped", "Concepts that moved and have no series of their own.", "capped"),
        ("recsae_drift_js_divergence", "Jensen-Shannon divergence of concept mass, bits.", "js_divergence"),
        ("recsae_drift_dead_share", "Share of latents that did not fire in the window.", "dead_share"),
        ("recsae_drift_window_rows", "Unsteered rows in the window.", "rows"),
        ("recsae_drift_moved_concepts", "Concepts that moved significantly and by a factor of two.", "moved"),
        ("recsae_drift_judged_concepts", "Concepts with enough firings to be judged.", "judged"),
        ("recsae_drift_compared_timestamp_seconds", "When the comparison was made.", "compared_at"),
    ):
        values = {(model,): float(getattr(record, value)) for model, record in models.items()}
        yield _gauge(name, help_text, ["model"], values)
    yield _gauge(
        "recsae_drift_insufficient_data",
        "1 when the window holds too little to be judged.",
        ["model"],
        {(model,): float(record.state == "insufficient_data") for model, record in models.items()},
    )
    fvu = {(model, "window"): record.fvu for model, record in models.items()}
    fvu |= {(model, "reference"): record.reference_fvu for model, record in models.items()}
    known = {labels: value for labels, value in fvu.items() if value is not None}
    yield _gauge("recsae_drift_fvu", "Fraction of variance unexplained.", ["model", "side"], known)
    yield from _concept_metrics(records)


def _concept_metrics(records: list[DriftRecord]) -> Iterator[GaugeMetricFamily]:
    labels = ["model", "sae_version", "concept", "label"]
    rates: dict[tuple[str, ...], float] = {}
    ratios: dict[tuple[str, ...], float] = {}
    terms: dict[tuple[str, ...], float] = {}
    for record in records:
        for shift in record.concepts:
            key = (record.model, record.sae_version, shift.concept_id, shift.label)
            rates[*key, "reference"] = shift.reference_rate
            rates[*key, "window"] = shift.window_rate
            terms[key] = shift.js_term
            if shift.log2_ratio is not None:
                ratios[key] = shift.log2_ratio
    yield _gauge("recsae_drift_concept_firing_rate", "Share of rows it fires on.", [*labels, "side"], rates)
    yield _gauge("recsae_drift_concept_log2_ratio", "log2 of window rate over reference rate.", labels, ratios)
    yield _gauge("recsae_drift_concept_js_term", "Its part of the divergence, bits.", labels, terms)


def _gauge(name: str, help_text: str, labels: list[str], values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    settings = load_settings(WorkerSettings)
    configure_logging("exporter", level=settings.log_level, format=settings.log_format)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    state, bus = connect(settings.state_url), connect(settings.bus_url)
    audit = AuditLength(state, Kept(newest=settings.audit_keep))
    registry = new_registry()
    registry.register(FleetCollector(RedisRunStore(state), RedisDriftRecords(state), bus, audit))
    tls = (
        MetricsTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        if settings.tls_cert and settings.tls_key
        else None
    )
    server = MetricsServer(registry, settings.metrics_port, settings.metrics_host, tls)
    _log.info("exporter_ready", port=server.port)
    stop.wait()
    server.close()


if __name__ == "__main__":
    main()
