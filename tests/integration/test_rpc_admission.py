"""Who gets in, over real sockets: tokens, roles, client certificates and limits of principals."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]
from tests.integration.small_server import (
    SERVICE,
    Running,
    get,
    health_of,
    refused,
    silent_calls,
    small_servers,
    wait_until,
)

from recsae.errors import FailedPreconditionError, UnauthenticatedError
from recsae.rpc.client import ClientOptions
from recsae.rpc.roles import Role
from recsae.rpc.server import build_server
from recsae.rpc.settings import ServiceSettings
from recsae.rpc.status import error_from
from recsae.telemetry.metrics import RpcMetrics, new_registry
from recsae.v1 import steering_pb2


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    with small_servers() as begin:
        yield begin


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


@pytest.mark.parametrize(
    ("path", "calls"),
    [(f"/{SERVICE}/GetPolicy", 100), (f"/{SERVICE}/WatchPlans", 100), ("/grpc.health.v1.Health/Check", 8)],
)
def test_calls_whose_message_never_comes_keep_nobody_without_a_token_from_health_checks(
    start: Callable[..., Running], path: str, calls: int
) -> None:
    running = start(tokens="alice:viewer:0123456789abcdef")
    with silent_calls(running, path, calls):
        assert health_of(running) == health_pb2.HealthCheckResponse.SERVING
        code, _ = refused(lambda: running.stub().GetPolicy(get("p"), timeout=5))
        assert code is grpc.StatusCode.UNAUTHENTICATED


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
