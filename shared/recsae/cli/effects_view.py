"""How effects, safe ranges and handles look in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from recsae.cli.output import share, shortened, table
from recsae.v1 import common_pb2, interpreter_pb2

_WHY = {"ndcg": "NDCG@10", "off_target": "off target", "measured": "measured no further"}
_SHOWN_WEIGHTS, _LABEL = 4, 40
_DOSE_COLUMNS = [
    "operation", ">dose", ">facet share", ">log-odds", ">NDCG@10 kept", ">in facet", ">others", ">off target",
    ">lists changed", ">survives",
]  # fmt: skip


def effects(detail: interpreter_pb2.ConceptDetail) -> RenderableType:
    """Safe ranges and dose-response of a concept, or that it was not measured."""
    if not detail.HasField("causal"):
        return Text("What turning it does was not measured: policies on it need --allow-outside-safe-range.", "dim")
    causal = detail.causal
    facet = causal.facet or "the items it promotes"
    head = Text.assemble(
        ("Safe doses: ", "bold"),
        "; ".join(f"{one.operation} {range_words(one)}" for one in detail.safe_ranges),
        f"\nMeasured on {causal.panel_users:,} users, shares of {facet} ({share(causal.facet_share)} unsteered). "
        f"Half a strength added raises it more than {causal.null_percentile:.0%} of like latents and "
        f"{causal.direction_percentile:.0%} of random directions moved as far. Input and output label "
        f"{'name one facet' if causal.agreement else 'do not name one facet'}.",
    )
    shown = [dose for dose in detail.doses if dose.operation in ("add", "ablate")]
    return Group(head, doses("What turning it does (95 % intervals)", shown))


def doses(title: str, shown: Iterable[interpreter_pb2.DoseEffect]) -> RenderableType:
    """A dose-response table."""
    rows = [
        (
            dose.operation,
            "" if dose.operation == "ablate" else f"{dose.dose:+g}",
            share(dose.facet_share),
            _signed(dose.facet_log_odds),
            _interval(dose.ndcg_kept),
            f"{dose.ndcg_kept_inside.value:.3f}" if dose.ndcg_kept_inside.high else "",
            f"{dose.ndcg_kept_outside.value:.3f}" if dose.ndcg_kept_outside.high else "",
            f"{dose.off_target.value:.3f}",
            share(dose.lists_changed),
            f"{dose.survives:.2f}" if dose.operation == "add" else "",
        )
        for dose in shown
    ]
    return table(title, _DOSE_COLUMNS, rows)


def handles(reply: interpreter_pb2.ListHandlesResponse) -> RenderableType:
    """Handles, what they turn and how far."""
    if not reply.handles:
        return Text(
            "This dictionary has no handles: its head is no dot product, or its concepts promote no facet.",
            "dim",
        )
    rows = [
        (
            one.facet,
            _weights(one.weights),
            range_words(one.safe_range),
            share(one.facet_share),
            _best(one),
        )
        for one in reply.handles
    ]
    columns = ["facet", "strengths added at dose 1", "safe doses", ">share", ">log-odds at the last safe dose"]
    return table(f"{len(rows)} handles", columns, rows)


def range_words(safe: common_pb2.SafeRange) -> str:
    """A range and what limits it, e.g. "-0.2 to 0.1 (off target, NDCG@10)"."""
    if safe.empty:
        return f"none ({_WHY.get(safe.limited_by, safe.limited_by)})"
    if safe.operation == "ablate":
        return "allowed"
    ends = dict.fromkeys(_WHY.get(why, why) for why in (safe.limited_below, safe.limited_by))
    return f"{safe.low:g} to {safe.high:g} ({', '.join(ends)})"


def _weights(weights: Iterable[interpreter_pb2.HandleWeight]) -> str:
    """The largest few, one per line."""
    ordered = sorted(weights, key=lambda one: -abs(one.weight))
    lines = [
        f"{one.weight:+.2f} {one.concept_id} {escape(shortened(one.label, _LABEL))}" for one in ordered[:_SHOWN_WEIGHTS]
    ]
    return "\n".join([*lines, f"and {len(ordered) - _SHOWN_WEIGHTS} more"] if len(ordered) > len(lines) else lines)


def _best(handle: interpreter_pb2.Handle) -> str:
    last: Sequence[interpreter_pb2.DoseEffect] = [
        dose for dose in handle.doses if abs(dose.dose - handle.safe_range.high) < 1e-6
    ]
    return _signed(last[0].facet_log_odds) if last else ""


def _signed(one: interpreter_pb2.Estimate) -> str:
    return f"{one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"


def _interval(one: interpreter_pb2.Estimate) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"
