"""The SDK's gRPC server: the exporter's services beside whatever the process serves, from threads of its own.

Health and reflection are added where their packages are installed. Not here: what is answered (`servicers`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from recsae.errors import FailedPreconditionError, InvalidRequestError, RecsaeError
from recsae.rpc.auth import Gate
from recsae.rpc.loopback import is_loopback
from recsae.rpc.principals import SHORTEST_SECRET, Principal, Token, digest_of
from recsae.rpc.roles import HEALTH, Role
from recsae.rpc.status import status_code
from recsae.sdk.servicers import ACTIVATION_EXPORTER, RECOMMENDER, ExporterServicer, Models, RankServicer
from recsae.telemetry.event_log import event_log
from recsae.v1 import recommender_pb2_grpc

if TYPE_CHECKING:
    from recsae.sdk.exporter import Exporter

_log = event_log(__name__)

_THREADS = 8
_MOST_CALLS = 128
_MOST_BYTES = 64 << 20
_GRACE_S = 5.0
# grpc ends a server that nobody holds any more; ours run until they are stopped.
_RUNNING: set[Serving] = set()


class Serving:
    """A server that runs. Use it as a context manager, or call `stop`."""

    def __init__(self, server: grpc.Server, port: int) -> None:
        """Made by `serve`."""
        self._server = server
        self.port = port
        """The port bound."""
        _RUNNING.add(self)

    def stop(self, grace_s: float = _GRACE_S) -> None:
        """Takes no more calls, gives those in flight `grace_s` seconds, and returns when the server has ended."""
        self._server.stop(grace_s).wait()
        _RUNNING.discard(self)

    def wait(self) -> None:
        """Blocks until the server has ended: for a process that does nothing else."""
        self._server.wait_for_termination()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def add_services(exporters: Sequence[Exporter], server: grpc.Server) -> tuple[str, ...]:
    """Adds the services of models to a gRPC server of one's own, the first one as default; returns their names."""
    models = Models(exporters)
    recommender_pb2_grpc.add_ActivationExporterServicer_to_server(ExporterServicer(models), server)
    if all(exporter.model.head is None for exporter in exporters):
        return (ACTIVATION_EXPORTER,)
    recommender_pb2_grpc.add_RecommenderServicer_to_server(RankServicer(models), server)
    return (ACTIVATION_EXPORTER, RECOMMENDER)


def serve(
    exporters: Sequence[Exporter],
    address: str,
    *,
    credentials: grpc.ServerCredentials | None = None,
    tokens: Sequence[str] = (),
) -> Serving:
    """Serves one model or several at `host:port` (port 0 = a free one); see `Exporter.serve`."""
    _check_address(address, credentials, tokens)
    interceptors: list[grpc.ServerInterceptor] = [_Tokens(tokens)] if tokens else []
    server = grpc.server(
        ThreadPoolExecutor(_THREADS, thread_name_prefix="recsae-sdk"),
        interceptors=interceptors,
        maximum_concurrent_rpcs=_MOST_CALLS,
        options=[
            # On by default in grpc: a second server would bind the same port silently and take half the calls.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", _MOST_BYTES),
            ("grpc.max_send_message_length", _MOST_BYTES),
        ],
    )
    services = add_services(exporters, server)
    _add_health(server, services)
    _add_reflection(server, services)
    try:
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:
        raise FailedPreconditionError(
            f"{address} cannot be bound; another process may hold it: stop that or choose another port"
        ) from error
    server.start()
    _log.info("exporter_started", port=port, models=[exporter.name for exporter in exporters])
    return Serving(server, port)


def _check_address(address: str, credentials: grpc.ServerCredentials | None, tokens: Sequence[str]) -> None:
    host = address.rsplit(":", 1)[0]
    if any(len(token.rpartition(":")[2]) < SHORTEST_SECRET for token in tokens):
        raise InvalidRequestError(f"a token is shorter than {SHORTEST_SECRET} characters; try secrets.token_hex(24)")
    if not (address.startswith("unix:") or is_loopback(host)) and (credentials is None or not tokens):
        raise InvalidRequestError(
            f"{address} can be reached from other machines: give serve() `credentials` "
            "(grpc.ssl_server_credentials) and `tokens`, or bind 127.0.0.1"
        )


def _add_health(server: grpc.Server, services: Sequence[str]) -> None:
    try:
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
    except ImportError:
        _log.info("health_not_served", remedy="install grpcio-health-checking")
        return
    servicer = health.HealthServicer()
    for service in ("", *services):
        servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)


def _add_reflection(server: grpc.Server, services: Sequence[str]) -> None:
    try:
        from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]
    except ImportError:
        _log.info("reflection_not_served", remedy="install grpcio-reflection")
        return
    reflection.enable_server_reflection((*services, reflection.SERVICE_NAME), server)


class _Tokens(grpc.ServerInterceptor):
    """Refuses calls without one of the tokens, health checks apart."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._gate = Gate([_token(text) for text in dict.fromkeys(tokens)])

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(f"/{HEALTH}/"):
            return handler
        metadata = {
            str(key): value for key, value in handler_call_details.invocation_metadata if isinstance(value, str)
        }
        try:
            self._gate.admit(method, metadata)
        except RecsaeError as refusal:
            return _refusing(refusal)
        return handler


def _token(text: str) -> Token:
    """A bare secret, `name:secret` or a service's `name:role:secret`: everything an exporter serves is a viewer's."""
    name, _, secret = text.rpartition(":")
    digest = digest_of(secret)
    return Token(Principal(name or f"token-{digest.hex()[:8]}", Role.VIEWER), digest)


def _refusing(refusal: RecsaeError) -> grpc.RpcMethodHandler[Any, Any]:
    code, sentence = status_code(refusal), str(refusal)

    def refuse(_request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(code, sentence)

    # As if requests came in a stream: a thread would else be held until the message came, which it never need.
    return grpc.stream_unary_rpc_method_handler(refuse)
