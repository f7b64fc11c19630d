"""Metric definitions of the gRPC services, and the HTTP server that exposes them.

Each service owns one registry, so that two services in one process never mix. Base units; no metric carries a
user id, an item id or a history (labels are methods, status codes, model names and reasons, all bounded).
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from http.server import HTTPServer
from pathlib import Path
from threading import Thread
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

# 0.5 ms to 10 s: a recommendation takes about 1 ms, an export page up to seconds.
_WAKE_S = 0.05
_DURATION_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
_SHARE_BUCKETS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def new_registry() -> CollectorRegistry:
    """A registry of its own with the process, platform and garbage-collector metrics."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class RpcMetrics:
    """What every gRPC server counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Registers the metrics; a registry takes them once."""
        self.requests = Counter(
            "recsae_rpc_requests", "Calls answered, by method and status code.", ("method", "code"), registry=registry
        )
        self.duration = Histogram(
            "recsae_rpc_duration_seconds",
            "Time from the start of a call's handler to its end.",
            ("method",),
            buckets=_DURATION_BUCKETS_S,
            registry=registry,
        )
        self.limited = Counter(
            "recsae_rpc_limited",
            "Calls refused by the limits of their principal, by principal and limit (rate, in_flight).",
            ("principal", "limit"),
            registry=registry,
        )

    def count_limited(self, principal: str, limit: str) -> None:
        """Counts one call refused; principals are those of the settings."""
        self.limited.labels(principal, limit).inc()


class RecommenderMetrics:
    """What the recommender counts besides."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Registers the metrics; a registry takes them once."""
        self.recommended = Counter(
            "recsae_recommend",
            'Lists served, by model and by why they were not steered ("steered" when they were).',
            ("model", "reason"),
            registry=registry,
        )
        self.observe_dropped = Counter(
            "recsae_observe_dropped", "Sampled activation rows dropped, by reason.", ("reason",), registry=registry
        )
        self.observe_sent = Counter(
            "recsae_observe_sent", "Sampled activation rows the interpreter accepted the batch of.", registry=registry
        )
        self.exposures_written = Counter(
            "recsae_exposures_written", "Sampled responses in the exposure log, on disk.", registry=registry
        )
        self.exposures_dropped = Counter(
            "recsae_exposures_dropped",
            "Sampled responses that were not logged, by reason.",
            ("reason",),
            registry=registry,
        )
        self.shadow_overlap = Histogram(
            "recsae_shadow_overlap",
            "Share of a served list that policies in shadow would have kept, of sampled responses.",
            ("model",),
            buckets=_SHARE_BUCKETS,
            registry=registry,
        )
        self.plan_revision = Gauge(
            "recsae_plan_revision", "Revision of the steering plans held; 0 = none.", ("model",), registry=registry
        )
        self.plan_age = Gauge(
            "recsae_plan_age_seconds",
            "Time since the interpreter last confirmed the plans held; +Inf = none held.",
            ("model",),
            registry=registry,
        )
        self.plan_rejected = Counter(
            "recsae_plan_rejected", "Plans refused on arrival; the last good one stays.", ("model",), registry=registry
        )
        self.plan_clock_offset = Gauge(
            "recsae_plan_clock_offset_seconds",
            "The interpreter's clock less this machine's; windows of policies are judged by the interpreter's.",
            ("model",),
            registry=registry,
        )
        self.steer_calls = Counter(
            "recsae_steer_calls",
            'Batches steered by RPC: "steered" = answered, else why there is no answer.',
            ("model", "outcome"),
            registry=registry,
        )
        self.steer_duration = Histogram(
            "recsae_steer_duration_seconds",
            "Time a batch spent on being steered by RPC.",
            ("model",),
            buckets=_DURATION_BUCKETS_S,
            registry=registry,
        )
        self.steer_given = Histogram(
            "recsae_steer_given_seconds",
            "Time the call for a batch was given: the setting, or less where its requests had less left.",
            ("model",),
            buckets=_DURATION_BUCKETS_S,
            registry=registry,
        )
        self.steer_breaker = Gauge(
            "recsae_steer_breaker",
            "The breaker before the interpreter: 0 = closed, 1 = one call probes, 2 = open, nothing is asked.",
            ("model",),
            registry=registry,
        )
        self.batch_size = Histogram(
            "recsae_batch_size", "Requests computed together.", buckets=_BATCH_BUCKETS, registry=registry
        )
        self.batch_invariant = Gauge(
            "recsae_batch_invariant",
            "1 when the model's results do not depend on the batch; 0 = it is served one by one.",
            ("model",),
            registry=registry,
        )


@dataclass(frozen=True)
class MetricsTls:
    """Certificates of a metrics endpoint; `client_ca` makes scrapers present one."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


class _TlsFiles(Protocol):
    @property
    def tls_cert(self) -> Path | None: ...
    @property
    def tls_key(self) -> Path | None: ...
    @property
    def tls_client_ca(self) -> Path | None: ...


def metrics_tls(settings: _TlsFiles) -> MetricsTls | None:
    """The certificates that a service's settings name; None without TLS."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return MetricsTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


class MetricsServer:
    """Serves `/metrics` of one registry over HTTP until closed."""

    def __init__(
        self, registry: CollectorRegistry, port: int, host: str = "127.0.0.1", tls: MetricsTls | None = None
    ) -> None:
        """Binds at once; port 0 takes a free one. OSError when the port is taken."""
        server, thread = start_http_server(
            port,
            addr=host,
            registry=registry,
            certfile=str(tls.certificate) if tls else None,
            keyfile=str(tls.key) if tls else None,
            client_cafile=str(tls.client_ca) if tls and tls.client_ca else None,
            client_auth_required=bool(tls and tls.client_ca),
            protocol=ssl.PROTOCOL_TLS_SERVER,
        )
        self._server: HTTPServer = server
        self._thread: Thread = thread

    @property
    def port(self) -> int:
        """The port bound."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stops serving and frees the port."""
        # It looks every half second whether it should stop, and after each connection: one wakes it.
        stopping = Thread(target=self._server.shutdown, name="recsae-metrics-stop", daemon=True)
        stopping.start()
        while stopping.is_alive():
            with suppress(OSError):
                socket.create_connection((str(self._server.server_address[0]), self.port), timeout=1).close()
            stopping.join(_WAKE_S)
        self._server.server_close()
        self._thread.join(timeout=5)
