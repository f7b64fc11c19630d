"""The plumbing every service stands on, over real sockets: ids, errors, auth, shedding, drain, TLS, metrics."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]
from tests.integration.small_server import MARKER, SERVICE, Running, get, health_of, small_servers, wait_until

from recsae.errors import ConflictError, FailedPreconditionError, NotFoundError
from recsae.rpc.client import ClientOptions
from recsae.rpc.server import build_server
from recsae.rpc.settings import ServiceSettings
from recsae.rpc.status import error_from
from recsae.telemetry.logging import configure_logging
from recsae.telemetry.metrics import MetricsServer, RpcMetrics, new_registry
from recsae.v1 import steering_pb2


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    with small_servers() as begin:
        yield begin


def test_request_id_and_trace_come_in_and_go_out(start: Callable[..., Running]) -> None:
    running = start()
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    _, call = running.stub().GetPolicy.with_call(
        get("p"), metadata=(("x-request-id", "req-7"), ("traceparent", trace)), timeout=5
    )
    assert dict(call.trailing_metadata())["x-request-id"] == "req-7"
    info = running.servicer.seen[0][0]
    assert (info.request_id, info.traceparent, info.method) == ("req-7", trace, f"/{SERVICE}/GetPolicy")
    assert 0 < info.deadline.remaining() < 5.1  # gRPC rounds a timeout up on its way


def test_malformed_request_id_is_replaced(start: Callable[..., Running]) -> None:
    running = start()
    _, call = running.stub().GetPolicy.with_call(get("p"), metadata=(("x-request-id", 'a" level="x'),), timeout=5)
    assert len(dict(call.trailing_metadata())["x-request-id"]) == 32


def test_call_without_deadline_is_given_one(start: Callable[..., Running]) -> None:
    running = start()
    running.stub(ClientOptions(timeout_s=3)).GetPolicy(get("p"))
    remaining = running.servicer.seen[0][0].deadline.remaining()
    assert remaining is not None
    assert remaining < 4  # 3 s, and what rounding on the way adds


def test_known_error_arrives_as_its_own_class_with_its_message(start: Callable[..., Running]) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        start().stub().GetPolicy(get("missing"), timeout=5)
    assert isinstance(failed.value, grpc.Call)
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND
    error = error_from(failed.value)
    assert isinstance(error, NotFoundError)
    assert str(error) == "no policy 'missing'; list them first"
    assert not isinstance(error, ConflictError)


def test_unforeseen_error_shows_only_the_request_id_and_the_log_has_no_user_data(
    start: Callable[..., Running],
) -> None:
    stream = io.StringIO()
    configure_logging("test", level="DEBUG", stream=stream)
    with pytest.raises(grpc.RpcError) as failed:
        start().stub().GetPolicy(get("broken"), metadata=(("x-request-id", "req-8"),), timeout=5)
    assert isinstance(failed.value, grpc.Call)
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    details = failed.value.details() or ""
    assert "req-8" in details
    assert "KeyError" not in details
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    logged = [line for line in lines if line["event"] == "call_failed"]
    assert [(line["request_id"], line["exception"]) for line in logged] == [("req-8", "KeyError")]
    assert any("GetPolicy" in place for place in logged[0]["places"])
    assert MARKER not in stream.getvalue() + details


def test_unimplemented_method_says_so(start: Callable[..., Running]) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        start().stub().ListAudit(steering_pb2.ListAuditRequest(), timeout=5)
    assert isinstance(failed.value, grpc.Call)
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_overload_is_refused_at_once_while_health_still_answers(start: Callable[..., Running]) -> None:
    running = start(max_workers=2, max_queue=1)
    stub = running.stub()
    held = [stub.GetPolicy.future(get("wait"), timeout=20) for _ in range(3)]
    for _ in range(2):
        assert running.servicer.entered.acquire(timeout=10)
    wait_until(lambda: running.server._lanes.unary.held == 3)
    with pytest.raises(grpc.RpcError) as failed:
        stub.GetPolicy(get("p"), timeout=5)
    assert isinstance(failed.value, grpc.Call)
    assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert health_of(running) == health_pb2.HealthCheckResponse.SERVING
    running.servicer.release.set()
    assert [future.result().policy.id for future in held] == ["wait"] * 3
    wait_until(lambda: running.server._lanes.unary.held == 0)
    assert stub.GetPolicy(get("p"), timeout=5).policy.id == "p"


def test_calls_cancelled_while_waiting_free_their_places(start: Callable[..., Running]) -> None:
    running = start(max_workers=1, max_queue=1)
    stub = running.stub()
    first = stub.GetPolicy.future(get("wait"), timeout=20)
    assert running.servicer.entered.acquire(timeout=10)
    second = stub.GetPolicy.future(get("p"), timeout=20)
    wait_until(lambda: running.server._lanes.unary.held == 2)
    second.cancel()
    running.servicer.release.set()
    first.result()
    wait_until(lambda: running.server._lanes.unary.held == 0)
    assert stub.GetPolicy(get("p"), timeout=5).policy.id == "p"


def test_open_streams_never_starve_unary_calls(start: Callable[..., Running]) -> None:
    running = start(max_workers=1, max_streams=2)
    stub = running.stub()
    streams = [stub.WatchPlans(steering_pb2.WatchPlansRequest(), timeout=30) for _ in range(2)]
    for stream in streams:
        assert next(stream).heartbeat.revision == 1
    assert stub.GetPolicy(get("p"), timeout=5).policy.id == "p"
    with pytest.raises(grpc.RpcError) as failed:
        next(stub.WatchPlans(steering_pb2.WatchPlansRequest(), timeout=5))
    assert isinstance(failed.value, grpc.Call)
    assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_drain_says_not_serving_then_finishes_calls_in_flight_and_ends_streams(start: Callable[..., Running]) -> None:
    running = start(drain_probe_s=0.5, drain_grace_s=20)
    stub = running.stub()
    stream = stub.WatchPlans(steering_pb2.WatchPlansRequest(), timeout=30)
    next(stream)
    watch = health_pb2_grpc.HealthStub(running.channel()).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    in_flight = stub.GetPolicy.future(get("wait"), timeout=20)
    assert running.servicer.entered.acquire(timeout=10)
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        drained = pool.submit(running.server.drain)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert stub.GetPolicy(get("late"), timeout=5).policy.id == "late"  # still served in the probe period
        assert list(stream) == []
        running.servicer.release.set()
        assert in_flight.result().policy.id == "wait"
        drained.result(timeout=10)
    assert time.monotonic() - began < 10  # neither the health watch nor the stream held it for the grace


def test_second_server_on_the_same_port_is_refused(start: Callable[..., Running]) -> None:
    running = start()
    second = build_server(ServiceSettings(port=running.server.port), RpcMetrics(new_registry()))
    with pytest.raises(FailedPreconditionError, match="another process may hold it"):
        second.start()


def test_health_is_per_service_and_reflection_lists_them(start: Callable[..., Running]) -> None:
    running = start()
    assert health_of(running, "") == health_of(running) == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as failed:
        health_of(running, "no.such.Service")
    assert isinstance(failed.value, grpc.Call)
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND
    stub = reflection_pb2_grpc.ServerReflectionStub(running.channel())
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    names = {one.name for one in next(stub.ServerReflectionInfo(iter([request]))).list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names


def test_metrics_count_calls_by_method_and_code(start: Callable[..., Running]) -> None:
    running = start()
    stub = running.stub()
    stub.GetPolicy(get(MARKER), timeout=5)
    with pytest.raises(grpc.RpcError):
        stub.GetPolicy(get("missing"), timeout=5)
    wait_until(lambda: running.server._lanes.unary.held == 0)
    exposition = MetricsServer(running.registry, 0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{exposition.port}/metrics", timeout=5) as reply:
            text = reply.read().decode()
    finally:
        exposition.close()
    method = f"/{SERVICE}/GetPolicy"
    assert f'recsae_rpc_requests_total{{code="OK",method="{method}"}} 1.0' in text
    assert f'recsae_rpc_requests_total{{code="NOT_FOUND",method="{method}"}} 1.0' in text
    assert f'recsae_rpc_duration_seconds_count{{method="{method}"}} 2.0' in text
    assert MARKER not in text


STOPPED_AT_ONCE = """
import os, signal, sys
from recsae.rpc.main import run_service
from recsae.rpc.settings import ServiceSettings

class App:
    def __init__(self, settings): pass
    def start(self): os.kill(os.getpid(), signal.SIGTERM)
    def stop(self): print("stopped", flush=True)

sys.exit(run_service("test", ServiceSettings, App))
"""


def test_a_service_told_to_stop_as_soon_as_it_is_ready_drains_all_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", STOPPED_AT_ONCE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, "stopped" in done.stdout) == (0, True)
