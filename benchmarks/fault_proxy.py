"""A man in the middle between recommenders and the interpreter: passes calls on, late, damaged or lying on request."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc

from recsae.v1 import steering_pb2

_WATCH = "/recsae.v1.Steering/WatchPlans"
_STEER = "/recsae.v1.Steering/Steer"
_PLANS = (_WATCH, "/recsae.v1.Steering/GetEncoder")
_OTHER_VERSION = "0" * 16


@dataclass
class Mischief:
    """What is done to answers.

    Each is `delay_s` late; of plans and encoders a share `flip` has one bit turned over; `lie` = as if of another
    model version.
    """

    delay_s: float = 0.0
    flip: float = 0.0
    lie: bool = False


class Proxy(grpc.GenericRpcHandler):
    """Serves every method by asking `upstream`, as bytes."""

    def __init__(self, upstream: int) -> None:
        """`upstream` is a loopback port."""
        self.mischief = Mischief()
        self.flipped = 0
        self._random = random.Random(7)
        self._channel: Any = grpc.insecure_channel(  # untyped: it carries bytes, which the stubs do not foresee
            f"127.0.0.1:{upstream}",
            [("grpc.max_reconnect_backoff_ms", 500), ("grpc.initial_reconnect_backoff_ms", 100)],
        )
        self._server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self) -> None:
        """Ends it."""
        self._server.stop(0).wait()
        self._channel.close()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler for whatever is called."""
        method = handler_call_details.method
        if method == _WATCH:
            return grpc.unary_stream_rpc_method_handler(self._watch)

        def one(request: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                answer: bytes = self._channel.unary_unary(method)(request, timeout=context.time_remaining())
            except grpc.RpcError as error:
                return _abort(context, error)
            return self._mangled(answer, method)

        return grpc.unary_unary_rpc_method_handler(one)

    def _watch(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        call = self._channel.unary_stream(_WATCH)(request)
        context.add_callback(call.cancel)
        try:
            for answer in call:
                yield self._mangled(answer, _WATCH)
        except grpc.RpcError as error:
            _abort(context, error)

    def _mangled(self, answer: bytes, method: str) -> bytes:
        mischief = self.mischief
        if mischief.delay_s:
            time.sleep(mischief.delay_s)
        if mischief.lie:
            answer = _as_if_of_another_version(answer, method)
        if answer and method in _PLANS and self._random.random() < mischief.flip:
            self.flipped += 1
            damaged = bytearray(answer)
            damaged[self._random.randrange(len(damaged))] ^= 1 << self._random.randrange(8)
            answer = bytes(damaged)
        return answer


def _as_if_of_another_version(answer: bytes, method: str) -> bytes:
    if method == _WATCH:
        watched = steering_pb2.WatchPlansResponse.FromString(answer)
        for plan in watched.plans.plans:
            plan.triple.model_version, plan.digest = _OTHER_VERSION, ""
        return watched.SerializeToString()
    if method == _STEER:
        steered = steering_pb2.SteerResponse.FromString(answer)
        for receipt in steered.receipts:
            receipt.triple.model_version = _OTHER_VERSION
        return steered.SerializeToString()
    return answer


def _abort(context: grpc.ServicerContext, error: grpc.RpcError) -> bytes:
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    context.abort(code if code is not grpc.StatusCode.OK else grpc.StatusCode.UNKNOWN, "passed on")
    return b""
