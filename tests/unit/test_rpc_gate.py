"""The gate: who is recognised, what each role may call, and how much of it; without a server."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from recsae.errors import (
    FailedPreconditionError,
    InvalidRequestError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
)
from recsae.rpc.auth import Gate
from recsae.rpc.principals import NOBODY_ASKED, Principal, certificate_name, read_certificate_principals, read_tokens
from recsae.rpc.quotas import Limits, Quota
from recsae.rpc.roles import HEALTH, ROLES, Role, methods_of, require_roles
from recsae.v1 import interpreter_pb2, pipeline_pb2, recommender_pb2, steering_pb2

SECRET, OTHER = "s3cret-0123456789", "s3cret-9876543210"
READ, WRITE, PROMOTE = (
    "/recsae.v1.Steering/ListPolicies",
    "/recsae.v1.Steering/CreatePolicy",
    "/recsae.v1.Pipeline/Promote",
)
SERVICES = [
    service.full_name
    for module in (interpreter_pb2, pipeline_pb2, recommender_pb2, steering_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
]


def bearer(secret: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"x-request-id": "r", "authorization": f"{scheme} {secret}"}


def gate_of(*tokens: str, **limits: float) -> Gate:
    return Gate(read_tokens(tokens), limits=Limits(**limits))  # type: ignore[arg-type]


def test_every_rpc_of_the_contract_has_a_role_and_the_table_names_no_other() -> None:
    declared = {path for service in SERVICES for path in methods_of(service)}
    assert len(SERVICES) == 5
    assert {path for path in ROLES if path.startswith("/recsae.")} == declared


def test_what_changes_something_is_not_for_viewers_and_what_reads_is() -> None:
    changing = (
        *("Create", "Update", "Set", "Revert", "Delete", "Edit", "Observe", "Import", "Start", "Cancel"),
        *("Promote", "Rollback"),
    )
    writes = {path for path in ROLES if path.rpartition("/")[2].startswith(changing)}
    assert {path for path, role in ROLES.items() if role > Role.VIEWER} == writes
    admins = {path.rpartition("/")[2] for path, role in ROLES.items() if role is Role.ADMIN}
    assert admins == {"Promote", "Rollback", "ImportPolicies"}


def test_an_rpc_without_a_role_is_named_before_the_server_starts() -> None:
    service = descriptor_pb2.ServiceDescriptorProto(name="Unlisted")
    for name in ("Known", "Forgotten"):
        service.method.add(name=name, input_type=".unlisted.Nothing", output_type=".unlisted.Nothing")
    nothing = descriptor_pb2.DescriptorProto(name="Nothing")
    made = descriptor_pb2.FileDescriptorProto(
        name="unlisted.proto", package="unlisted", message_type=[nothing], service=[service]
    )
    descriptor_pool.Default().Add(made)
    with pytest.raises(FailedPreconditionError, match=r"/unlisted\.Unlisted/Known, /unlisted\.Unlisted/Forgotten"):
        require_roles([*SERVICES, HEALTH, "unlisted.Unlisted"])
    with pytest.raises(FailedPreconditionError, match=r"'no\.such\.Service' is not known"):
        require_roles(["no.such.Service"])
    require_roles([*SERVICES, HEALTH])


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_token_proves_its_principal_with_its_role(scheme: str) -> None:
    gate = gate_of(f"alice:operator:{SECRET}", f"bob:viewer:{OTHER}")
    for _ in range(2):  # recognised, then remembered
        assert gate.admit(WRITE, bearer(SECRET, scheme)) == Principal("alice", Role.OPERATOR)
        assert gate.admit(READ, bearer(OTHER, scheme)) == Principal("bob", Role.VIEWER)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"authorization": ""},
        {"authorization": SECRET},
        {"authorization": f"Basic {SECRET}"},
        bearer(""),
        bearer(SECRET[:-1]),
        bearer(SECRET + "0"),
        bearer(f"alice:operator:{SECRET}"),
        bearer("alice"),
    ],
    ids=["none", "empty", "no scheme", "basic", "no secret", "too short", "too long", "as in settings", "name"],
)
def test_anything_else_is_nobody_and_no_secret_is_repeated(metadata: dict[str, str]) -> None:
    gate = gate_of(f"alice:operator:{SECRET}")
    gate.admit(READ, bearer(SECRET))
    with pytest.raises(UnauthenticatedError) as refused:
        gate.admit(READ, metadata)
    assert "s3cret" not in str(refused.value)


def test_a_role_may_do_what_those_below_it_may_and_no_more() -> None:
    tokens = [f"{role}:{role}:{SECRET}{role}" for role in Role]
    gate = gate_of(*tokens)
    for role in Role:
        credentials = bearer(f"{SECRET}{role}")
        for method in (READ, WRITE, PROMOTE):
            if ROLES[method] <= role:
                assert gate.admit(method, credentials).role is role
                continue
            with pytest.raises(PermissionDeniedError, match=f"'{role}' is {role}, and {method} needs {ROLES[method]}"):
                gate.admit(method, credentials)


def test_an_unlisted_method_is_closed_even_to_admins() -> None:
    with pytest.raises(PermissionDeniedError, match="has no role"):
        gate_of(f"root:admin:{SECRET}").admit("/recsae.v1.Steering/New", bearer(SECRET))


def test_without_credentials_everybody_is_an_admin_called_anonymous() -> None:
    assert Gate().admit(PROMOTE, {}) == Gate().admit(PROMOTE, bearer(SECRET)) == NOBODY_ASKED


def test_a_certificate_alone_is_enough_and_a_token_that_is_sent_wins() -> None:
    gate = Gate(read_tokens([f"alice:viewer:{SECRET}"]), read_certificate_principals(["recommender=operator"]))
    assert gate.asks_certificate({})
    assert not gate.asks_certificate(bearer("wrong"))
    peer = {"transport_security_type": [b"ssl"], "x509_common_name": [b"recommender"]}
    assert gate.admit_peer(WRITE, peer) == Principal("recommender", Role.OPERATOR)
    with pytest.raises(PermissionDeniedError, match="'recommender' is operator"):
        gate.admit_peer(PROMOTE, peer)
    with pytest.raises(UnauthenticatedError, match="name 'stranger' is not one"):
        gate.admit_peer(READ, {"x509_common_name": [b"stranger"]})
    assert not Gate(read_tokens([f"alice:viewer:{SECRET}"])).asks_certificate({})


def test_a_certificates_name_is_its_common_name_else_its_first_alternative_name() -> None:
    names = {"x509_subject_alternative_name": [b"spiffe://mesh/recommender", b"other"]}
    assert certificate_name({"x509_common_name": [b"ops"], **names}) == "ops"
    assert certificate_name({"x509_common_name": [b""], **names}) == "spiffe://mesh/recommender"
    assert certificate_name({}) == ""


def test_a_name_has_one_role_over_tokens_and_certificates() -> None:
    with pytest.raises(InvalidRequestError, match="'ops' comes as viewer and as admin"):
        Gate(read_tokens([f"ops:viewer:{SECRET}"]), read_certificate_principals(["ops=admin"]))


def test_a_principal_over_its_rate_is_refused_and_nobody_else_is() -> None:
    refusals: list[tuple[str, str]] = []
    tokens = read_tokens([f"alice:operator:{SECRET}", f"bob:viewer:{OTHER}"])
    gate = Gate(tokens, limits=Limits(rate=0.001, burst=2), refused=lambda *one: refusals.append(one))
    for method in (READ, WRITE):
        gate.admit(method, bearer(SECRET))
    with pytest.raises(ResourceExhaustedError, match=r"'alice' makes more than 0\.001 calls a second"):
        gate.admit(READ, bearer(SECRET))
    gate.admit(READ, bearer(OTHER))
    assert refusals == [("alice", "rate")]


def test_a_refused_role_costs_nothing_of_the_allowance() -> None:
    gate = gate_of(f"bob:viewer:{OTHER}", rate=0.001, burst=1)
    with pytest.raises(PermissionDeniedError):
        gate.admit(WRITE, bearer(OTHER))
    gate.admit(READ, bearer(OTHER))


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def count_taken(quota: Quota, tries: int) -> int:
    taken = 0
    for _ in range(tries):
        try:
            quota.take()
            taken += 1
        except ResourceExhaustedError:
            pass
    return taken


def test_the_bucket_fills_at_the_rate_up_to_the_burst() -> None:
    clock = Clock()
    quota = Quota("alice", Limits(rate=8, burst=5), lambda *_: None, clock)
    assert count_taken(quota, 20) == 5
    clock.now += 0.3125
    assert count_taken(quota, 20) == 2  # and half a call is left over
    clock.now += 0.0625
    assert count_taken(quota, 20) == 1
    clock.now += 3600
    assert count_taken(quota, 20) == 5


def test_calls_held_are_counted_until_they_end_also_by_threads() -> None:
    refusals: list[tuple[str, str]] = []
    quota = Quota("alice", Limits(in_flight=3), lambda *one: refusals.append(one))
    held = threading.Barrier(9)
    outcomes: list[bool] = []

    def enter() -> None:
        try:
            quota.enter()
            outcomes.append(True)
        except ResourceExhaustedError:
            outcomes.append(False)
        held.wait(10)

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    held.wait(10)
    for thread in threads:
        thread.join(10)
    assert sorted(outcomes) == [False] * 5 + [True] * 3
    with pytest.raises(ResourceExhaustedError, match="3 calls in flight"):
        quota.take()
    assert refusals == [("alice", "in_flight")] * 6
    quota.leave()
    quota.take()
    assert quota.held == 2


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (lambda: read_tokens([SECRET]), "token 1 of 1 is not `name:role:secret`"),
        (lambda: read_tokens([f"a:viewer:{SECRET}", f"alice:{OTHER}"]), "token 2 of 2 is not"),
        (lambda: read_tokens([f"alice:owner:{SECRET}"]), "roles viewer, operator, admin"),
        (lambda: read_tokens([f"alice:Admin:{SECRET}"]), "roles viewer, operator, admin"),
        (lambda: read_tokens([f"a b:viewer:{SECRET}"]), "a name of letters, digits"),
        (lambda: read_tokens([f":viewer:{SECRET}"]), "a name of letters, digits"),
        (lambda: read_tokens([f"anonymous:viewer:{SECRET}"]), "token 1 of 1 is not"),
        (lambda: read_tokens(["alice:viewer:s3cret"]), "shorter than 16"),
        (lambda: read_tokens([f"alice:viewer:{SECRET}:x"]), "colon"),
        (lambda: read_tokens([f"a:viewer:{SECRET}", f"b:admin:{SECRET}"]), "two tokens have the same secret"),
        (lambda: read_tokens([f"a:viewer:{SECRET}", f"a:admin:{OTHER}"]), "'a' comes as viewer and as admin"),
        (lambda: read_certificate_principals(["ops"]), "'ops' is not `name=role`"),
        (lambda: read_certificate_principals(["ops=root"]), "roles viewer, operator, admin"),
        (lambda: read_certificate_principals(["=admin"]), "'=admin' is not `name=role`"),
        (lambda: read_certificate_principals(["a=viewer", "a=admin"]), "'a' comes as viewer and as admin"),
    ],
)
def test_credentials_of_another_form_are_refused_in_a_sentence_without_the_secret(
    read: Callable[[], object], says: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        read()
    assert says in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_principals_secret_is_changed_without_a_gap_by_two_secrets_for_a_while() -> None:
    gate = gate_of(f"alice:viewer:{SECRET}", f"alice:viewer:{OTHER}")
    assert gate.admit(READ, bearer(SECRET)) == gate.admit(READ, bearer(OTHER))
