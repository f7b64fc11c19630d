"""How it looks in a terminal which policies win for a request, and why the others do not."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from recsae.cli.output import shortened, table
from recsae.cli.policy_views import operation
from recsae.v1 import steering_pb2

_NAME = 28
# Sign and colour of each outcome: what takes effect, what only would, what does not.
_LOOKS = {
    "applies": ("●", "green"),
    "partly applies": ("◐", "green"),
    "overruled": ("○", "yellow"),
    "shadow": ("◌", "cyan"),
    "held out": ("·", "yellow"),
    "not in scope": ("·", "dim"),
    "not in force": ("·", "dim"),
}


def resolution(reply: steering_pb2.ResolvePoliciesResponse) -> RenderableType:
    """Verdicts in the order of application, what becomes of each operation, and what holds for all of them."""
    rows = [
        (
            str(place),
            f"{escape(shortened(verdict.name, _NAME))}\n[dim]{verdict.ref.policy_id}[/]",
            str(verdict.priority),
            _outcome(verdict),
            "\n".join([escape(verdict.reason), *_operations(verdict)]),
        )
        for place, verdict in enumerate(reply.verdicts, start=1)
    ]
    title = f"Policies of {escape(reply.model)} for this request, in the order of application"
    shown = table(title, [">#", "policy", ">priority", "outcome", "why, and its operations"], rows)
    for column in shown.columns[:4]:
        column.no_wrap = True
    return Group(_head(reply), shown, _foot(reply))


def _head(reply: steering_pb2.ResolvePoliciesResponse) -> Text:
    if not reply.kill_switch:
        return Text("", end="")
    return Text("Steering is switched off: nothing below takes effect.\n", "bold white on red")


def _foot(reply: steering_pb2.ResolvePoliciesResponse) -> Text:
    foot = Text()
    if reply.outside_safe_range:
        foot.append(f"Together not known to be safe: {reply.outside_safe_range}\n", "yellow")
    foot.append(
        "The first policy that touches a concept keeps it. Attributes the user table holds are not known here: give "
        "those that matter with --attribute. The norm budget is checked on the activation: see receipts, or preview.\n"
        f"As of plan revision {reply.plan_revision}, dictionary {reply.triple.dictionary_version}.",
        "dim",
    )
    return foot


def _outcome(verdict: steering_pb2.PolicyVerdict) -> str:
    name = steering_pb2.PolicyOutcome.Name(verdict.outcome).removeprefix("POLICY_OUTCOME_").lower().replace("_", " ")
    sign, colour = _LOOKS.get(name, ("?", "red"))
    return f"[{colour}]{sign} {name}[/]"


def _operations(verdict: steering_pb2.PolicyVerdict) -> list[str]:
    lines = []
    for one in verdict.operations:
        label = f" ({escape(one.label)})" if one.label else ""
        if one.won_by.policy_id == verdict.ref.policy_id:
            lines.append(f"[green]✓[/] {operation(one.operation)}{label}")
        else:
            lines.append(f"[yellow]✗[/] [dim]{operation(one.operation)}{label}: {one.won_by.policy_id} keeps it[/]")
    return lines
