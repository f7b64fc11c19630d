"""What is recorded around one served call: its context, log lines, metrics, and the mapping of its errors.

Log lines carry method, status, request id and duration; never a message of an error, which may quote user ids.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import Token
from typing import Any

import grpc
import structlog

from recsae.errors import RecsaeError
from recsae.rpc.auth import Gate
from recsae.rpc.deadline import Deadline
from recsae.rpc.request import (
    REQUEST_ID_KEY,
    RequestInfo,
    enter_request,
    leave_request,
    request_id_of,
    traceparent_of,
)
from recsae.rpc.roles import Role
from recsae.rpc.status import rich_status, status_code
from recsae.telemetry.metrics import RpcMetrics

Behaviour = Callable[[Any, grpc.ServicerContext], Any]

_log = structlog.get_logger(__name__)
# Asked before a line nobody reads is made: structlog would make it first.
_levels = logging.getLogger(__name__)

# Shedding is counted, not logged: a line per refusal would add to the load that caused it.
_LEVELS = {
    grpc.StatusCode.INTERNAL: "error",
    grpc.StatusCode.DATA_LOSS: "error",
    grpc.StatusCode.UNAVAILABLE: "warning",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "debug",
    grpc.StatusCode.OK: "debug",
    grpc.StatusCode.CANCELLED: "debug",
}


class CallRecorder:
    """Wraps the serving of calls."""

    def __init__(self, metrics: RpcMetrics) -> None:
        """`metrics` are those of the server."""
        self._metrics = metrics

    def recorded(self, behaviour: Behaviour, method: str, gate: Gate | None, *, streaming: bool) -> Behaviour:
        """The behaviour with its calls recorded: errors leave as rich gRPC status, success and failure are counted.

        `gate` says who calls; None for calls it refused.
        """
        served = _Method(self._metrics, method)

        # Not a context manager: a recommendation would pay for one more than all of this costs.
        def serve(request: Any, context: grpc.ServicerContext) -> Any:
            info = _info(context, method, gate)
            token = enter_request(info)
            started = time.perf_counter()
            try:
                response = behaviour(request, context)
            except BaseException as error:  # one that nobody catches would leave the caller without an answer
                served.failed(error, info, context, time.perf_counter() - started)
            else:
                served.ended(grpc.StatusCode.OK, info, time.perf_counter() - started)
                return response
            finally:
                leave_request(token)

        def serve_stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            info = _info(context, method, gate)
            token = enter_request(info)
            started = time.perf_counter()
            try:
                yield from behaviour(request, context)
            except GeneratorExit:
                served.ended(grpc.StatusCode.CANCELLED, info, time.perf_counter() - started)
                raise
            except BaseException as error:
                served.failed(error, info, context, time.perf_counter() - started)
            else:
                served.ended(grpc.StatusCode.OK, info, time.perf_counter() - started)
            finally:
                _leave(token)

        return serve_stream if streaming else serve


class _Method:
    """What calls of one method are counted and logged by."""

    def __init__(self, metrics: RpcMetrics, method: str) -> None:
        self._requests = metrics.requests
        self._method = method
        self._succeeded = metrics.requests.labels(method, grpc.StatusCode.OK.name)
        self._duration = metrics.duration.labels(method)

    def ended(self, code: grpc.StatusCode, info: RequestInfo, seconds: float) -> None:
        """Counts and logs a call that ended without an error of ours."""
        if code is grpc.StatusCode.OK:
            self._succeeded.inc()
        else:
            self._requests.labels(self._method, code.name).inc()
        self._duration.observe(seconds)
        if _levels.isEnabledFor(logging.DEBUG):
            _report(info, code, seconds, None)

    def failed(self, error: BaseException, info: RequestInfo, context: grpc.ServicerContext, seconds: float) -> None:
        """Counts and logs a call that raised, and ends it with the status of its error: always raises."""
        missing = isinstance(error, NotImplementedError)
        code = grpc.StatusCode.UNIMPLEMENTED if missing else status_code(error)
        self._requests.labels(self._method, code.name).inc()
        self._duration.observe(seconds)
        _report(info, code, seconds, None if missing else error)
        if missing:
            context.abort(code, f"{info.method} is not implemented by this server")
        context.abort_with_status(rich_status(error, info.request_id))


def _info(context: grpc.ServicerContext, method: str, gate: Gate | None) -> RequestInfo:
    metadata: dict[str, Any] = dict(context.invocation_metadata())
    caller = gate.caller(metadata) if gate is not None else None
    info = RequestInfo(
        request_id_of(metadata),
        traceparent_of(metadata),
        caller.name if caller else "",
        caller.role if caller else Role.VIEWER,
        method,
        Deadline.after(context.time_remaining()),
    )
    context.set_trailing_metadata(((REQUEST_ID_KEY, info.request_id),))
    return info


def _leave(token: Token[RequestInfo | None]) -> None:
    # A stream's generator may be closed from another context than the one it began in.
    with suppress(ValueError):
        leave_request(token)


def _report(info: RequestInfo, code: grpc.StatusCode, seconds: float, failure: BaseException | None) -> None:
    unforeseen = failure is not None and not isinstance(failure, RecsaeError)
    getattr(_log, _LEVELS.get(code, "info"))(
        "call_failed" if failure is not None else "call_served",
        method=info.method,
        code=code.name,
        request_id=info.request_id,
        duration_ms=round(seconds * 1e3, 3),
        **({"exc_info": failure} if unforeseen else {}),
    )
