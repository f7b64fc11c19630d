"""Roles: what a principal may do, from least to most. Which RPC needs which role is the table here, and only here.

A server refuses to start with an RPC that is not in the table (`require_roles`), so that a new one is never open by
oversight. Not here: who has which role (`recsae.rpc.principals`) and where it is checked (`recsae.rpc.auth`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum

from google.protobuf import descriptor_pool

from recsae.errors import FailedPreconditionError


class Role(IntEnum):
    """Each role may do what those below it may."""

    VIEWER = 1
    """Reads: lists, explanations, previews, recommendations, activations."""
    OPERATOR = 2
    """Changes what can be undone at once: policies, kill switches, labels, runs."""
    ADMIN = 3
    """Everything: promotions, imports, policies outside their safe range."""

    def __str__(self) -> str:
        """As settings write it."""
        return self.name.lower()


HEALTH = "grpc.health.v1.Health"
"""Asked by load balancers and probes, which have no credentials: everyone may."""

_NEEDED: Mapping[str, Mapping[Role, tuple[str, ...]]] = {
    "recsae.v1.Recommender": {Role.VIEWER: ("Recommend", "Rank")},
    "recsae.v1.ActivationExporter": {Role.VIEWER: ("GetModel", "Embed", "ExportActivations", "ExportItems")},
    "recsae.v1.Interpreter": {
        Role.VIEWER: (
            *("Explain", "Encode", "ListConcepts", "GetConcept", "SearchConcepts", "CompareGroups"),
            *("ListHandles", "ListLabelEdits", "GetLineage"),
        ),
        Role.OPERATOR: ("EditConcept", "Observe"),
    },
    "recsae.v1.Steering": {
        Role.VIEWER: (
            *("GetPolicy", "ListPolicies", "ListPolicyRevisions", "ResolvePolicies", "ListKillSwitches", "ListAudit"),
            *("Preview", "PreviewPanel", "Steer", "WatchPlans", "GetEncoder"),
        ),
        Role.OPERATOR: (
            *("CreatePolicy", "UpdatePolicy", "SetPolicyState", "RevertPolicy", "DeletePolicy", "SetKillSwitch"),
        ),
        Role.ADMIN: ("ImportPolicies",),
    },
    "recsae.v1.Pipeline": {
        Role.VIEWER: ("GetRun", "ListRuns", "GetChannels"),
        Role.OPERATOR: ("StartRefresh", "StartSweep", "CancelRun"),
        Role.ADMIN: ("Promote", "Rollback"),
    },
    "grpc.reflection.v1alpha.ServerReflection": {Role.VIEWER: ("ServerReflectionInfo",)},
}

ROLES: Mapping[str, Role] = {
    f"/{service}/{method}": role
    for service, roles in _NEEDED.items()
    for role, methods in roles.items()
    for method in methods
}
"""The least role of each RPC, by its path (`/package.Service/Method`)."""


def methods_of(service: str) -> tuple[str, ...]:
    """Paths of the RPCs of a service, by its full name; FailedPreconditionError when its descriptor is not loaded."""
    try:
        described = descriptor_pool.Default().FindServiceByName(service)
    except KeyError as error:
        raise FailedPreconditionError(f"service {service!r} is not known here; import its generated module") from error
    return tuple(f"/{service}/{method.name}" for method in described.methods)


def require_roles(services: Iterable[str]) -> None:
    """FailedPreconditionError naming the RPCs of these services that have no role."""
    missing = [path for service in services if service != HEALTH for path in methods_of(service) if path not in ROLES]
    if missing:
        raise FailedPreconditionError(
            f"no role is written down for {', '.join(missing)}: put each into the table of recsae.rpc.roles"
        )
