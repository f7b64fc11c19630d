"""A sample of live activations on its way to the interpreter's `Observe`, from the background, for drift.

It drops and counts, it never blocks and never fails a request. Rows carry no user: nothing about whom they belong
to leaves the process here.
"""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import grpc
import numpy as np
from numpy.typing import NDArray

from recsae.rpc.tensors import to_tensor
from recsae.telemetry.event_log import event_log
from recsae.v1 import common_pb2, interpreter_pb2, interpreter_pb2_grpc

_log = event_log(__name__)

_MOST_ROWS = 512
_PERIOD_S = 0.25
_TIMEOUT_S = 2.0
_LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True)
class Sample:
    """One activation float32 [d] as the model computed it (before steering), and whether its request was steered."""

    model: str
    model_version: str
    hook: str
    activation: NDArray[np.float32]
    steered: bool

    @property
    def source(self) -> tuple[str, str, str]:
        """What the rows of one batch have in common."""
        return self.model, self.model_version, self.hook


class ActivationSampler:
    """A bounded ring of samples and the thread that sends them."""

    def __init__(
        self,
        channel: grpc.Channel,
        *,
        share: float,
        capacity: int = 4_096,
        chance: Callable[[], float] = random.random,
        on_sent: Callable[[int], None] = lambda rows: None,
        on_dropped: Callable[[str, int], None] = lambda reason, rows: None,
    ) -> None:
        """Samples `share` of the rows asked about; holds `capacity` rows and drops the oldest beyond.

        `on_sent` and `on_dropped` hear what the counts of this object count: rows, and why they were dropped.
        """
        self._on_sent, self._on_dropped = on_sent, on_dropped
        self._stub = interpreter_pb2_grpc.InterpreterStub(channel)
        self._share = share
        self._chance = chance
        self._capacity = capacity
        self._ring: deque[Sample] = deque()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._failures = 0
        self.sent = 0
        """Rows the interpreter took."""
        self.dropped: Counter[str] = Counter()
        """Rows dropped, by reason: `buffer_full` or the status of the call that failed."""
        self._thread = threading.Thread(target=self._run, name="recsae-sampler", daemon=True)
        self._thread.start()

    def drawn(self, rows: int) -> list[int]:
        """Which of `rows` rows to offer: each with probability `share`."""
        return [row for row in range(rows) if self._chance() < self._share]

    def offer(self, sample: Sample) -> None:
        """Takes the sample; takes microseconds and never raises."""
        with self._lock:
            self._ring.append(sample)
            if len(self._ring) > self._capacity:
                self._ring.popleft()
                self._drop("buffer_full", 1)

    def close(self) -> None:
        """Sends what is held once more and ends the thread."""
        self._stop.set()
        self._thread.join(timeout=_TIMEOUT_S * 2)

    def _drop(self, reason: str, rows: int) -> None:
        self.dropped[reason] += rows
        self._on_dropped(reason, rows)

    def _run(self) -> None:
        while not self._stop.wait(min(_PERIOD_S * 2**self._failures, _LONGEST_PAUSE_S)):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        """Sends all that is held; after a failure the rest waits for the next turn."""
        while samples := self._take():
            for _, rows in groupby(sorted(samples, key=lambda one: one.source), key=lambda one: one.source):
                self._send(list(rows))
            if self._failures:
                return

    def _take(self) -> list[Sample]:
        with self._lock:
            return [self._ring.popleft() for _ in range(min(len(self._ring), _MOST_ROWS))]

    def _send(self, samples: list[Sample]) -> None:
        try:
            self._stub.Observe(_request(samples), timeout=_TIMEOUT_S)
        except Exception as error:
            reason = error.code().name.lower() if isinstance(error, grpc.Call) else "error"
            self._drop(reason, len(samples))
            if not self._failures:
                _log.warning("observe_failed", reason=reason)
            self._failures = min(self._failures + 1, 8)
        else:
            self.sent += len(samples)
            self._on_sent(len(samples))
            self._failures = 0


def _request(samples: list[Sample]) -> interpreter_pb2.ObserveRequest:
    first = samples[0]
    return interpreter_pb2.ObserveRequest(
        batch=common_pb2.ActivationBatch(
            model=first.model,
            model_version=first.model_version,
            hook=first.hook,
            side=common_pb2.SIDE_USER,
            activations=to_tensor(np.stack([sample.activation for sample in samples])),
        ),
        steered=to_tensor(np.array([sample.steered for sample in samples], dtype=np.bool_)),
        batch_id=uuid.uuid4().hex,
    )
