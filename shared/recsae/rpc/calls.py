"""What is recorded around one served call: its context, log lines, metrics, and the mapping of its errors.

Log lines carry method, status, request id and duration; never a message of an error, which may quote user ids.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import grpc
import structlog

from recsae.errors import RecsaeError
from recsae.rpc.deadline import Deadline
from recsae.rpc.request import REQUEST_ID_KEY, RequestInfo, enter_request, leave_request
from recsae.rpc.status import rich_status, status_code
from recsae.telemetry.metrics import RpcMetrics

_log = structlog.get_logger(__name__)

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

    @contextmanager
    def record(self, info: RequestInfo, context: grpc.ServicerContext) -> Iterator[None]:
        """Serves one call inside: errors leave as rich gRPC status, success and failure are counted."""
        info = replace(info, deadline=Deadline.after(context.time_remaining()))
        token = enter_request(info)
        context.set_trailing_metadata(((REQUEST_ID_KEY, info.request_id),))
        started = time.perf_counter()
        code = grpc.StatusCode.OK
        failure: BaseException | None = None
        try:
            yield
        except GeneratorExit:
            code = grpc.StatusCode.CANCELLED
            raise
        except NotImplementedError:
            code = grpc.StatusCode.UNIMPLEMENTED
            context.abort(code, f"{info.method} is not implemented by this server")
        except Exception as error:
            failure = error
            code = status_code(error)
            context.abort_with_status(rich_status(error, info.request_id))
        finally:
            seconds = time.perf_counter() - started
            self._metrics.requests.labels(info.method, code.name).inc()
            self._metrics.duration.labels(info.method).observe(seconds)
            _report(info, code, seconds, failure)
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
