"""Samples of live activations: bounded, counted, sent by what they have in common, and never in anybody's way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import structlog
from structlog.testing import capture_logs

from recsae.rpc.tensors import from_tensor
from recsae.telemetry.event_log import event_log
from recsae.telemetry.observing import ActivationSampler, Sample
from recsae.v1 import interpreter_pb2, interpreter_pb2_grpc


class Interpreter(interpreter_pb2_grpc.InterpreterServicer):
    """Keeps what is observed; refuses while `refusing` is set."""

    def __init__(self) -> None:
        self.requests: list[interpreter_pb2.ObserveRequest] = []
        self.asked = threading.Event()
        self.refusing = False

    def Observe(
        self, request: interpreter_pb2.ObserveRequest, context: grpc.ServicerContext
    ) -> interpreter_pb2.ObserveResponse:
        self.asked.set()
        if self.refusing:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        self.requests.append(request)
        return interpreter_pb2.ObserveResponse()


@pytest.fixture
def interpreter() -> Iterator[tuple[Interpreter, grpc.Channel]]:
    servicer = Interpreter()  # type: ignore[abstract]  # what it leaves out is refused, as meant
    server = grpc.server(ThreadPoolExecutor(2))
    interpreter_pb2_grpc.add_InterpreterServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield servicer, channel
    server.stop(None).wait()


def sample(number: int, version: str = "v", *, steered: bool = False) -> Sample:
    return Sample("m", version, "h", np.full(3, number, np.float32), steered)


def test_rows_are_sent_by_version_with_what_was_steered(interpreter: tuple[Interpreter, grpc.Channel]) -> None:
    servicer, channel = interpreter
    sampler = ActivationSampler(channel, share=1.0)
    for one in (sample(1), sample(2, "w"), sample(3, steered=True)):
        sampler.offer(one)
    sampler.close()
    assert sampler.sent == 3
    found = {
        request.batch.model_version: (
            from_tensor(request.batch.activations, name="x")[:, 0].tolist(),
            from_tensor(request.steered, name="steered").tolist(),
        )
        for request in servicer.requests
    }
    assert found == {"v": ([1, 3], [False, True]), "w": ([2], [False])}
    assert all(not request.batch.subjects for request in servicer.requests)


def test_beyond_the_capacity_the_oldest_are_dropped_and_counted() -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        sampler = ActivationSampler(channel, share=1.0, capacity=2)
        for number in range(5):
            sampler.offer(sample(number))
        sampler.close()
    assert sampler.sent == 0
    assert sum(sampler.dropped.values()) == 5
    assert sampler.dropped["buffer_full"] >= 1


def test_refused_rows_are_dropped_and_counted_by_reason(interpreter: tuple[Interpreter, grpc.Channel]) -> None:
    servicer, channel = interpreter
    servicer.refusing = True
    sampler = ActivationSampler(channel, share=1.0)
    sampler.offer(sample(1))
    assert servicer.asked.wait(10)
    sampler.close()
    assert sampler.dropped == {"resource_exhausted": 1}


def test_a_share_of_the_rows_is_drawn(interpreter: tuple[Interpreter, grpc.Channel]) -> None:
    chances = iter([0.1, 0.9, 0.3, 0.29])
    sampler = ActivationSampler(interpreter[1], share=0.3, chance=lambda: next(chances))
    assert sampler.drawn(4) == [0, 3]
    sampler.close()


def test_without_a_configured_structlog_events_go_to_the_standard_librarys_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(structlog, "is_configured", lambda: False)
    with caplog.at_level(logging.INFO):
        event_log("recsae.x").warning("plan_stream_lost", model="m", exc_info=ValueError("u-17"))
    assert caplog.messages == ["plan_stream_lost model=m error=ValueError"]
    assert capsys.readouterr().out == ""
    monkeypatch.undo()
    with capture_logs() as logged:  # which configures structlog
        event_log("recsae.x").warning("plan_stream_lost", model="m")
    assert logged == [{"event": "plan_stream_lost", "log_level": "warning", "model": "m"}]
