"""Open-loop load by a grpc client: each call is sent when it is due, whatever became of those before.

A latency counts from when its call was due, so that a server that stalls is charged for all who waited (no coordinated
omission). The client's own time is part of it, the same for every variant.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.h2load import METHOD
from benchmarks.serving.latencies import LatencyHistogram

_CALL_S = 30.0
_DRAIN_S = 60.0
# Sleeping is exact to this; the rest is waited for by looking at the clock.
_SPIN_S = 0.0002


@dataclass(frozen=True)
class Latencies:
    """In seconds; `lag_p99` is how late the client itself sent, `failed` which errors how many calls got."""

    calls: int
    rate: float
    failed: Mapping[str, int]
    p50: float
    p99: float
    lag_p99: float


def drive(port: int, requests: Sequence[bytes], due: NDArray[np.float64]) -> Latencies:
    """Sends serialised `requests` in turn at the times `due`, seconds from the start."""
    took, lag = LatencyHistogram(), LatencyHistogram()
    codes: Counter[str] = Counter()
    left, done = [len(due)], threading.Event()

    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        # Without serialisers: bytes in, bytes out.
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        call(requests[0], timeout=_CALL_S)
        start = time.perf_counter()

        def answered(intended: float) -> Any:
            def note(future: Any) -> None:  # on the channel's one thread
                took.record(time.perf_counter() - intended)
                codes[future.code().name] += 1
                left[0] -= 1
                if not left[0]:
                    done.set()

            return note

        for number, after in enumerate(due.tolist()):
            intended = start + after
            if (ahead := intended - time.perf_counter() - _SPIN_S) > 0:
                time.sleep(ahead)
            while (now := time.perf_counter()) < intended:
                pass
            lag.record(now - intended)
            call.future(requests[number % len(requests)], timeout=_CALL_S).add_done_callback(answered(intended))
        if not done.wait(_DRAIN_S):
            raise RuntimeError(f"{left[0]} calls were not answered within {_DRAIN_S:.0f} s")
    failed = {name: count for name, count in codes.items() if name != grpc.StatusCode.OK.name}
    return Latencies(len(due), len(due) / due[-1], failed, took.quantile(0.5), took.quantile(0.99), lag.quantile(0.99))
