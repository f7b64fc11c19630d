"""The one interceptor of a server: who calls, is there room, in which lane, and what to record.

Refusals (no valid token, too low a role, no room) are decided before a call queues and answered from the express
lane, so that an overloaded server still says so at once. Health checks skip all of it but the lane. Not here: what
errors mean (`recsae.rpc.status`) and how much room there is (`recsae.rpc.lanes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc

from recsae.errors import RecsaeError
from recsae.rpc.auth import Gate
from recsae.rpc.calls import CallRecorder
from recsae.rpc.guarding import guarded
from recsae.rpc.lanes import Lane, Lanes
from recsae.rpc.principals import Principal
from recsae.rpc.request import RequestInfo, request_id_of, traceparent_of
from recsae.rpc.roles import Role

Handler = grpc.RpcMethodHandler
Behaviour = Callable[[Any, grpc.ServicerContext], Any]

_HEALTH = "/grpc.health.v1.Health/"


class CallInterceptor(grpc.ServerInterceptor):
    """Authenticates, sheds, routes and records every call."""

    def __init__(self, lanes: Lanes, gate: Gate, recorder: CallRecorder) -> None:
        """All three are shared by the server's threads."""
        self._lanes = lanes
        self._gate = gate
        self._recorder = recorder

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler[Any, Any] | None:
        """Runs on the server's polling thread: decides, never blocks."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        behaviour = _behaviour_of(handler)
        if handler_call_details.method.startswith(_HEALTH):
            return _with_behaviour(handler, _passed_on(behaviour), self._lanes.express)
        metadata = {key: value for key, value in handler_call_details.invocation_metadata if isinstance(value, str)}
        lane = self._lanes.choose(streaming=handler.request_streaming or handler.response_streaming)
        principal, refusal = self._admit(handler_call_details.method, metadata, lane)
        info = RequestInfo(
            request_id=request_id_of(metadata),
            traceparent=traceparent_of(metadata),
            principal=principal.name if principal else "",
            role=principal.role if principal else Role.VIEWER,
            method=handler_call_details.method,
        )
        if refusal is not None:
            behaviour, lane = _refusing(refusal), self._lanes.express
        else:
            behaviour = guarded(self._gate, principal, behaviour, streaming=handler.response_streaming)
        recorded = self._stream if handler.response_streaming else self._unary
        return _with_behaviour(handler, recorded(behaviour, info), lane)

    def _admit(self, method: str, metadata: dict[str, str], lane: Lane) -> tuple[Principal | None, RecsaeError | None]:
        """The principal, None when its certificate will tell once the call runs, or why the call is refused."""
        try:
            principal = None if self._gate.asks_certificate(metadata) else self._gate.admit(method, metadata)
            lane.check_room()
        except RecsaeError as refusal:
            return None, refusal
        return principal, None

    def _unary(self, behaviour: Behaviour, info: RequestInfo) -> Behaviour:
        def serve(request: Any, context: grpc.ServicerContext) -> Any:
            with self._recorder.record(info, context):
                return behaviour(request, context)

        return serve

    def _stream(self, behaviour: Behaviour, info: RequestInfo) -> Behaviour:
        def serve(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self._recorder.record(info, context):
                yield from behaviour(request, context)

        return serve


def _refusing(refusal: RecsaeError) -> Behaviour:
    def refuse(_request: Any, _context: grpc.ServicerContext) -> Any:
        raise refusal

    return refuse


def _passed_on(behaviour: Behaviour) -> Behaviour:
    """The same behaviour as a function of its own, which can carry a lane; bound methods cannot."""

    def serve(*arguments: Any) -> Any:
        return behaviour(*arguments)

    if getattr(behaviour, "experimental_non_blocking", False):
        serve.experimental_non_blocking = True  # type: ignore[attr-defined]
    return serve


def _behaviour_of(handler: Handler[Any, Any]) -> Behaviour:
    behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    assert behaviour is not None, "a method handler has exactly one behaviour"
    return behaviour


def _with_behaviour(handler: Handler[Any, Any], behaviour: Behaviour, lane: Lane) -> Handler[Any, Any]:
    """The handler with another behaviour, run in `lane` (grpcio's own hook for a pool per behaviour)."""
    behaviour.experimental_thread_pool = lane  # type: ignore[attr-defined]
    makers = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    make = makers[handler.request_streaming, handler.response_streaming]
    return make(behaviour, handler.request_deserializer, handler.response_serializer)
