"""How two groups of users look beside each other in a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from recsae.cli.output import short, table, with_interval
from recsae.v1 import interpreter_pb2

_TOLD_APART = 0.05


def group_differences(reply: interpreter_pb2.CompareGroupsResponse, a: str, b: str) -> RenderableType:
    """One row per concept, most telling first, and what the columns mean."""
    rows = [
        (
            one.concept.id,
            escape(one.concept.label),
            f"{one.rate_a:.1%}",
            f"{one.rate_b:.1%}",
            with_interval(one.rate_difference.value, one.rate_difference.low, one.rate_difference.high),
            with_interval(one.log_odds.value, one.log_odds.low, one.log_odds.high),
            short(one.auc),
            f"{one.q:.2g}",
        )
        for one in reply.differences
    ]
    found = sum(one.q < _TOLD_APART for one in reply.differences)
    title = f"A: {a} ({reply.users_a:,} users), B: {b} ({reply.users_b:,} users)"
    columns = ["concept", "label", ">fires, A", ">fires, B", ">A - B", ">log-odds", ">AUC", ">q"]
    note = (
        f"{found} of the {len(rows)} shown have q < .05, of {reply.tested:,} concepts tested. Intervals are 95 % and "
        "count each user once; AUC is the probability that a user of A fires it more strongly than one of B."
    )
    return Group(table(escape(title), columns, rows), Text(note, "dim"))
