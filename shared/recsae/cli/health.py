"""Whether a service, a worker or a server answers, asked once with a short deadline."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from recsae.rpc.client import ClientOptions, channel
from recsae.rpc.status import error_from

_PROBE_S = 1.0
# A server of others that answers but has no health service.
NO_HEALTH = "no health service"


def service_state(address: str, options: ClientOptions | None = None) -> str:
    """`serving`, `not_serving`, or in words why it does not answer, e.g. `unavailable`."""
    connection = channel(address, options or ClientOptions())
    try:
        reply = health_pb2_grpc.HealthStub(connection).Check(health_pb2.HealthCheckRequest(), timeout=_PROBE_S)
    except grpc.RpcError as error:
        if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return NO_HEALTH
        return error_from(error).code.replace("_", " ")
    finally:
        connection.close()
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)).lower()


def is_serving(address: str) -> bool:
    """Whether the gRPC health service at a loopback address says SERVING."""
    return service_state(address) == "serving"


def worker_answers(bus_url: str) -> bool:
    """Whether a Celery worker answers a ping over the bus."""
    from celery import Celery
    from kombu.exceptions import OperationalError

    with Celery(broker=bus_url, set_as_current=False) as app:
        app.conf.broker_connection_timeout = _PROBE_S
        try:
            return bool(app.control.ping(timeout=_PROBE_S, limit=1))
        except OperationalError:
            return False
