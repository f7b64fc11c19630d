"""Builds and runs a service's gRPC server: lanes, limits, TLS, health, reflection, graceful drain.

A synchronous server with a thread pool: 1.6 to 2 times faster than grpc.aio in the release we use. Not here: which
services it carries, which each service's composition root decides.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, TypeVar

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from recsae.errors import FailedPreconditionError
from recsae.rpc.calls import CallRecorder
from recsae.rpc.interceptors import CallInterceptor
from recsae.rpc.lanes import AnyLane, Lanes
from recsae.rpc.roles import require_roles
from recsae.rpc.settings import ServiceSettings
from recsae.telemetry.metrics import RpcMetrics

T = TypeVar("T")

_log = structlog.get_logger(__name__)
# After the last call has ended, its status is still on its way out for a moment.
_FLUSH_S = 0.2


class RpcServer:
    """A gRPC server with health per service name. Use: `add` each service, `start`, `mark_ready`, `drain`."""

    def __init__(self, settings: ServiceSettings, metrics: RpcMetrics) -> None:
        """Binds nothing yet."""
        self._settings = settings
        self._lanes = Lanes(
            unary_threads=settings.max_workers, unary_waiting=settings.max_queue, streams=settings.max_streams
        )
        gate = settings.gate(metrics.count_limited)
        interceptor = CallInterceptor(self._lanes, gate, CallRecorder(metrics))
        self._server = grpc.server(self._lanes.unary, interceptors=[interceptor], options=_server_arguments(settings))
        self._health = health.HealthServicer(experimental_non_blocking=True)
        self._health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        self._services: list[str] = []
        self.draining = threading.Event()
        """Set when open streams have to end."""
        self.port = 0
        """The port bound, once started."""

    def add(
        self,
        register: Callable[[T, grpc.Server], None],
        servicer: T,
        service: str,
        lanes: Mapping[str, AnyLane] | None = None,
    ) -> None:
        """Adds a servicer by the generated `add_...Servicer_to_server`; `service` is its full proto name.

        `lanes` gives single methods a lane of their own, which the server then drains and ends.
        """
        register(servicer, self._server)
        self._lanes.of_method.update({f"/{service}/{method}": lane for method, lane in (lanes or {}).items()})
        self._services.append(service)
        self._health.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)

    def start(self, begin: Callable[[grpc.Server], None] = lambda server: server.start()) -> int:
        """Binds and accepts calls, health NOT_SERVING; returns the port.

        FailedPreconditionError when the port is taken or an RPC has no role.

        `begin` starts grpcio's own server: `start_polling` where a `PollingLane` runs its calls.
        """
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        require_roles(names)
        reflection.enable_server_reflection(names, self._server)
        address = f"{self._settings.host}:{self._settings.port}"
        try:
            self.port = _bind(self._server, address, self._settings)
        except RuntimeError as error:
            raise FailedPreconditionError(
                f"{address} cannot be bound; another process may hold it: stop that or set another port"
            ) from error
        begin(self._server)
        _log.info("server_started", host=self._settings.host, port=self.port, services=self._services)
        return self.port

    def mark_ready(self) -> None:
        """Health becomes SERVING for every service and for the server as a whole."""
        for service in (*self._services, ""):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        _log.info("server_ready", port=self.port)

    def drain(self) -> None:
        """NOT_SERVING, serve on for the probe period, end streams, finish calls in flight, stop."""
        settings = self._settings
        self._health.enter_graceful_shutdown()
        _log.info("server_draining", probe_s=settings.drain_probe_s, grace_s=settings.drain_grace_s)
        threading.Event().wait(settings.drain_probe_s)
        self.draining.set()
        # Health watches have no end of their own and would hold `stop` for the whole grace: wait for the lanes
        # instead, then cut short.
        stopped = self._server.stop(settings.drain_grace_s)
        finished = self._lanes.wait_idle(settings.drain_grace_s)
        self._server.stop(_FLUSH_S)
        stopped.wait(_FLUSH_S * 10)
        self._lanes.close()
        _log.info("server_stopped", calls_finished=finished)


def build_server(settings: ServiceSettings, metrics: RpcMetrics) -> RpcServer:
    """A server by the settings, without services yet."""
    return RpcServer(settings, metrics)


def await_stop_signals() -> Callable[[], str]:
    """Takes note of SIGTERM and SIGINT from now on; a second one ends the process.

    What comes back blocks the main thread until one has come, and returns its name.
    """
    arrived: list[int] = []
    event = threading.Event()

    def note(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)
        signal.signal(number, signal.SIG_DFL)
        event.set()

    def wait() -> str:
        event.wait()
        return signal.Signals(arrived[0]).name

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return wait


def _server_arguments(settings: ServiceSettings) -> list[tuple[str, Any]]:
    most = settings.max_message_mb << 20
    return [
        # On by default in grpc: a second server would bind the same port silently and take half the calls.
        ("grpc.so_reuseport", int(settings.shares_port)),
        ("grpc.max_receive_message_length", most),
        ("grpc.max_send_message_length", most),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]


def _bind(server: grpc.Server, address: str, settings: ServiceSettings) -> int:
    if settings.tls_cert is None or settings.tls_key is None:
        return server.add_insecure_port(address)
    credentials = grpc.ssl_server_credentials(
        [(settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())],
        root_certificates=settings.tls_client_ca.read_bytes() if settings.tls_client_ca else None,
        require_client_auth=settings.tls_client_ca is not None,
    )
    return server.add_secure_port(address, credentials)
