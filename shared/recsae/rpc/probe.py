"""`python -m recsae.rpc.probe ROLE`: whether the service of this machine answers, for container health checks.

Reads the settings of the service itself, so that it needs no flags for TLS or ports. Exit status 0 when a recommender
or interpreter is SERVING or a worker's exporter serves metrics, 1 with a sentence on standard error when not.
"""

from __future__ import annotations

import ssl
import sys
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from recsae.errors import InvalidRequestError, RecsaeError, UnavailableError
from recsae.rpc.client import ClientOptions, channel
from recsae.rpc.settings import ServiceSettings, load_settings
from recsae.rpc.status import error_from

_TIMEOUT_S = 5.0
# Ports of each role where its own settings name none; the worker's exporter has metrics alone.
_DEFAULT_PORTS = {"recommender": (50051, 9101), "interpreter": (50052, 9102), "worker": (0, 9103)}


def probe(role: str) -> None:
    """Returns when the service answers; UnavailableError says what came instead."""
    if role not in _DEFAULT_PORTS:
        raise InvalidRequestError(f"{role!r} is no role; use one of {', '.join(_DEFAULT_PORTS)}")
    settings = _settings(role)
    port, metrics_port = _DEFAULT_PORTS[role]
    if role == "worker":
        _probe_metrics(settings, settings.metrics_port or metrics_port)
    else:
        _probe_health(settings, settings.port or port)


def _settings(role: str) -> ServiceSettings:
    class RoleSettings(ServiceSettings, env_prefix=f"RECSAE_{role.upper()}_"):
        """What every service reads, under this role's prefix."""

    return load_settings(RoleSettings)


def _probe_health(settings: ServiceSettings, port: int) -> None:
    # The certificate names localhost; the service shows it and accepts it from its peers, of which this is one.
    options = ClientOptions(
        ca=settings.tls_client_ca or settings.peer_ca if settings.tls_cert else None,
        certificate=settings.tls_cert,
        key=settings.tls_key,
        timeout_s=_TIMEOUT_S,
    )
    connection = channel(f"localhost:{port}", options)
    try:
        reply = health_pb2_grpc.HealthStub(connection).Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S)
    except grpc.RpcError as error:
        raise error_from(error) from error
    finally:
        connection.close()
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        state = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
        raise UnavailableError(f"localhost:{port} is {state}")


def _probe_metrics(settings: ServiceSettings, port: int) -> None:
    context = None
    if settings.tls_cert is not None and settings.tls_key is not None:
        context = ssl.create_default_context(cafile=settings.tls_client_ca or settings.peer_ca)
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    url = f"{'https' if context else 'http'}://localhost:{port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S, context=context):
            pass
    except OSError as error:
        raise UnavailableError(f"{url} does not answer: {error}") from error


def main() -> int:
    """Exit status of the probe."""
    try:
        probe(sys.argv[1] if len(sys.argv) == 2 else "")
    except RecsaeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
