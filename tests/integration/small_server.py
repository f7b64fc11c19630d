"""A small service on a real server: a servicer whose behaviour a test chooses by the policy id, and its clients."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from recsae.errors import NotFoundError
from recsae.rpc.client import ClientOptions, channel
from recsae.rpc.lanes import AnyLane
from recsae.rpc.request import current_request
from recsae.rpc.server import RpcServer, build_server
from recsae.rpc.settings import ServiceSettings
from recsae.telemetry.metrics import RpcMetrics, new_registry
from recsae.v1 import steering_pb2, steering_pb2_grpc

SERVICE = "recsae.v1.Steering"
MARKER = "user-marker-4711"


class Steering(steering_pb2_grpc.SteeringServicer):
    """What it answers depends on the policy id: missing, broken, wait, or anything else."""

    def __init__(self) -> None:
        self.draining = threading.Event()
        self.release = threading.Event()
        self.entered = threading.Semaphore(0)
        self.seen: list[Any] = []

    def GetPolicy(
        self, request: steering_pb2.GetPolicyRequest, context: grpc.ServicerContext
    ) -> steering_pb2.GetPolicyResponse:
        self.seen.append((current_request(), context.invocation_metadata()))
        if request.policy_id == "missing":
            raise NotFoundError("no policy 'missing'; list them first")
        if request.policy_id == "broken":
            raise KeyError(MARKER)
        if request.policy_id == "wait":
            self.entered.release()
            self.release.wait(30)
        return steering_pb2.GetPolicyResponse(policy=steering_pb2.Policy(id=request.policy_id))

    def WatchPlans(
        self, request: steering_pb2.WatchPlansRequest, context: grpc.ServicerContext
    ) -> Iterator[steering_pb2.WatchPlansResponse]:
        yield steering_pb2.WatchPlansResponse(heartbeat=steering_pb2.PlanHeartbeat(revision=1))
        self.draining.wait(30)


@dataclass
class Running:
    server: RpcServer
    servicer: Steering
    registry: Any
    channels: list[grpc.Channel] = field(default_factory=list)

    def channel(self, options: ClientOptions | None = None) -> grpc.Channel:
        made = channel(f"127.0.0.1:{self.server.port}", options)
        self.channels.append(made)
        return made

    def stub(self, options: ClientOptions | None = None) -> steering_pb2_grpc.SteeringStub:
        return steering_pb2_grpc.SteeringStub(self.channel(options))


@contextmanager
def small_servers() -> Iterator[Callable[..., Running]]:
    """A function that starts servers in this process; keyword arguments but these two are settings."""
    running: list[Running] = []

    def begin(
        *, lanes: Mapping[str, AnyLane] | None = None, servicer: Steering | None = None, **values: Any
    ) -> Running:
        registry = new_registry()
        settings = ServiceSettings(**({"drain_probe_s": 0, "drain_grace_s": 5} | values))
        server = build_server(settings, RpcMetrics(registry))
        servicer = servicer or Steering()  # type: ignore[abstract]  # the methods left out answer UNIMPLEMENTED
        servicer.draining = server.draining
        server.add(steering_pb2_grpc.add_SteeringServicer_to_server, servicer, SERVICE, lanes)
        server.start()
        server.mark_ready()
        running.append(Running(server, servicer, registry))
        return running[-1]

    try:
        yield begin
    finally:
        for one in running:
            one.servicer.release.set()
            one.server.drain()
            for opened in one.channels:
                opened.close()


@contextmanager
def silent_calls(running: Running, path: str, count: int) -> Iterator[None]:
    """Unary calls whose headers came and whose message does not, until the end of the block."""
    over, begun = threading.Event(), threading.Semaphore(0)

    def nothing() -> Iterator[bytes]:
        begun.release()
        over.wait(20)
        yield b""

    with grpc.insecure_channel(f"127.0.0.1:{running.server.port}") as raw:
        begin: grpc.StreamUnaryMultiCallable[bytes, bytes] = raw.stream_unary(path)
        calls = [begin.future(nothing(), timeout=20) for _ in range(count)]
        for _ in calls:
            assert begun.acquire(timeout=10)
        yield
        over.set()
        for call in calls:
            call.cancel()


def health_of(running: Running, service: str = SERVICE) -> int:
    stub = health_pb2_grpc.HealthStub(running.channel())
    return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status)


def get(policy_id: str) -> steering_pb2.GetPolicyRequest:
    return steering_pb2.GetPolicyRequest(policy_id=policy_id)


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    """Status and sentence of a call that fails."""
    with pytest.raises(grpc.RpcError) as failed:
        call()
    assert isinstance(failed.value, grpc.Call)
    return failed.value.code(), failed.value.details() or ""


def wait_until(claim: Callable[[], bool], seconds: float = 10) -> None:
    """Polls for facts that only the server's internals tell."""
    until = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < until, "it never became true"
        time.sleep(0.002)
