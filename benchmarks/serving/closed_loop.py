"""Closed-loop load by a grpc client, where there is no `h2load`: dearer, so that a fast server may wait for it."""

from __future__ import annotations

import threading
import time
from typing import Any, Protocol

import grpc

from benchmarks.serving.h2load import METHOD

_CALL_S = 300.0


class Load(Protocol):
    """What keeps calls in flight."""

    def run(self, port: int, request: bytes, *, calls: int, in_flight: int, core: int | None) -> float:
        """Seconds that `calls` of a serialised `request` took, `in_flight` at once; RuntimeError when some failed."""


class GrpcLoad:
    """Sends the next call when an answer comes. Runs where this process runs, whatever `core` says."""

    def run(self, port: int, request: bytes, *, calls: int, in_flight: int, core: int | None) -> float:
        """As `Load` says."""
        answered, failed, done, room = [0], [0], threading.Event(), threading.Semaphore(in_flight)

        def note(future: Any) -> None:  # on the channel's one thread
            failed[0] += future.code() is not grpc.StatusCode.OK
            answered[0] += 1
            room.release()
            if answered[0] == calls:
                done.set()

        with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            grpc.channel_ready_future(channel).result(_CALL_S)
            start = time.perf_counter()
            for _ in range(calls):
                room.acquire()
                call.future(request, timeout=_CALL_S).add_done_callback(note)
            if not done.wait(_CALL_S) or failed[0]:
                raise RuntimeError(f"{failed[0]} of {calls} calls failed, {calls - answered[0]} were not answered")
            return time.perf_counter() - start
