"""The one interceptor of a server: who calls, is there room, in which lane, and what to record.

Refusals (no valid token, too low a role, no room) are decided before a call queues and answered from the express
lane, so that an overloaded server still says so at once. Health checks skip all of it but the lane. What a method's
calls have in common is made once: this lies on the path of every recommendation. Not here: what errors mean
(`recsae.rpc.status`) and how much room there is (`recsae.rpc.lanes`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from recsae.errors import RecsaeError
from recsae.rpc.auth import Gate
from recsae.rpc.calls import Behaviour, CallRecorder
from recsae.rpc.guarding import guarded
from recsae.rpc.lanes import AnyLane, Lanes

Handler = grpc.RpcMethodHandler

_HEALTH = "/grpc.health.v1.Health/"


@dataclass(frozen=True)
class _Served:
    """A method as it is served: its handler in its lane; `admits` is False for health checks."""

    handler: Handler[Any, Any]
    lane: AnyLane
    admits: bool


class CallInterceptor(grpc.ServerInterceptor):
    """Authenticates, sheds, routes and records every call."""

    def __init__(self, lanes: Lanes, gate: Gate, recorder: CallRecorder) -> None:
        """All three are shared by the server's threads."""
        self._lanes = lanes
        self._gate = gate
        self._recorder = recorder
        # Methods the server has: bounded, since unknown ones have no handler and are not kept.
        self._served: dict[str, _Served] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler[Any, Any] | None:
        """Runs on the server's polling thread: decides, never blocks."""
        method = handler_call_details.method
        served = self._served.get(method)
        if served is None:
            handler = continuation(handler_call_details)
            if handler is None:
                return None
            served = self._served[method] = self._serving(handler, method)
        if served.admits:
            try:
                metadata: dict[str, Any] = dict(handler_call_details.invocation_metadata)
                if not self._gate.asks_certificate(metadata):
                    self._gate.admit(method, metadata)
                served.lane.check_room()
            except RecsaeError as refusal:
                return self._refusing(served.handler, method, refusal)
        return served.handler

    def _serving(self, handler: Handler[Any, Any], method: str) -> _Served:
        behaviour, streaming = _behaviour_of(handler), handler.response_streaming
        if method.startswith(_HEALTH):
            return _Served(
                _with_behaviour(handler, _passed_on(behaviour), self._lanes.express), self._lanes.express, False
            )
        lane = self._lanes.choose(method, streaming=handler.request_streaming or streaming)
        recorded = self._recorder.recorded(
            guarded(self._gate, behaviour, streaming=streaming), method, self._gate, streaming=streaming
        )
        return _Served(_with_behaviour(handler, recorded, lane), lane, True)

    def _refusing(self, handler: Handler[Any, Any], method: str, refusal: RecsaeError) -> Handler[Any, Any]:
        def refuse(_request: Any, _context: grpc.ServicerContext) -> Any:
            raise refusal

        recorded: Any = self._recorder.recorded(refuse, method, None, streaming=handler.response_streaming)
        recorded.experimental_thread_pool = self._lanes.express
        # As if requests came in a stream: grpcio would else hold the thread until a message came, which a caller
        # without credentials need never send.
        streaming = handler.response_streaming
        make = grpc.stream_stream_rpc_method_handler if streaming else grpc.stream_unary_rpc_method_handler
        return make(recorded, handler.request_deserializer, handler.response_serializer)


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


def _with_behaviour(handler: Handler[Any, Any], behaviour: Behaviour, lane: AnyLane) -> Handler[Any, Any]:
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
