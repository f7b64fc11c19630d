"""RecSAE errors to and from gRPC status: one table, both directions.

The rich details carry a `google.rpc.ErrorInfo` (reason = the stable code, domain "recsae", the request id). Where
grpcio-status is not installed (the SDK inside another server), code and message travel without them.
Not here: logging and deciding what becomes an error.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage

from recsae import errors

DOMAIN = "recsae"
# Messages travel in headers, which are bounded to 8 KB altogether, twice (plain and in the rich details).
_LONGEST_MESSAGE = 1000

_STATUS: dict[str, grpc.StatusCode] = {
    "internal": grpc.StatusCode.INTERNAL,
    "invalid_request": grpc.StatusCode.INVALID_ARGUMENT,
    "not_found": grpc.StatusCode.NOT_FOUND,
    "conflict": grpc.StatusCode.ABORTED,
    "failed_precondition": grpc.StatusCode.FAILED_PRECONDITION,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
    "deadline_exceeded": grpc.StatusCode.DEADLINE_EXCEEDED,
    "resource_exhausted": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "permission_denied": grpc.StatusCode.PERMISSION_DENIED,
    "unauthenticated": grpc.StatusCode.UNAUTHENTICATED,
    "corrupt_artifact": grpc.StatusCode.DATA_LOSS,
}
_ERRORS: dict[str, type[errors.RecsaeError]] = {
    kind.code: kind
    for kind in (
        errors.InvalidRequestError,
        errors.NotFoundError,
        errors.ConflictError,
        errors.FailedPreconditionError,
        errors.UnavailableError,
        errors.DeadlineExceededError,
        errors.ResourceExhaustedError,
        errors.PermissionDeniedError,
        errors.UnauthenticatedError,
        errors.CorruptArtifactError,
    )
}
# Foreign servers send no ErrorInfo; their bare status still finds a class.
_ERRORS_BY_STATUS = {_STATUS[code]: kind for code, kind in _ERRORS.items()}


def status_code(error: BaseException) -> grpc.StatusCode:
    """The gRPC status of an error; INTERNAL for everything that is not a RecsaeError."""
    return _STATUS[error.code] if isinstance(error, errors.RecsaeError) else grpc.StatusCode.INTERNAL


def rich_status(error: BaseException, request_id: str) -> grpc.Status:
    """The status to abort a call with.

    A RecsaeError is shown with its message; anything else becomes INTERNAL with the request id and no internals.
    """
    known = isinstance(error, errors.RecsaeError)
    message = str(error) if known else f"internal error; the server's log has it under request id {request_id}"
    code = status_code(error)
    rich = _rich()
    if rich is None:
        return _PlainStatus(code, message[:_LONGEST_MESSAGE])
    info = rich.error_details.ErrorInfo(
        reason=error.code if isinstance(error, errors.RecsaeError) else "internal",
        domain=DOMAIN,
        metadata={"request_id": request_id},
    )
    detail = AnyMessage()
    detail.Pack(info)
    status: grpc.Status = rich.rpc_status.to_status(
        rich.status.Status(code=code.value[0], message=message[:_LONGEST_MESSAGE], details=[detail])
    )
    return status


def error_from(error: grpc.RpcError) -> errors.RecsaeError:
    """The RecSAE error a failed call stands for, by its ErrorInfo or else its status code.

    Statuses with no class of their own (CANCELLED, UNKNOWN, INTERNAL ...) become a bare RecsaeError.
    """
    code, message = _facts(error)
    kind = _ERRORS.get(_reason(error) or "") or _ERRORS_BY_STATUS.get(code, errors.RecsaeError)
    return kind(message)


def _facts(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    if isinstance(error, grpc.Call):
        return error.code() or grpc.StatusCode.UNKNOWN, error.details() or str(error.code())
    return grpc.StatusCode.UNKNOWN, str(error)


def _reason(error: grpc.RpcError) -> str | None:
    rich = _rich()
    if rich is None or not isinstance(error, grpc.Call):
        return None
    try:
        status = rich.rpc_status.from_call(error)
    except ValueError:  # The details contradict the status: a proxy rewrote it, and the status is what counts.
        return None
    for detail in status.details if status is not None else ():
        info = rich.error_details.ErrorInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
            return str(info.reason)
    return None


class _Rich(NamedTuple):
    """The modules that write and read rich details."""

    error_details: Any
    status: Any
    rpc_status: Any


@functools.cache
def _rich() -> _Rich | None:
    """None where grpcio-status and googleapis-common-protos are not installed."""
    try:
        from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
        from grpc_status import rpc_status  # type: ignore[import-untyped]
    except ImportError:
        return None
    return _Rich(error_details_pb2, status_pb2, rpc_status)


class _PlainStatus(grpc.Status):
    """A status without details."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self.code = code
        self.details = details
        self.trailing_metadata = ()
