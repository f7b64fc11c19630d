"""`recsae steer create | audit`, and how operations are written: policies on live traffic.

Not here: looking at policies (`steering_look`), changing them (`steering_change`), kill switches (`steering_kill`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape

from recsae.cli.context import JsonFlag, ModelName, context_of
from recsae.cli.output import console, print_json
from recsae.cli.policy_views import audit_trail, policies
from recsae.cli.policy_windows import changed_window
from recsae.cli.segment_expression import parse_segment
from recsae.errors import InvalidRequestError
from recsae.steering.wire import segment_message
from recsae.v1 import common_pb2, steering_pb2

app = typer.Typer(help="Steering policies: make, look, change, undo, switch off, audit.", no_args_is_help=True)

_OPERATION = re.compile(
    r"(?P<concept>[\w-]+):(?P<kind>ablate|scale|add|set|cap)(?:=(?P<value>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))?"
)
_HANDLE = re.compile(r"(?P<facet>.+)=(?P<dose>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")
_STATES = {name: steering_pb2.PolicyState.Value(f"POLICY_STATE_{name.upper()}") for name in ("draft", "shadow", "live")}
Operations = Annotated[
    list[str] | None, typer.Option("--op", help="CONCEPT:ablate, or CONCEPT:scale|add|set|cap=VALUE; repeatable")
]
Handles = Annotated[
    list[str] | None, typer.Option("--handle", help="FACET=DOSE, see `recsae concepts handles`; repeatable")
]
Reason = Annotated[str, typer.Option(help="Why, for the audit trail")]
Users = Annotated[list[str] | None, typer.Option("--user", help="Only these users; repeatable")]
SegmentText = Annotated[
    str | None,
    typer.Option(
        "--segment", help="Only where this holds, e.g. 'country=DK and not age<18' or 'surface in (home,search)'"
    ),
]
Start = Annotated[str | None, typer.Option(help="When it starts: 2h (from now), 2026-12-01T18:00 (UTC)")]
Until = Annotated[str | None, typer.Option(help="When it ends, written like --start; instead of --lasts")]
Outside = Annotated[
    bool,
    typer.Option(
        "--allow-outside-safe-range",
        help="Even if it is not known to be safe; needs role admin, and the audit trail says so",
    ),
]


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name for people")],
    reason: Reason,
    op: Operations = None,
    handle: Handles = None,
    model: ModelName = "",
    user: Users = None,
    segment: SegmentText = None,
    rollout: Annotated[float, typer.Option(min=0, max=100, help="Per cent of users it holds for, sticky")] = 100.0,
    start: Start = None,
    lasts: Annotated[str | None, typer.Option(help="How long it holds, e.g. 30m, 12h, 7d", show_default="7d")] = None,
    until: Until = None,
    priority: Annotated[int, typer.Option(min=-1000, max=1000, help="Higher wins")] = 0,
    state: Annotated[str, typer.Option(help="draft, shadow (computed and logged, without effect) or live")] = "live",
    allow_outside_safe_range: Outside = False,
    json: JsonFlag = False,
) -> None:
    """Make a policy; a live one is in force within a second.

    Examples: [bold]recsae steer create "More horror" --op c-4f1a90be:add=0.1 --reason halloween --lasts 3d[/] ·
    [bold]recsae steer create "More horror" --handle genre=Horror=0.5 --segment "country=DK and not age<18"
    --state shadow --reason halloween[/]
    """
    context = context_of(ctx)
    if state not in _STATES:
        raise InvalidRequestError(f"a policy cannot begin as {state!r}; give --state draft, shadow or live")
    lasts = "7d" if lasts is None and until is None else lasts
    own = context.workspace.models()  # none where the platform runs elsewhere
    policy = steering_pb2.Policy(
        name=name,
        model=model or (own[0].name if own else ""),
        operations=[parse_operation(text) for text in op or []],
        scope=steering_pb2.Scope(user_ids=user or [], rollout_percent=rollout),
        window=changed_window(common_pb2.TimeWindow(), start=start, lasts=lasts, until=until, now=datetime.now(UTC)),
        priority=priority,
        state=_STATES[state],
    )
    if segment is not None:
        policy.scope.segment.CopyFrom(segment_message(parse_segment(segment)))
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
    console.print(policies([reply.policy]))
    warn_outside(reply.policy)
    undo = f"Undo: recsae steer revert {reply.policy.id}"
    console.print(f"{state.capitalize()} from plan revision {reply.plan_revision}. {undo}")


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
    if policy_id and not reply.events:
        console.print(
            f"No event of {escape(policy_id)}{' before that one' if before else ''}; see `recsae steer list`."
        )
        return
    console.print(audit_trail(reply.events))


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


def warn_outside(policy: steering_pb2.Policy) -> None:
    """Says of a policy that is not known to be safe why."""
    if policy.outside_safe_range:
        console.print(f"Not known to be safe: {escape(policy.outside_safe_range)}", style="yellow")
