"""Steering by the `Steer` call, for recommenders that hold no plan: one call per batch, and never a failed request.

Whatever stands in the way (no client, no connection, no time, no room, another version, a broken answer), the rows
go on as they came and the receipts say which it was. Calls are not retried: the next batch is the retry, and a
breaker leaves an interpreter alone that failed too often. Not here: what of an answer may be used (`remote_answer`).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import NamedTuple, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.pipeline.triples import Triple
from recsae.rpc.deadline import Deadline
from recsae.rpc.status import error_from
from recsae.steering.breaker import Breaker, BreakerState
from recsae.steering.delta import Steered, unsteered
from recsae.steering.matching import SteerContext
from recsae.steering.plans import DEFAULT_NORM_BUDGET, Floats
from recsae.steering.receipts import Receipt, UnsteeredReason
from recsae.steering.remote_answer import Expected, per_request, used
from recsae.steering.wire_steer import SteeredModel, steer_answer, steer_requests
from recsae.v1 import steering_pb2_grpc

MARGIN_S = 0.005
"""Left of a request's time for what follows: the head, and the way back."""
# A call with less time than this would only be given up.
_SHORTEST_S = 0.002
# A call that was cut short by its caller says little about the interpreter.
_TELLING_SHARE = 0.5
_CLIENT_PAUSE_S = (2.5, 7.5)

_REASONS = {
    grpc.StatusCode.UNAVAILABLE: UnsteeredReason.UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnsteeredReason.DEADLINE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: UnsteeredReason.OVERLOADED,
}


@dataclass(frozen=True)
class RemoteLimits:
    """Most seconds for one call, and the largest |x' - x| accepted as a share of |x|."""

    timeout_s: float = 0.05
    norm_budget: float = DEFAULT_NORM_BUDGET


class SteerCall(NamedTuple):
    """How a batch fared: STEERED = answered, whatever the answer; `seconds` taken, `given_s` the time it had."""

    outcome: UnsteeredReason
    seconds: float
    given_s: float


class _FailedError(Exception):
    """A call that gave nothing to use; `telling`: by the interpreter's fault."""

    def __init__(self, reason: UnsteeredReason, error: Exception | None, *, telling: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error
        self.telling = telling


class RemoteSteering:
    """Steers batches of one model version by an interpreter's `Steer`. Safe to use from several threads."""

    def __init__(
        self,
        open_channel: Callable[[], grpc.Channel],
        model: SteeredModel,
        *,
        limits: RemoteLimits | None = None,
        breaker: Breaker | None = None,
        on_call: Callable[[SteerCall], None] = lambda _call: None,
    ) -> None:
        """`open_channel` makes the client, and may fail: it is asked again now and then, and NO_CLIENT said meanwhile.

        Give it a channel without retries (`recsae.rpc.client.ClientOptions.retries`). It is closed by `close`.
        """
        self._open_channel = open_channel
        self._model = model
        self._limits = limits or RemoteLimits()
        self._expected = Expected(model.version, self._limits.norm_budget)
        self._breaker = breaker or Breaker()
        self._on_call = on_call
        self._channel: grpc.Channel | None = None
        self._stub: steering_pb2_grpc.SteeringStub | None = None
        self._no_client: Exception | None = None
        self._open_at = 0.0
        self._closed = False
        self._making = threading.Lock()
        self._client()

    @property
    def breaker_state(self) -> BreakerState:
        """Whether the interpreter is asked."""
        return self._breaker.state

    def steer(
        self,
        x: Floats,
        contexts: Sequence[SteerContext],
        sizes: Sequence[int] | None = None,
        deadlines: Sequence[Deadline] = (),
    ) -> Steered:
        """Rows float32 [n, d] to go on with and a receipt per request; never raises.

        Request i owns the next `sizes[i]` rows (None = one each) and has until `deadlines[i]`; () = no end.
        Where nothing changed, the very array given comes back.
        """
        sizes = [1] * len(contexts) if sizes is None else sizes
        started = time.monotonic()
        try:
            steered, call = self._steer(x, contexts, sizes, deadlines, started)
        except Exception as error:
            steered = replace(self._bare(x, UnsteeredReason.ERROR, len(contexts)), error=error)
            call = SteerCall(UnsteeredReason.ERROR, time.monotonic() - started, 0.0)
        self._on_call(call)
        return steered

    def wait_until_connected(self, timeout_s: float) -> bool:
        """Blocks until the interpreter is connected; False without a client or when it took longer."""
        if self._channel is None:
            return False
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout_s)
        except grpc.FutureTimeoutError:
            ready.cancel()
            return False
        return True

    def close(self) -> None:
        """Closes the client; nothing is steered any more."""
        self._closed = True
        self._stub = None
        if self._channel is not None:
            self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _steer(
        self,
        x: Floats,
        contexts: Sequence[SteerContext],
        sizes: Sequence[int],
        deadlines: Sequence[Deadline],
        started: float,
    ) -> tuple[Steered, SteerCall]:
        receipts = [self._receipt(UnsteeredReason.NONE_MATCHED)] * len(contexts)
        asked, given_s = self._asked(x, sizes, deadlines, receipts)
        if not asked:
            reason = receipts[0].reason if receipts else UnsteeredReason.NONE_MATCHED
            return Steered(x, tuple(receipts)), SteerCall(reason, 0.0, given_s)
        ends = np.cumsum(sizes)
        rows = np.concatenate([np.arange(ends[one] - sizes[one], ends[one]) for one in asked])
        sent = x if len(rows) == len(x) else x[rows]
        try:
            out, found = self._answered(sent, [contexts[one] for one in asked for _ in range(sizes[one])], given_s)
        except _FailedError as failure:
            for one in asked:
                receipts[one] = self._receipt(failure.reason)
            call = SteerCall(failure.reason, time.monotonic() - started, given_s)
            return Steered(x, tuple(receipts), error=failure.error), call
        for one, receipt in zip(asked, per_request(found, [sizes[one] for one in asked]), strict=True):
            receipts[one] = receipt
        call = SteerCall(UnsteeredReason.STEERED, time.monotonic() - started, given_s)
        if out is sent:
            return Steered(x, tuple(receipts)), call
        if sent is not x:
            changed, out = out, x.copy()
            out[rows] = changed
        return Steered(out, tuple(receipts)), call

    def _asked(
        self, x: Floats, sizes: Sequence[int], deadlines: Sequence[Deadline], receipts: list[Receipt]
    ) -> tuple[list[int], float]:
        """Requests to ask for, and the seconds the call may take: the least that any of them has.

        A request that is nearly out of time, or whose rows are not finite, is left out: it costs the others nothing.
        """
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(x).all(axis=1))
        every_finite = bool(finite.all())
        asked, given_s, end = [], self._limits.timeout_s, 0
        for one, size in enumerate(sizes):
            end += size
            if not size:
                continue
            left = deadlines[one].remaining() if deadlines else None
            if left is not None and left - MARGIN_S < _SHORTEST_S:
                receipts[one] = self._receipt(UnsteeredReason.DEADLINE)
            elif not every_finite and not finite[end - size : end].all():
                receipts[one] = self._receipt(UnsteeredReason.INVALID_CHANGE)
            else:
                asked.append(one)
                given_s = given_s if left is None else min(given_s, left - MARGIN_S)
        return asked, given_s

    def _answered(self, x: Floats, contexts: Sequence[SteerContext], given_s: float) -> tuple[Floats, list[Receipt]]:
        """Rows to go on with and a receipt per row; _FailedError with the reason when there is no answer to use."""
        stub = self._client()
        if stub is None:
            raise _FailedError(UnsteeredReason.NO_CLIENT, self._no_client)
        ticket = self._breaker.admit()
        if ticket is None:
            raise _FailedError(UnsteeredReason.BREAKER_OPEN, None)
        try:
            answer, receipts = self._call(stub, x, contexts, given_s)
        except _FailedError as failure:
            (self._breaker.failed if failure.telling else self._breaker.withdrawn)(ticket)
            raise
        except BaseException:
            self._breaker.withdrawn(ticket)
            raise
        self._breaker.succeeded(ticket)
        return used(x, answer, receipts, self._expected)

    def _call(
        self, stub: steering_pb2_grpc.SteeringStub, x: Floats, contexts: Sequence[SteerContext], given_s: float
    ) -> tuple[Floats, list[Receipt]]:
        requests = list(steer_requests(x, contexts, self._model))
        calls = [stub.Steer.future(request, timeout=given_s) for request in requests]
        try:
            answers = [
                steer_answer(call.result(), (len(request.contexts), x.shape[1]))
                for request, call in zip(requests, calls, strict=True)
            ]
        except grpc.RpcError as error:
            raise self._failure(error, given_s) from error
        except InvalidRequestError as error:  # the wrong shape or type: the interpreter is there, and of no use
            raise _FailedError(UnsteeredReason.INVALID_CHANGE, error) from error
        finally:
            for call in calls:
                call.cancel()
        if len(answers) == 1:
            return answers[0]
        rows = np.concatenate([rows for rows, _ in answers])
        return rows, [receipt for _, receipts in answers for receipt in receipts]

    def _failure(self, error: grpc.RpcError, given_s: float) -> _FailedError:
        code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
        reason = _REASONS.get(code, UnsteeredReason.ERROR)
        cut_short = reason is UnsteeredReason.DEADLINE and given_s < _TELLING_SHARE * self._limits.timeout_s
        return _FailedError(reason, error_from(error), telling=not cut_short)

    def _client(self) -> steering_pb2_grpc.SteeringStub | None:
        """The client; tries again now and then to make one that could not be made: a certificate may yet come."""
        if self._stub is not None or self._closed or time.monotonic() < self._open_at:
            return self._stub
        with self._making:
            if self._stub is not None or time.monotonic() < self._open_at:
                return self._stub
            self._open_at = time.monotonic() + random.uniform(*_CLIENT_PAUSE_S)
            try:
                self._channel = self._open_channel()
                self._stub = steering_pb2_grpc.SteeringStub(self._channel)
            except Exception as error:
                self._no_client = error
        return self._stub

    def _bare(self, x: Floats, reason: UnsteeredReason, requests: int) -> Steered:
        return replace(unsteered(x, reason), receipts=(self._receipt(reason),) * requests)

    def _receipt(self, reason: UnsteeredReason) -> Receipt:
        return Receipt(reason, triple=Triple(self._model.version))
