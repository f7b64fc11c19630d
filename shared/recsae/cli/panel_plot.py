"""A preview of many users as one plot: shares of facets before and after, a row each, the target first.

matplotlib is imported when a plot is drawn: the rest of the command line works without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recsae.cli.output import shortened
from recsae.cli.sweep_plot import check_plot_file
from recsae.errors import FailedPreconditionError
from recsae.v1 import steering_pb2

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Safe for colour-blind readers (Okabe and Ito 2008).
_BEFORE, _AFTER, _INTERVAL = "#777777", "#0072B2", "#D55E00"
_NAME = 36


def write_panel_plot(path: Path, reply: steering_pb2.PreviewPanelResponse) -> None:
    """Draws shares before and after, and their differences with 95 % intervals, into a file.

    FailedPreconditionError when no share of a facet is known.
    """
    import matplotlib
    from matplotlib.figure import Figure

    check_plot_file(path)
    shares = [(reply.facet, reply.target_share)] if reply.HasField("target_share") else []
    shares += [(one.facet, one.share) for one in reply.off_target]
    if not shares:
        raise FailedPreconditionError("no share of a facet is known, so there is nothing to plot; see the table")
    names = [shortened(name, _NAME) for name, _ in shares]
    if reply.HasField("target_share"):
        names[0] = f"{names[0]} (target)"
    # Text stays text, so that a plot can be searched; ids and dates stay out, so that the same panel is the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "recsae", "font.size": 9}):
        figure = Figure(figsize=(10.0, 1.6 + 0.32 * len(shares)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        _draw_shares(left, [pair for _, pair in shares])
        _draw_differences(right, [pair for _, pair in shares])
        # A dollar would begin a formula.
        left.set_yticks(range(len(names)), [name.replace("$", r"\$") for name in names])
        left.invert_yaxis()
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        model = reply.model.replace("$", r"\$")
        figure.suptitle(f"Lists of {reply.users:,} users of {model} before and after")
        figure.savefig(path, metadata={"Date": None} if path.suffix.lower() == ".svg" else None, dpi=150)


def _draw_shares(ax: Axes, shares: list[steering_pb2.PanelPair]) -> None:
    rows = range(len(shares))
    before, after = [100 * one.before for one in shares], [100 * one.after for one in shares]
    ax.hlines(rows, before, after, color=_AFTER, alpha=0.35, gid="moves")
    ax.plot(before, rows, color=_BEFORE, marker="o", linestyle="", label="before", gid="before")
    ax.plot(after, rows, color=_AFTER, marker="D", linestyle="", label="after", gid="after")
    ax.set_xlabel("share of the lists (%)")
    ax.grid(alpha=0.25)


def _draw_differences(ax: Axes, shares: list[steering_pb2.PanelPair]) -> None:
    rows = range(len(shares))
    differences = [pair.difference for pair in shares]
    low, high = [100 * one.low for one in differences], [100 * one.high for one in differences]
    ax.axvline(0.0, color=_BEFORE, linewidth=0.8)
    ax.hlines(rows, low, high, color=_INTERVAL, gid="intervals")
    ax.plot([100 * one.mean for one in differences], rows, color=_INTERVAL, marker="s", linestyle="", gid="differences")
    ax.set_xlabel("difference (points), 95 % interval")
    ax.grid(alpha=0.25)
