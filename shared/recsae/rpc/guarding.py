"""What of admission waits until a call runs: the client certificate, and the place of a call in flight.

gRPC shows a peer's certificate to a running call alone, and a call cancelled while it queues never reaches the end of
one. Servers with neither to settle wrap nothing. Not here: the decisions themselves (`recsae.rpc.auth`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import Token
from dataclasses import replace
from typing import Any

import grpc

from recsae.rpc.auth import Gate
from recsae.rpc.principals import Principal
from recsae.rpc.request import RequestInfo, enter_request, leave_request, require_request

Behaviour = Callable[[Any, grpc.ServicerContext], Any]
Entered = Token[RequestInfo | None]


def guarded(gate: Gate, behaviour: Behaviour, *, streaming: bool) -> Behaviour:
    """The behaviour as it runs for its caller, whom the client certificate names when no token did.

    It has to run within the recorder's call, whose RequestInfo then names the principal and the role.
    """
    if not gate.settles_running_calls:
        return behaviour

    def serve(request: Any, context: grpc.ServicerContext) -> Any:
        known, entered = _begin(gate, context)
        try:
            return behaviour(request, context)
        finally:
            _end(gate, known, entered)

    def serve_stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        known, entered = _begin(gate, context)
        try:
            yield from behaviour(request, context)
        finally:
            _end(gate, known, entered)

    return serve_stream if streaming else serve


# Not a context manager, which would cost as much as all of this: it may lie on the path of every recommendation.
def _begin(gate: Gate, context: grpc.ServicerContext) -> tuple[Principal, Entered | None]:
    info = require_request()
    if info.principal:
        principal = Principal(info.principal, info.role)
        gate.enter(principal)
        return principal, None
    known = gate.admit_peer(info.method, _peer(context))
    gate.enter(known)
    return known, enter_request(replace(info, principal=known.name, role=known.role))


def _end(gate: Gate, principal: Principal, entered: Entered | None) -> None:
    gate.leave(principal)
    if entered is not None:
        # A stream's generator may be closed from another context than the one it began in.
        with suppress(ValueError):
            leave_request(entered)


def _peer(context: grpc.ServicerContext) -> Mapping[str, Iterable[bytes]]:
    """The authentication context of gRPC; its type hints say one value where there are several."""
    peer: Any = context.auth_context()
    found: Mapping[str, Iterable[bytes]] = peer
    return found
