"""Every RPC of a real interpreter and a real recommender: without credentials, with too low a role, with the right one.

The RPCs are found by asking the servers (reflection) and walking the descriptors, so that a new one is tested unasked.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]

from recsae.rpc.client import ClientOptions, channel
from recsae.rpc.roles import HEALTH, ROLES, Role
from recsae.v1 import interpreter_pb2, pipeline_pb2, recommender_pb2, steering_pb2

Start = Callable[..., Any]
Code = grpc.StatusCode
REFUSALS = {Code.UNAUTHENTICATED, Code.PERMISSION_DENIED}
CONTRACT = {
    service.full_name
    for module in (interpreter_pb2, pipeline_pb2, recommender_pb2, steering_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
}


Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Caller:
    """Somebody who calls a server."""

    channel: grpc.Channel
    metadata: Metadata = ()


def bearer(secret: str) -> Metadata:
    return (("authorization", f"Bearer {secret}"),)


def code_of(caller: Caller, method: Any) -> grpc.StatusCode:
    """The status of one call with an empty request; a stream is asked for its first message."""
    opened, said = caller.channel, caller.metadata
    kind = message_factory.GetMessageClass(method.input_type)
    path = f"/{method.containing_service.full_name}/{method.name}"
    arguments = (kind.SerializeToString, message_factory.GetMessageClass(method.output_type).FromString)
    try:
        if method.client_streaming:
            next(opened.stream_stream(path, *arguments)(iter([kind()]), metadata=said, timeout=10))
        elif method.server_streaming:
            stream = opened.unary_stream(path, *arguments)(kind(), metadata=said, timeout=10)
            next(stream)
            stream.cancel()
        else:
            opened.unary_unary(path, *arguments)(kind(), metadata=said, timeout=10)
    except StopIteration:
        pass
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return Code.OK


def methods_of(caller: Caller) -> list[Any]:
    """Descriptors of every method the server has, by its own word."""
    stub = reflection_pb2_grpc.ServerReflectionStub(caller.channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    answers = stub.ServerReflectionInfo(asked, metadata=caller.metadata, timeout=10)
    names = [service.name for service in next(answers).list_services_response.service]
    found = descriptor_pool.Default()
    return [method for name in names for method in found.FindServiceByName(name).methods]


def wrongly_answered(stranger: Caller, callers: dict[Role, Caller]) -> tuple[set[str], dict[str, str]]:
    """The services walked, and what came instead where a method answered somebody other than its role says."""
    wrong: dict[str, str] = {}
    methods = methods_of(callers[Role.VIEWER])
    for method in methods:
        path = f"/{method.containing_service.full_name}/{method.name}"
        if method.containing_service.full_name == HEALTH:
            continue
        if (code := code_of(stranger, method)) is not Code.UNAUTHENTICATED:
            wrong[f"{path} without credentials"] = code.name
        for role, caller in callers.items():
            code = code_of(caller, method)
            right = code not in REFUSALS if role >= ROLES[path] else code is Code.PERMISSION_DENIED
            if not right:
                wrong[f"{path} by a {role}"] = code.name
    return {method.containing_service.full_name for method in methods}, wrong


def test_every_rpc_asks_for_a_token_and_for_its_role(
    start_interpreter: Start, start_recommender: Start, promote: Start
) -> None:
    promote(0)
    secrets = {role: f"secret-of-the-{role}" for role in Role}
    tokens = ",".join(f"a-{role}:{role}:{secret}" for role, secret in secrets.items())
    recommender = start_recommender(tokens=tokens, interpreter="")
    interpreter = start_interpreter(
        tokens=tokens,
        recommenders=f"127.0.0.1:{recommender.server.port}",
        peer_token=secrets[Role.VIEWER],
    )
    walked: set[str] = set()
    for app in (interpreter, recommender):
        with channel(f"127.0.0.1:{app.server.port}") as opened:
            callers = {role: Caller(opened, bearer(secret)) for role, secret in secrets.items()}
            services, wrong = wrongly_answered(Caller(opened), callers)
            walked |= services
            assert wrong == {}
            health = health_pb2_grpc.HealthStub(opened)
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=10).status == 1
            assert next(health.Watch(health_pb2.HealthCheckRequest(), timeout=10)).status == 1
    assert walked >= CONTRACT | {HEALTH, "grpc.reflection.v1alpha.ServerReflection"}


class Authority:
    """A certificate authority and the certificates it gives."""

    def __init__(self, folder: Path, openssl: str) -> None:
        self._folder, self._openssl = folder, openssl
        self.ca = folder / "ca.pem"
        self._make("req", "-x509", *self._new("ca"), "-subj", "/CN=a test's authority", "-out", str(self.ca))

    def issue(self, name: str, subject: str, alternative: str = "") -> tuple[Path, Path]:
        """Certificate and key."""
        certificate = self._folder / f"{name}.pem"
        names = ("-addext", f"subjectAltName={alternative}") if alternative else ()
        signed = ("-CA", str(self.ca), "-CAkey", str(self._folder / "ca.key"))
        self._make("req", "-x509", *self._new(name), "-subj", subject, *names, *signed, "-out", str(certificate))
        return certificate, self._folder / f"{name}.key"

    def options(self, name: str, subject: str, alternative: str = "") -> ClientOptions:
        """How the holder of a new certificate calls."""
        certificate, key = self.issue(name, subject, alternative)
        return ClientOptions(ca=self.ca, certificate=certificate, key=key)

    def _new(self, name: str) -> tuple[str, ...]:
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        return *key, "-keyout", str(self._folder / f"{name}.key"), "-days", "2"

    def _make(self, *arguments: str) -> None:
        subprocess.run([self._openssl, *arguments], check=True, capture_output=True)


@pytest.fixture
def authority(tmp_path: Path, require_binary: Callable[[str, str], str]) -> Authority:
    return Authority(tmp_path, require_binary("openssl", "apt-get install openssl"))


@pytest.fixture
def secured(
    start_interpreter: Start, promote: Start, authority: Authority
) -> Iterator[Callable[[ClientOptions], Caller]]:
    """Starts an interpreter that knows four holders of certificates by name and one by token; opens channels to it."""
    promote(0)
    opened: list[grpc.Channel] = []
    certificate, key = authority.issue("server", "/CN=server", "IP:127.0.0.1")
    app = start_interpreter(
        tls_cert=certificate,
        tls_key=key,
        tls_client_ca=authority.ca,
        tls_principals="reader=viewer,ops=operator,chief=admin,spiffe://mesh.example/watcher=viewer",
        tokens="alice:operator:secret-of-the-operator",
    )

    def open_(options: ClientOptions) -> Caller:
        opened.append(channel(f"127.0.0.1:{app.server.port}", options))
        return Caller(opened[-1])

    yield open_
    for one in opened:
        one.close()


def test_every_rpc_asks_for_a_certificate_and_for_the_role_of_its_name(
    secured: Callable[[ClientOptions], Caller], authority: Authority
) -> None:
    names = {Role.VIEWER: "reader", Role.OPERATOR: "ops", Role.ADMIN: "chief"}
    callers = {role: secured(authority.options(name, f"/CN={name}")) for role, name in names.items()}
    stranger = secured(authority.options("stranger", "/CN=stranger"))
    services, wrong = wrongly_answered(stranger, callers)
    assert services >= {"recsae.v1.Interpreter", "recsae.v1.Steering", "recsae.v1.Pipeline"}
    assert wrong == {}


def test_the_certificates_holder_is_the_audits_actor_and_a_token_that_is_sent_wins(
    secured: Callable[[ClientOptions], Caller], authority: Authority
) -> None:
    steering = steering_pb2.DESCRIPTOR.services_by_name["Steering"].methods_by_name
    opened = secured(authority.options("ops", "/CN=ops")).channel
    edit = interpreter_pb2.EditConceptRequest(concept_id="c-0-1", label="Named", reason="a better name")
    call = opened.unary_unary(
        "/recsae.v1.Interpreter/EditConcept",
        interpreter_pb2.EditConceptRequest.SerializeToString,
        interpreter_pb2.EditConceptResponse.FromString,
    )
    listing = opened.unary_unary(
        "/recsae.v1.Steering/ListAudit",
        steering_pb2.ListAuditRequest.SerializeToString,
        steering_pb2.ListAuditResponse.FromString,
    )
    call(edit, timeout=10)
    edit.label = "Named again"
    call(edit, metadata=bearer("secret-of-the-operator"), timeout=10)
    actors = [event.actor for event in listing(steering_pb2.ListAuditRequest(), timeout=10).events]
    assert actors[:2] == ["alice", "ops"]
    with pytest.raises(grpc.RpcError) as failed:
        listing(steering_pb2.ListAuditRequest(), metadata=bearer("wrong"), timeout=10)
    assert isinstance(failed.value, grpc.Call)
    assert failed.value.code() is Code.UNAUTHENTICATED
    nameless = secured(authority.options("watcher", "/", "URI:spiffe://mesh.example/watcher"))
    assert code_of(nameless, steering["ListPolicies"]) is Code.OK
    assert code_of(nameless, steering["SetKillSwitch"]) is Code.PERMISSION_DENIED
    for bare in (ClientOptions(ca=authority.ca), ClientOptions()):
        assert code_of(secured(bare), steering["ListPolicies"]) is Code.UNAVAILABLE
