"""`recsae steer list | show | revisions | why`: policies as they are, as they were, and which of them win."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from recsae.cli import policy_views, resolution_views
from recsae.cli.context import JsonFlag, ModelName, Platform, context_of
from recsae.cli.output import console, print_json
from recsae.cli.policy_windows import parse_time
from recsae.cli.subjects import attribute_values
from recsae.v1 import steering_pb2

PolicyId = Annotated[str, typer.Argument(help="Policy id, see `recsae steer list`")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `recsae steer`."""
    app.command(name="list")(list_)
    for command in (show, revisions, why):
        app.command()(command)


def list_(
    ctx: typer.Context,
    model: ModelName = "",
    ended: Annotated[bool, typer.Option("--ended", help="Reverted and expired ones too")] = False,
    json: JsonFlag = False,
) -> None:
    """List policies, and say when a kill switch is on.

    Examples: [bold]recsae steer list[/] · [bold]recsae steer list --ended --json[/]
    """
    platform = context_of(ctx).platform
    request = steering_pb2.ListPoliciesRequest(model=model, include_ended=ended)
    reply = platform.call(platform.steering.ListPolicies, request)
    if json:
        print_json(reply)
        return
    console.print(policy_views.with_banner(switches_of(platform), policy_views.policies(reply.policies)))


def show(ctx: typer.Context, policy_id: PolicyId, json: JsonFlag = False) -> None:
    """Show everything about one policy.

    Example: [bold]recsae steer show p-01h2[/]
    """
    platform = context_of(ctx).platform
    reply = platform.call(platform.steering.GetPolicy, steering_pb2.GetPolicyRequest(policy_id=policy_id))
    if json:
        print_json(reply.policy)
        return
    mine = [one for one in switches_of(platform) if one.model in ("", reply.policy.model)]
    console.print(policy_views.with_banner(mine, policy_views.policy_detail(reply.policy)))


def revisions(ctx: typer.Context, policy_id: PolicyId, json: JsonFlag = False) -> None:
    """Show what a policy said before: what `recsae steer revert` can bring back.

    Example: [bold]recsae steer revisions p-01h2[/]
    """
    platform = context_of(ctx).platform
    request = steering_pb2.ListPolicyRevisionsRequest(policy_id=policy_id)
    reply = platform.call(platform.steering.ListPolicyRevisions, request)
    print_json(reply) if json else console.print(policy_views.revisions(reply.revisions))


def why(
    ctx: typer.Context,
    user: Annotated[str, typer.Argument(help="User id; leave out for a request without one")] = "",
    attribute: Annotated[
        list[str] | None, typer.Option("--attribute", help="NAME=VALUE of the request or the user; repeatable")
    ] = None,
    request_id: Annotated[str, typer.Option(help="Request id: the rollout key when there is no user")] = "",
    at: Annotated[str | None, typer.Option(help="When: 2h (from now), 2026-12-01T18:00 (UTC); default: now")] = None,
    model: ModelName = "",
    json: JsonFlag = False,
) -> None:
    """Say which policies win for a request, and why the others do not.

    Examples: [bold]recsae steer why 42 --attribute country=DK[/] · next week:
    [bold]recsae steer why 42 --at 7d --json[/]
    """
    platform = context_of(ctx).platform
    context = steering_pb2.SteerContext(user_id=user, request_id=request_id, attributes=attribute_values(attribute))
    request = steering_pb2.ResolvePoliciesRequest(model=model, context=context)
    if at is not None:
        request.at.FromDatetime(parse_time(at, datetime.now(UTC)))
    reply = platform.call(platform.steering.ResolvePolicies, request)
    print_json(reply) if json else console.print(resolution_views.resolution(reply))


def switches_of(platform: Platform) -> list[steering_pb2.KillSwitch]:
    """Every kill switch that was ever set."""
    return list(platform.call(platform.steering.ListKillSwitches, steering_pb2.ListKillSwitchesRequest()).kill_switches)
