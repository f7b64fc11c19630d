"""What of admission waits until a call runs: the client certificate, and the place of a call in flight.

gRPC shows a peer's certificate to a running call alone, and a call cancelled while it queues never reaches the end of
one. Calls with neither to settle are not wrapped. Not here: the decisions themselves (`recsae.rpc.auth`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import grpc

from recsae.rpc.auth import Gate
from recsae.rpc.principals import Principal
from recsae.rpc.request import enter_request, leave_request, require_request

Behaviour = Callable[[Any, grpc.ServicerContext], Any]


def guarded(gate: Gate, principal: Principal | None, behaviour: Behaviour, *, streaming: bool) -> Behaviour:
    """The behaviour as it runs for `principal`; None = its client certificate says who that is.

    It has to run within the recorder's call, whose RequestInfo then names the principal and the role.
    """
    if principal is not None and not gate.holds_calls:
        return behaviour

    def serve(request: Any, context: grpc.ServicerContext) -> Any:
        with _admitted(gate, principal, context):
            return behaviour(request, context)

    def serve_stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        with _admitted(gate, principal, context):
            yield from behaviour(request, context)

    return serve_stream if streaming else serve


@contextmanager
def _admitted(gate: Gate, principal: Principal | None, context: grpc.ServicerContext) -> Iterator[None]:
    info = require_request()
    known = principal or gate.admit_peer(info.method, _peer(context))
    gate.enter(known)
    token = enter_request(replace(info, principal=known.name, role=known.role))
    try:
        yield
    finally:
        gate.leave(known)
        # A stream's generator may be closed from another context than the one it began in.
        with suppress(ValueError):
            leave_request(token)


def _peer(context: grpc.ServicerContext) -> Mapping[str, Iterable[bytes]]:
    """The authentication context of gRPC; its type hints say one value where there are several."""
    peer: Any = context.auth_context()
    found: Mapping[str, Iterable[bytes]] = peer
    return found
