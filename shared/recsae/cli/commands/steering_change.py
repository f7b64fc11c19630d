"""`recsae steer edit | draft | shadow | live | pause | revert | delete`: changing a policy, and taking changes back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape

from recsae.cli.commands.steering import (
    Handles,
    Operations,
    Outside,
    Reason,
    SegmentText,
    Start,
    Until,
    Users,
    parse_handle,
    parse_operation,
    warn_outside,
)
from recsae.cli.commands.steering_look import PolicyId
from recsae.cli.context import JsonFlag, context_of
from recsae.cli.output import console, print_json
from recsae.cli.policy_views import policy_detail, state
from recsae.cli.policy_windows import changed_window
from recsae.cli.segment_expression import parse_segment
from recsae.errors import InvalidRequestError
from recsae.steering.wire import segment_message
from recsae.v1 import steering_pb2

Revision = Annotated[
    int, typer.Option(min=0, help="Revision you saw; refused when the policy has moved on. 0 = whatever it is")
]


def register(app: typer.Typer) -> None:
    """Adds the commands to `recsae steer`."""
    for command in (edit, draft, shadow, live, pause, revert, delete):
        app.command()(command)


def edit(
    ctx: typer.Context,
    policy_id: PolicyId,
    reason: Reason,
    name: Annotated[str | None, typer.Option(help="Another name")] = None,
    op: Operations = None,
    handle: Handles = None,
    user: Users = None,
    segment: SegmentText = None,
    everyone: Annotated[bool, typer.Option("--everyone", help="Drop users and segment")] = False,
    rollout: Annotated[float | None, typer.Option(min=0, max=100, help="Per cent of users, sticky")] = None,
    start: Start = None,
    lasts: Annotated[
        str | None, typer.Option(help="How long from its start where that lies ahead, else from now")
    ] = None,
    until: Until = None,
    priority: Annotated[int | None, typer.Option(min=-1000, max=1000, help="Higher wins")] = None,
    revision: Revision = 0,
    allow_outside_safe_range: Outside = False,
    json: JsonFlag = False,
) -> None:
    """Change what a policy says; only what is given changes, and who was in its rollout stays in it.

    Operations and handles that are given replace all there were. A change in between is refused. A suspended policy is
    taken for the dictionary as it is now: look at its concepts first.

    Examples: [bold]recsae steer edit p-01h2 --rollout 50 --reason "looks good"[/] ·
    [bold]recsae steer edit p-01h2 --op c-4f1a90be:add=0.2 --until 2026-12-24 --revision 3 --reason "a bit more"[/]
    """
    platform = context_of(ctx).platform
    found = platform.call(platform.steering.GetPolicy, steering_pb2.GetPolicyRequest(policy_id=policy_id)).policy
    if everyone and (user or segment is not None):
        raise InvalidRequestError("--everyone drops users and segment, and --user or --segment sets them; give one")
    if name is not None:
        found.name = name
    if op or handle:
        del found.operations[:]
        found.operations.extend(parse_operation(text) for text in op or [])
    if everyone or user:
        del found.scope.user_ids[:]
        found.scope.user_ids.extend(user or [])
    if everyone:
        found.scope.ClearField("segment")
    if segment is not None:
        found.scope.segment.CopyFrom(segment_message(parse_segment(segment)))
    if rollout is not None:
        found.scope.rollout_percent = rollout
    if priority is not None:
        found.priority = priority
    window = changed_window(found.window, start=start, lasts=lasts, until=until, now=datetime.now(UTC))
    found.window.CopyFrom(window)
    request = steering_pb2.UpdatePolicyRequest(
        policy=found,
        revision=revision or found.revision,
        reason=reason,
        handles=[parse_handle(text) for text in handle or []],
        allow_outside_safe_range=allow_outside_safe_range,
    )
    reply = platform.call(platform.steering.UpdatePolicy, request)
    if json:
        print_json(reply)
        return
    console.print(policy_detail(reply.policy))
    _say_from(reply.policy, reply.plan_revision)


def draft(
    ctx: typer.Context, policy_id: PolicyId, reason: Reason, revision: Revision = 0, json: JsonFlag = False
) -> None:
    """Take a policy in shadow or a paused one back to a draft, without effect.

    Example: [bold]recsae steer draft p-01h2 --reason "not ready"[/]
    """
    _move(ctx, policy_id, steering_pb2.POLICY_STATE_DRAFT, reason, revision, json)


def shadow(
    ctx: typer.Context, policy_id: PolicyId, reason: Reason, revision: Revision = 0, json: JsonFlag = False
) -> None:
    """Compute and log what a policy would change, without changing it.

    Example: [bold]recsae steer shadow p-01h2 --reason "a day in shadow first"[/]
    """
    _move(ctx, policy_id, steering_pb2.POLICY_STATE_SHADOW, reason, revision, json)


def live(
    ctx: typer.Context,
    policy_id: PolicyId,
    reason: Reason,
    revision: Revision = 0,
    allow_outside_safe_range: Outside = False,
    json: JsonFlag = False,
) -> None:
    """Put a policy in force, between its start and its end.

    Example: [bold]recsae steer live p-01h2 --reason "the shadow looks good"[/]
    """
    _move(ctx, policy_id, steering_pb2.POLICY_STATE_LIVE, reason, revision, json, allow=allow_outside_safe_range)


def pause(
    ctx: typer.Context,
    policy_id: PolicyId,
    reason: Reason = "paused on the command line",
    revision: Revision = 0,
    json: JsonFlag = False,
) -> None:
    """Put a policy out of force until `recsae steer live`.

    Example: [bold]recsae steer pause p-01h2 --reason "complaints"[/]
    """
    _move(ctx, policy_id, steering_pb2.POLICY_STATE_PAUSED, reason, revision, json)


def revert(
    ctx: typer.Context,
    policy_id: PolicyId,
    to: Annotated[int, typer.Option(min=0, help="Revision to bring back; 0 = the one before")] = 0,
    reason: Reason = "reverted on the command line",
    revision: Revision = 0,
    json: JsonFlag = False,
) -> None:
    """Undo the last change of a policy, or bring an earlier revision back; a new one is taken back whole.

    Examples: [bold]recsae steer revert p-01h2[/] · [bold]recsae steer revert p-01h2 --to 2 --reason "as it was"[/]
    """
    platform = context_of(ctx).platform
    request = steering_pb2.RevertPolicyRequest(policy_id=policy_id, revision=revision, to_revision=to, reason=reason)
    reply = platform.call(platform.steering.RevertPolicy, request)
    if json:
        print_json(reply)
        return
    console.print(policy_detail(reply.policy))
    _say_from(reply.policy, reply.plan_revision)


def delete(
    ctx: typer.Context,
    policy_id: PolicyId,
    reason: Reason = "deleted on the command line",
    revision: Revision = 0,
    json: JsonFlag = False,
) -> None:
    """Take a policy out of force for good; it stays in the audit trail.

    Example: [bold]recsae steer delete p-01h2 --reason "campaign over"[/]
    """
    platform = context_of(ctx).platform
    request = steering_pb2.DeletePolicyRequest(policy_id=policy_id, revision=revision, reason=reason)
    reply = platform.call(platform.steering.DeletePolicy, request)
    if json:
        print_json(reply)
        return
    console.print(f"{reply.policy.id} is out of force from plan revision {reply.plan_revision}.")


def _move(
    ctx: typer.Context,
    policy_id: str,
    to: steering_pb2.PolicyState.ValueType,
    reason: str,
    revision: int,
    json: bool,
    *,
    allow: bool = False,
) -> None:
    platform = context_of(ctx).platform
    request = steering_pb2.SetPolicyStateRequest(
        policy_id=policy_id, revision=revision, state=to, reason=reason, allow_outside_safe_range=allow
    )
    reply = platform.call(platform.steering.SetPolicyState, request)
    if json:
        print_json(reply)
        return
    warn_outside(reply.policy)
    _say_from(reply.policy, reply.plan_revision)


def _say_from(policy: steering_pb2.Policy, plan_revision: int) -> None:
    why = f" ({escape(policy.state_reason)})" if policy.state_reason else ""
    console.print(
        f"{policy.id} is {state(policy)}{why} at revision {policy.revision}, from plan revision {plan_revision}. "
        f"Undo: recsae steer revert {policy.id}"
    )
