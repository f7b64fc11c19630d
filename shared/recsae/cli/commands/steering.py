"""`recsae steer create | list | show | delete | audit`: policies on live traffic."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from recsae.cli.context import JsonFlag, ModelName, context_of
from recsae.cli.output import console, print_json, table
from recsae.errors import InvalidRequestError
from recsae.v1 import common_pb2, steering_pb2

app = typer.Typer(help="Steering policies: create, list, show, delete, audit.", no_args_is_help=True)

_OPERATION = re.compile(
    r"(?P<concept>[\w-]+):(?P<kind>ablate|scale|add|set|cap)(?:=(?P<value>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))?"
)
_DURATION = re.compile(r"(?P<number>\d{1,6}(?:\.\d+)?)(?P<unit>[mhd])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_HANDLE = re.compile(r"(?P<facet>.+)=(?P<dose>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")
Operations = Annotated[
    list[str] | None, typer.Option("--op", help="CONCEPT:ablate, or CONCEPT:scale|add|set|cap=VALUE; repeatable")
]
Handles = Annotated[
    list[str] | None, typer.Option("--handle", help="FACET=DOSE, see `recsae concepts handles`; repeatable")
]
Reason = Annotated[str, typer.Option(help="Why, for the audit trail")]


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name for people")],
    reason: Reason,
    op: Operations = None,
    handle: Handles = None,
    model: ModelName = "",
    user: Annotated[list[str] | None, typer.Option("--user", help="Only these users; repeatable")] = None,
    rollout: Annotated[float, typer.Option(min=0, max=100, help="Per cent of users it holds for")] = 100.0,
    lasts: Annotated[str, typer.Option(help="How long it holds, e.g. 30m, 12h, 7d")] = "7d",
    priority: Annotated[int, typer.Option(min=-1000, max=1000, help="Higher wins")] = 0,
    allow_outside_safe_range: Annotated[
        bool, typer.Option(help="Make it even if it is not known to be safe; the audit trail says so")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Make a policy; it is live within a second.

    Examples: [bold]recsae steer create "More horror" --op c-4f1a90be:add=0.1 --reason halloween --lasts 3d[/] ·
    [bold]recsae steer create "More horror" --handle genre=Horror=0.5 --reason halloween[/]
    """
    context = context_of(ctx)
    policy = steering_pb2.Policy(
        name=name,
        model=model or context.workspace.model("").name,
        operations=[parse_operation(text) for text in op or []],
        scope=steering_pb2.Scope(user_ids=user or [], rollout_percent=rollout),
        window=window_of(parse_duration(lasts)),
        priority=priority,
    )
    request = steering_pb2.CreatePolicyRequest(
        policy=policy,
        reason=reason,
        handles=[parse_handle(text) for text in handle or []],
        allow_outside_safe_range=allow_outside_safe_range,
    )
    reply = context.platform.call(context.platform.steering.CreatePolicy, request)
    if json:
        print_json(reply)
        return
    console.print(_policies([reply.policy]))
    if reply.policy.outside_safe_range:
        console.print(f"Not known to be safe: {escape(reply.policy.outside_safe_range)}", style="yellow")
    console.print(f"In force from plan revision {reply.plan_revision}. Undo: recsae steer delete {reply.policy.id}")


@app.command(name="list")
def list_(
    ctx: typer.Context,
    model: ModelName = "",
    ended: Annotated[bool, typer.Option("--ended", help="Reverted and expired ones too")] = False,
    json: JsonFlag = False,
) -> None:
    """List policies.

    Examples: [bold]recsae steer list[/] · [bold]recsae steer list --ended --json[/]
    """
    platform = context_of(ctx).platform
    request = steering_pb2.ListPoliciesRequest(model=model, include_ended=ended)
    reply = platform.call(platform.steering.ListPolicies, request)
    print_json(reply) if json else console.print(_policies(reply.policies))


@app.command()
def show(
    ctx: typer.Context, policy_id: Annotated[str, typer.Argument(help="Policy id")], json: JsonFlag = False
) -> None:
    """Show one policy.

    Example: [bold]recsae steer show p-01h2[/]
    """
    platform = context_of(ctx).platform
    reply = platform.call(platform.steering.GetPolicy, steering_pb2.GetPolicyRequest(policy_id=policy_id))
    print_json(reply.policy) if json else console.print(_policies([reply.policy]))


@app.command()
def delete(
    ctx: typer.Context,
    policy_id: Annotated[str, typer.Argument(help="Policy id")],
    reason: Reason = "deleted on the command line",
    json: JsonFlag = False,
) -> None:
    """Take a policy out of force; it stays in the audit trail.

    Example: [bold]recsae steer delete p-01h2 --reason "campaign over"[/]
    """
    platform = context_of(ctx).platform
    request = steering_pb2.DeletePolicyRequest(policy_id=policy_id, reason=reason)
    reply = platform.call(platform.steering.DeletePolicy, request)
    if json:
        print_json(reply)
        return
    console.print(f"{reply.policy.id} is out of force from plan revision {reply.plan_revision}.")


@app.command()
def audit(
    ctx: typer.Context,
    policy_id: Annotated[str, typer.Argument(help="Only of this policy")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most events")] = 20,
    before: Annotated[str, typer.Option(help="Only events before this one, by its id (see --json)")] = "",
    json: JsonFlag = False,
) -> None:
    """Say who changed what, when and why; archived events too.

    Examples: [bold]recsae steer audit --limit 50[/] · [bold]recsae steer audit p-01h2 --json[/]
    """
    platform = context_of(ctx).platform
    request = steering_pb2.ListAuditRequest(policy_id=policy_id, limit=limit, before_id=before)
    reply = platform.call(platform.steering.ListAudit, request)
    if json:
        print_json(reply)
        return
    rows = [
        (f"{event.at.ToDatetime():%Y-%m-%d %H:%M:%S}", event.actor, event.action, event.subject, escape(event.reason))
        for event in reply.events
    ]
    console.print(table("Audit trail, newest first", ["at (UTC)", "who", "what", "to", "why"], rows))


def parse_operation(text: str) -> steering_pb2.Operation:
    """`CONCEPT:kind[=value]` as an operation; InvalidRequestError shows the form."""
    match = _OPERATION.fullmatch(text)
    if match is None or (match["kind"] != "ablate" and match["value"] is None):
        raise InvalidRequestError(f"{text!r} is not an operation; write e.g. c-4f1a90be:ablate or c-4f1a90be:add=1.5")
    kind = steering_pb2.OperationKind.Value(f"OPERATION_KIND_{match['kind'].upper()}")
    return steering_pb2.Operation(concept_id=match["concept"], kind=kind, value=float(match["value"] or 0.0))


def parse_handle(text: str) -> steering_pb2.HandleOperation:
    """`FACET=DOSE` as a handle at a dose; InvalidRequestError shows the form."""
    match = _HANDLE.fullmatch(text)
    if match is None:
        raise InvalidRequestError(f"{text!r} is not a handle at a dose; write e.g. genre=Horror=0.5")
    return steering_pb2.HandleOperation(facet=match["facet"], dose=float(match["dose"]))


def parse_duration(text: str) -> timedelta:
    """`30m`, `12h` or `7d`; InvalidRequestError shows the form."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InvalidRequestError(f"{text!r} is not a duration; write e.g. 30m, 12h or 7d")
    return float(match["number"]) * _UNITS[match["unit"]]


def window_of(duration: timedelta) -> common_pb2.TimeWindow:
    """From now for `duration`."""
    now = datetime.now(UTC)
    window = common_pb2.TimeWindow()
    window.start.FromDatetime(now)
    window.end.FromDatetime(now + duration)
    return window


def _policies(found: Iterable[steering_pb2.Policy]) -> Table:
    rows = [
        (
            policy.id,
            escape(policy.name),
            _state(policy),
            _operations(policy),
            _scope(policy),
            _end(policy),
            str(policy.priority),
        )
        for policy in found
    ]
    return table("Policies", ["policy", "name", "state", "operations", "for", "until (UTC)", ">priority"], rows)


def _state(policy: steering_pb2.Policy) -> str:
    state = steering_pb2.PolicyState.Name(policy.state).removeprefix("POLICY_STATE_").lower()
    return f"{state}: {escape(policy.state_reason)}" if policy.state_reason else state


def _operations(policy: steering_pb2.Policy) -> str:
    lines = []
    for operation in policy.operations:
        kind = steering_pb2.OperationKind.Name(operation.kind).removeprefix("OPERATION_KIND_").lower()
        value = "" if kind == "ablate" else f"={operation.value:g}"
        lines.append(f"{operation.concept_id}:{kind}{value}")
    return "\n".join(lines)


def _scope(policy: steering_pb2.Policy) -> str:
    scope = policy.scope
    parts = [f"{len(scope.user_ids)} users"] if scope.user_ids else []
    parts += ["a segment"] if scope.HasField("segment") else []
    parts += (
        [f"{scope.rollout_percent:g} % rollout"]
        if scope.HasField("rollout_percent") and scope.rollout_percent < 100
        else []
    )
    return ", ".join(parts) or "everyone"


def _end(policy: steering_pb2.Policy) -> str:
    return f"{policy.window.end.ToDatetime():%Y-%m-%d %H:%M}" if policy.window.HasField("end") else ""
