"""The plumbing every service stands on, over real sockets: ids, errors, auth, shedding, drain, TLS, metrics."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]

from recsae.errors import ConflictError, FailedPreconditionError, NotFoundError, UnauthenticatedError
from recsae.rpc.client import ClientOptions, channel
from recsae.rpc.request import current_request
from recsae.rpc.roles import Role
from recsae.rpc.server import RpcServer, build_server
from recsae.rpc.settings import ServiceSettings
from recsae.rpc.status import error_from
from recsae.telemetry.logging import configure_logging
from recsae.telemetry.metrics import MetricsServer, RpcMetrics, new_registry
from recsae.v1 import steering_pb2, steering_pb2_grpc

SERVICE = "recsae.v1.Steering"
MARKER = "user-marker-4711"


class Steering(steering_pb2_grpc.SteeringServicer):
    """A small real servicer whose behaviour a test chooses by the policy id."""

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


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(**values: Any) -> Running:
        registry = new_registry()
        settings = ServiceSettings(**({"drain_probe_s": 0, "drain_grace_s": 5} | values))
        server = build_server(settings, RpcMetrics(registry))
        servicer = Steering()  # type: ignore[abstract]  # the methods left out answer UNIMPLEMENTED
        servicer.draining = server.draining
        server.add(steering_pb2_grpc.add_SteeringServicer_to_server, servicer, SERVICE)
        server.start()
        server.mark_ready()
        running.append(Running(server, servicer, registry))
        return running[-1]

    yield begin
    for one in running:
        one.servicer.release.set()
        one.server.drain()
        for opened in one.channels:
            opened.close()


def health_of(running: Running, service: str = SERVICE) -> int:
    stub = health_pb2_grpc.HealthStub(running.channel())
    return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status)


def get(policy_id: str) -> steering_pb2.GetPolicyRequest:
    return steering_pb2.GetPolicyRequest(policy_id=policy_id)


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


def test_token_is_demanded_of_everyone_but_health_checks(start: Callable[..., Running]) -> None:
    running = start(tokens="alice:viewer:0123456789abcdef")
    for options in (ClientOptions(), ClientOptions(token="0123456789abcdeX")):
        with pytest.raises(grpc.RpcError) as failed:
            running.stub(options).GetPolicy(get("p"), timeout=5)
        assert isinstance(error_from(failed.value), UnauthenticatedError)
    assert running.servicer.seen == []
    assert health_of(running) == health_pb2.HealthCheckResponse.SERVING
    running.stub(ClientOptions(token="0123456789abcdef")).GetPolicy(get("p"), timeout=5)
    assert running.servicer.seen[0][0].principal == "alice"


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    """Status and sentence of a call that fails."""
    with pytest.raises(grpc.RpcError) as failed:
        call()
    assert isinstance(failed.value, grpc.Call)
    return failed.value.code(), failed.value.details() or ""


def test_handlers_know_the_principal_and_its_role(start: Callable[..., Running]) -> None:
    running = start(tokens="alice:viewer:0123456789abcdef,bob:admin:fedcba9876543210")
    for secret in ("0123456789abcdef", "fedcba9876543210"):
        running.stub(ClientOptions(token=secret)).GetPolicy(get("p"), timeout=5)
    known = [(info.principal, info.role) for info, _ in running.servicer.seen]
    assert known == [("alice", Role.VIEWER), ("bob", Role.ADMIN)]
    create = running.stub(ClientOptions(token="0123456789abcdef")).CreatePolicy
    code, sentence = refused(lambda: create(steering_pb2.CreatePolicyRequest(), timeout=5))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "principal 'alice' is viewer" in sentence
    assert "needs operator" in sentence


def test_a_principal_over_its_rate_is_refused_while_others_and_health_are_answered(
    start: Callable[..., Running],
) -> None:
    running = start(
        tokens="alice:viewer:0123456789abcdef,bob:viewer:fedcba9876543210", principal_rate=0.001, principal_burst=2
    )
    alice, bob = (running.stub(ClientOptions(token=one)) for one in ("0123456789abcdef", "fedcba9876543210"))
    for _ in range(2):
        alice.GetPolicy(get("p"), timeout=5)
    code, sentence = refused(lambda: alice.GetPolicy(get("p"), timeout=5))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "'alice' makes more than 0.001 calls a second" in sentence
    bob.GetPolicy(get("p"), timeout=5)
    assert {health_of(running) for _ in range(5)} == {health_pb2.HealthCheckResponse.SERVING}
    limited = running.registry.get_sample_value("recsae_rpc_limited_total", {"principal": "alice", "limit": "rate"})
    assert limited == 1


def test_a_principal_holds_no_more_calls_than_it_may_and_gets_its_places_back(start: Callable[..., Running]) -> None:
    running = start(tokens="alice:viewer:0123456789abcdef,bob:viewer:fedcba9876543210", principal_in_flight=2)
    alice, bob = (running.stub(ClientOptions(token=one)) for one in ("0123456789abcdef", "fedcba9876543210"))
    held = alice.GetPolicy.future(get("wait"), timeout=20)
    stream = alice.WatchPlans(steering_pb2.WatchPlansRequest(), timeout=30)
    next(stream)
    assert running.servicer.entered.acquire(timeout=10)
    code, sentence = refused(lambda: alice.GetPolicy(get("p"), timeout=5))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "2 calls in flight" in sentence
    bob.GetPolicy(get("p"), timeout=5)
    running.servicer.release.set()
    held.result()
    wait_until(lambda: running.server._lanes.unary.held == 0)
    alice.GetPolicy(get("p"), timeout=5)
    running.servicer.draining.set()
    assert list(stream) == []
    running.servicer.draining.clear()
    wait_until(lambda: running.server._lanes.streams.held == 0)
    streams = [alice.WatchPlans(steering_pb2.WatchPlansRequest(), timeout=30) for _ in range(2)]
    for one in streams:
        next(one)


def test_a_server_with_an_rpc_without_a_role_does_not_start() -> None:
    service = descriptor_pb2.ServiceDescriptorProto(name="Unlisted")
    service.method.add(name="Forgotten", input_type=".recsae.v1.Policy", output_type=".recsae.v1.Policy")
    made = descriptor_pb2.FileDescriptorProto(
        name="started_unlisted.proto",
        package="started",
        dependency=[steering_pb2.DESCRIPTOR.name],
        service=[service],
    )
    descriptor_pool.Default().Add(made)
    server = build_server(ServiceSettings(), RpcMetrics(new_registry()))
    server.add(lambda _servicer, _server: None, object(), "started.Unlisted")
    with pytest.raises(FailedPreconditionError, match=r"no role is written down for /started\.Unlisted/Forgotten"):
        server.start()
    assert server.port == 0


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


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command: apt-get install openssl")
def test_mutual_tls_admits_only_holders_of_a_certificate(start: Callable[..., Running], tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    running = start(tls_cert=certificate, tls_key=key, tls_client_ca=certificate)
    known = ClientOptions(ca=certificate, certificate=certificate, key=key)
    assert running.stub(known).GetPolicy(get("p"), timeout=5).policy.id == "p"
    for stranger in (ClientOptions(ca=certificate), ClientOptions()):
        with pytest.raises(grpc.RpcError) as failed:
            running.stub(stranger).GetPolicy(get("p"), timeout=5)
        assert isinstance(failed.value, grpc.Call)
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


def wait_until(claim: Callable[[], bool], seconds: float = 10) -> None:
    """Polls for facts that only the server's internals tell."""
    until = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < until, "it never became true"
        time.sleep(0.002)
