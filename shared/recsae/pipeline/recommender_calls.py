"""How the pipeline calls a recommender: unary calls that wait through restarts, and requests cut by rows.

Not here: what is asked (`recommender_client`) and whether the answer fits (`recommender_answers`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import grpc

from recsae.errors import FailedPreconditionError, UnavailableError
from recsae.rpc.status import error_from

_CALL_S = 60.0
_WAIT_THROUGH_S = 60.0
_RETRY_EVERY_S = 1.0

Request = TypeVar("Request", contravariant=True)
Answer = TypeVar("Answer", covariant=True)
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)


class NotImplementedByServerError(FailedPreconditionError):
    """The server has no such method: it implements a part of the contract."""


class Method(Protocol[Request, Answer]):
    """A unary call of a stub."""

    def __call__(self, request: Request, /, *, timeout: float) -> Answer:
        """The answer, or `grpc.RpcError` within `timeout` seconds."""
        ...


def call(method: Method[Request, Answer], request: Request, sleep: Callable[[float], None] = time.sleep) -> Answer:
    """The answer; UnavailableError when there is none for a minute, the server's own error when it refuses."""
    deadline = time.monotonic() + _WAIT_THROUGH_S
    while True:
        try:
            return method(request, timeout=_CALL_S)
        except grpc.RpcError as error:
            code = error.code() if isinstance(error, grpc.Call) else None
            if code is grpc.StatusCode.UNIMPLEMENTED:
                raise NotImplementedByServerError(
                    f"the recommender does not implement what {type(request).__name__} asks for"
                ) from error
            if code not in _RETRIED:
                raise error_from(error) from error
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"the recommender did not answer for {_WAIT_THROUGH_S:.0f} s ({error_from(error)}); start it"
                ) from error
        sleep(_RETRY_EVERY_S)  # a restarting server has no event to wait for


def batches(rows_of: Sequence[int], max_rows: int, most: int) -> Iterator[tuple[int, int]]:
    """Spans [begin, end) of at most `most` things and `max_rows` rows together; what has more rows goes alone."""
    begin, rows = 0, 0
    for index, count in enumerate(rows_of):
        if index > begin and (rows + count > max_rows or index - begin >= most):
            yield begin, index
            begin, rows = index, 0
        rows += count
    if begin < len(rows_of):
        yield begin, len(rows_of)
