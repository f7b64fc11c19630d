"""How a preview of many users looks in a terminal. Not here: that of one user (`views`), the plot (`panel_plot`)."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from recsae.cli.output import share, table
from recsae.cli.views import before_after
from recsae.v1 import steering_pb2

_COLUMNS = ["", ">before", ">after", ">difference", "95 % interval"]


def panel(reply: steering_pb2.PreviewPanelResponse) -> RenderableType:
    """Everything a panel found: lists, shares of facets, what it may cost, examples."""
    return Group(
        table(f"Preview for {reply.users:,} users of {escape(reply.model)}", _COLUMNS, _pairs(reply)),
        Text(_lists(reply)),
        _off_target(reply.off_target),
        *_examples(reply),
        *_doubts(reply),
    )


def _pairs(reply: steering_pb2.PreviewPanelResponse) -> list[tuple[str, ...]]:
    """What there is before and after of; what is not known has no row."""
    rows = []
    if reply.HasField("target_share"):
        rows.append((f"share of {escape(reply.facet)}", *_shares(reply.target_share)))
    if reply.HasField("coverage"):
        rows.append(("catalogue shown to anybody", *_shares(reply.coverage)))
    if reply.HasField("popularity"):
        rows.append(("popularity percentile", *_shares(reply.popularity)))
    if reply.HasField("ndcg"):
        rows.append(("NDCG of the newest item, hidden", *_numbers(reply.ndcg)))
    return rows


def _lists(reply: steering_pb2.PreviewPanelResponse) -> str:
    """What became of the lists, in sentences."""
    changed = share(reply.users_changed / reply.users) if reply.users else "0 %"
    moved = reply.delta_share
    return (
        f"Lists of {changed} of the users change: overlap {_estimate(reply.overlap)}, "
        f"{_estimate(reply.entered)} items enter and as many leave, the others move {_estimate(reply.moved)} ranks. "
        f"|dx| is {share(moved.mean)} of |x| on average, {share(moved.low)} to {share(moved.high)}."
    )


def _off_target(shifts: Sequence[steering_pb2.FacetShift]) -> RenderableType:
    if not shifts:
        return Text("No other facet is known to change.", "dim")
    rows = [(escape(one.facet), *_shares(one.share)) for one in shifts]
    return table("Other facets that change most", ["facet", *_COLUMNS[1:]], rows)


def _examples(reply: steering_pb2.PreviewPanelResponse) -> list[RenderableType]:
    return [
        before_after(one.before, [item.item for item in one.after], f"User {escape(one.user_id)}")
        for one in reply.examples
    ]


def _doubts(reply: steering_pb2.PreviewPanelResponse) -> list[RenderableType]:
    """What it may cost by what was measured, what was refused, and whether it is known to be safe."""
    lines = []
    if reply.HasField("expected_loss_upper"):
        lines.append(Text(f"Measured for the dictionary: costs at most {share(reply.expected_loss_upper)} of NDCG@10."))
    else:
        lines.append(Text("What it costs of NDCG@10 was not measured for the dictionary.", "dim"))
    if reply.refused:
        counts = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in sorted(reply.refused.items()))
        lines.append(Text(f"Rows left as they are: {counts}.", "yellow"))
    if reply.outside_safe_range:
        lines.append(Text(f"Not known to be safe: {reply.outside_safe_range}", "yellow"))
    else:
        lines.append(Text("Within what is safe."))
    return list(lines)


def _shares(pair: steering_pb2.PanelPair) -> tuple[str, ...]:
    difference = pair.difference
    return (
        share(pair.before),
        share(pair.after),
        f"{100 * difference.mean:+.2f}",
        f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f} points",
    )


def _numbers(pair: steering_pb2.PanelPair) -> tuple[str, ...]:
    difference = pair.difference
    return (
        f"{pair.before:.4f}",
        f"{pair.after:.4f}",
        f"{difference.mean:+.4f}",
        f"{difference.low:+.4f} to {difference.high:+.4f}",
    )


def _estimate(value: steering_pb2.PanelEstimate) -> str:
    return f"{value.mean:.2f} [{value.low:.2f}, {value.high:.2f}]"
