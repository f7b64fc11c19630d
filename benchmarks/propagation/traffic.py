"""Steady requests to every replica, and what each answer says about the plan it was made with.

Open loop: each replica is asked at a fixed rate whatever became of earlier requests, the replicas one after another
within a period. Not here: the policies that are written meanwhile (`writes`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from benchmarks.propagation.triple import HISTORY
from recsae.rpc.client import channel
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc

_CALL_S = 10.0


@dataclass(frozen=True)
class Seen:
    """One answer of a replica: when it was asked for and had, on `time.perf_counter`, and which policies applied."""

    asked: float
    had: float
    plan_revision: int
    applied: frozenset[str]


class Traffic:
    """Asks every replica `rate` times a second until closed; keeps the answers since the last `forget`."""

    def __init__(self, ports: Sequence[int], rate: float) -> None:
        """Begins at once."""
        self._channels = [channel(f"127.0.0.1:{port}") for port in ports]
        self._stubs = [recommender_pb2_grpc.RecommenderStub(one) for one in self._channels]
        history = common_pb2.History(item_ids=[f"i-{item}" for item in range(1, HISTORY + 1)])
        self._request = recommender_pb2.RecommendRequest(history=history, k=10)
        self._gap = 1 / (rate * len(ports))
        self._changed = threading.Condition()
        self._answers: list[list[Seen]] = [[] for _ in ports]
        self._stop = threading.Event()
        self.failed = 0
        """Requests that were not answered; none may be."""
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._thread.start()

    def forget(self) -> None:
        """Drops the answers so far."""
        with self._changed:
            for answers in self._answers:
                answers.clear()

    def wait_until(self, holds: Callable[[Seen], bool], timeout_s: float) -> list[list[Seen]]:
        """The answers of each replica once `holds` was true of one of each; RuntimeError when it took longer."""

        def arrived() -> bool:
            return all(any(map(holds, answers)) for answers in self._answers)

        with self._changed:
            if not self._changed.wait_for(arrived, timeout_s):
                raise RuntimeError(f"a write was not live at every replica within {timeout_s:.0f} s")
            return [list(answers) for answers in self._answers]

    def close(self) -> None:
        """Stops asking."""
        self._stop.set()
        self._thread.join()
        for one in self._channels:
            one.close()

    def _run(self) -> None:
        start, number = time.perf_counter(), 0
        while not self._stop.wait(max(0.0, start + number * self._gap - time.perf_counter())):
            replica = number % len(self._stubs)
            call = self._stubs[replica].Recommend.future(self._request, timeout=_CALL_S)
            call.add_done_callback(self._noted(replica, time.perf_counter()))
            number += 1

    def _noted(self, replica: int, asked: float) -> Callable[[Any], None]:
        def note(call: Any) -> None:
            had = time.perf_counter()
            if call.code() is not grpc.StatusCode.OK:
                self.failed += 1
                return
            receipt = call.result().receipt
            seen = Seen(asked, had, receipt.plan_revision, frozenset(one.policy_id for one in receipt.applied))
            with self._changed:
                self._answers[replica].append(seen)
                self._changed.notify_all()

        return note
