"""How policies, their revisions and kill switches look in a terminal. Not here: verdicts (`resolution_views`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from recsae.cli.output import shortened, table
from recsae.steering.segment_words import segment_text
from recsae.steering.wire import segment_from
from recsae.v1 import steering_pb2

_SHOWN_USERS, _SHOWN_SEGMENT, _NAME = 3, 60, 28
_COLOURS = {
    "live": "green", "shadow": "cyan", "draft": "dim", "paused": "yellow", "suspended": "bold red",
    "expired": "dim", "reverted": "dim",
}  # fmt: skip


def policies(found: Iterable[steering_pb2.Policy]) -> RenderableType:
    """A list of policies, and why they are in their states where that is not plain."""
    found = list(found)
    rows = [
        (
            f"{escape(shortened(policy.name, _NAME))}\n[dim]{policy.id}[/]",
            state(policy),
            operations(policy.operations),
            _for_whom(policy),
            str(policy.priority),
        )
        for policy in found
    ]
    columns = ["policy", "state", "operations", "for, until (UTC)", ">priority"]
    return Group(_unbroken(table("Policies", columns, rows)), *_reasons(found))


def policy_detail(policy: steering_pb2.Policy) -> RenderableType:
    """Everything about one policy."""
    made_for = f" for dictionary {policy.dictionary_version}" if policy.dictionary_version else ""
    lines = [
        ("state", f"{state(policy)}{': ' if policy.state_reason else ''}{escape(policy.state_reason)}"),
        ("model", escape(policy.model)),
        ("operations", operations(policy.operations)),
        ("for", escape(scope_words(policy.scope))),
        ("from", moment(policy.window.start) if policy.window.HasField("start") else "at once"),
        ("until", until(policy) or "open (needs an end to go live)"),
        ("priority", f"{policy.priority} (higher wins; at equal priority the older policy)"),
        ("revision", f"{policy.revision}, {moment(policy.updated_at)}"),
        ("made", f"{moment(policy.created_at)} by {escape(policy.created_by)}{made_for}"),
    ]
    if policy.outside_safe_range:
        lines.append(("not known to be safe", f"[yellow]{escape(policy.outside_safe_range)}[/]"))
    shown = Table(
        title=f"{escape(policy.name)}  [dim]{policy.id}[/]",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_header=False,
        pad_edge=False,
    )
    shown.add_column(style="bold")
    shown.add_column(overflow="fold")
    for name, value in lines:
        shown.add_row(name, value)
    return shown


def revisions(found: Iterable[steering_pb2.Policy]) -> RenderableType:
    """The revisions of a policy, newest first."""
    rows = [
        (
            f"{one.revision}  {escape(shortened(one.name, _NAME))}\n[dim]{moment(one.updated_at)}[/]",
            state(one),
            operations(one.operations),
            _for_whom(one),
            str(one.priority),
        )
        for one in found
    ]
    columns = ["revision", "state", "operations", "for, until (UTC)", ">priority"]
    return _unbroken(table("Revisions, newest first", columns, rows))


def audit_trail(events: Iterable[steering_pb2.AuditEvent]) -> RenderableType:
    """Who changed what, when and why."""
    rows = [
        (
            f"{event.at.ToDatetime():%Y-%m-%d %H:%M:%S}",
            escape(event.actor),
            event.action,
            escape(event.subject),
            escape(event.reason),
        )
        for event in events
    ]
    shown = table("Audit trail, newest first", ["at (UTC)", "who", "what", "to", "why"], rows)
    for column in (shown.columns[0], shown.columns[2], shown.columns[3]):
        column.no_wrap = True  # ids are to be copied
    return shown


def kill_banner(switches: Sequence[steering_pb2.KillSwitch]) -> RenderableType | None:
    """Which switches are on, to stand above anything that speaks of policies; None when all are off."""
    on = [switch for switch in switches if switch.on]
    if not on:
        return None
    lines = Text()
    for switch in on:
        whose = f"of {switch.model}" if switch.model else "of every model"
        lines.append(f"Steering {whose} is switched off", "bold white on red")
        lines.append(f" since {moment(switch.at)} by {switch.actor}: {switch.reason}\n")
    lines.append("No policy below takes effect there. On again: recsae steer unkill --reason ...\n", "red")
    return lines


def kill_switches(switches: Sequence[steering_pb2.KillSwitch]) -> RenderableType:
    """Every switch that was ever set."""
    rows = [
        (
            escape(one.model) or "every model",
            "[bold red]off[/]" if one.on else "[green]on[/]",
            moment(one.at),
            escape(one.actor),
            escape(one.reason),
        )
        for one in switches
    ]
    return table("Kill switches", ["model", "steering", "since (UTC)", "by", "why"], rows)


def with_banner(switches: Sequence[steering_pb2.KillSwitch], shown: RenderableType) -> RenderableType:
    """Something about policies below the banner, where there is one."""
    banner = kill_banner(switches)
    return shown if banner is None else Group(banner, shown)


def state(policy: steering_pb2.Policy) -> str:
    """The state, coloured."""
    name = _state_name(policy)
    return f"[{_COLOURS[name]}]{name}[/]" if name in _COLOURS else name


def _state_name(policy: steering_pb2.Policy) -> str:
    return steering_pb2.PolicyState.Name(policy.state).removeprefix("POLICY_STATE_").lower()


def _reasons(found: Iterable[steering_pb2.Policy]) -> list[Text]:
    return [
        Text.assemble((f"{one.id} is {_state_name(one)}: ", "bold"), one.state_reason)
        for one in found
        if one.state_reason
    ]


def _for_whom(policy: steering_pb2.Policy) -> str:
    whom = escape(scope_words(policy.scope, _SHOWN_USERS, _SHOWN_SEGMENT))
    start = policy.window.start.ToDatetime(UTC) if policy.window.HasField("start") else None
    begins = f"from {moment(policy.window.start)}, " if start is not None and start > datetime.now(UTC) else ""
    return f"{whom}\n[dim]{begins}{until(policy) or 'no end'}[/]"


def _unbroken(shown: Table) -> Table:
    """Ids, states and operations stand in one piece."""
    for column in shown.columns[:3]:
        column.no_wrap = True
    return shown


def operations(found: Iterable[steering_pb2.Operation]) -> str:
    """One operation a line, as they are written on the command line."""
    return "\n".join(operation(one) for one in found)


def operation(one: steering_pb2.Operation) -> str:
    """An operation as it is written on the command line."""
    kind = steering_pb2.OperationKind.Name(one.kind).removeprefix("OPERATION_KIND_").lower()
    value = "" if kind == "ablate" else f"={one.value:g}"
    return escape(f"{one.concept_id}:{kind}{value}")


def scope_words(scope: steering_pb2.Scope, most_users: int = 20, longest_segment: int = 10_000) -> str:
    """For whom, in words."""
    parts = []
    if scope.user_ids:
        more = len(scope.user_ids) - most_users
        named = ", ".join(scope.user_ids[:most_users]) + (f" and {more} more" if more > 0 else "")
        parts.append(f"user {named}" if len(scope.user_ids) == 1 else f"users {named}")
    if scope.HasField("segment"):
        parts.append(f"where {shortened(segment_text(segment_from(scope.segment)), longest_segment)}")
    if scope.HasField("rollout_percent") and scope.rollout_percent < 100:
        parts.append(f"{scope.rollout_percent:g} % of {'those' if parts else 'everyone'}")
    return "; ".join(parts) or "everyone"


def until(policy: steering_pb2.Policy) -> str:
    """When it ends; "" while it is open."""
    return moment(policy.window.end) if policy.window.HasField("end") else ""


def moment(at: Timestamp) -> str:
    """A time in UTC, to the minute."""
    return f"{at.ToDatetime(UTC):%Y-%m-%d %H:%M}"
