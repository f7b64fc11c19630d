"""A sweep as one plot: NDCG kept, dead latents and FVU against L0, a line per variant and width.

matplotlib is imported when a plot is drawn: the rest of the command line works without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.pipeline.sweeps import NDCG_KEPT, Configuration, PointResult, by_configuration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".svg", ".png", ".pdf")
# Colour tells the width, marker and dash the variant; safe for colour-blind readers (Okabe and Ito 2008).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = {"topk": ("o", "-"), "batchtopk": ("s", "--"), "matryoshka": ("^", ":")}
_REFERENCE = "#777777"
_LEGEND_COLUMNS = 6


@dataclass(frozen=True)
class Panel:
    """One panel: the score it shows, its axis label, the score of adaptive PCA beside it, "" for none.

    `from_zero`: the axis begins at 0.
    """

    score: str
    label: str
    reference: str = ""
    from_zero: bool = False


PANELS = (
    Panel(NDCG_KEPT, "NDCG@10 kept", f"{NDCG_KEPT}_adaptive_pca"),
    Panel("sae.dead", "dead latents (share)", from_zero=True),
    Panel("sae.fvu", "FVU", "sae.fvu_adaptive_pca"),
)


def check_plot_file(path: Path) -> None:
    """InvalidRequestError for a format that is not drawn, FailedPreconditionError where there is no such folder."""
    if path.suffix.lower() not in FORMATS:
        raise InvalidRequestError(f"a plot cannot be written to {path}; name a file that ends in {', '.join(FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise FailedPreconditionError(f"there is no folder {path.absolute().parent} to write the plot to; make it")


def write_plot(path: Path, title: str, results: Iterable[PointResult]) -> None:
    """Draws the points into a file; seeds as faint marks, their mean as the line, intervals where there are any.

    FailedPreconditionError when no point has scores.
    """
    import matplotlib
    from matplotlib.figure import Figure

    check_plot_file(path)
    configurations = [one for one in by_configuration(results) if one.scores]
    if not configurations:
        raise FailedPreconditionError("no point of the sweep is done, so there is nothing to plot")
    # Text stays text, so that a plot can be searched; ids and dates stay out, so that the same sweep is the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "recsae", "font.size": 9}):
        figure = Figure(figsize=(12.0, 4.2), layout="constrained")
        axes = figure.subplots(1, len(PANELS), sharex=True)
        for panel, ax in zip(PANELS, axes, strict=True):
            _draw_panel(ax, panel, configurations)
        handles, labels = axes[0].get_legend_handles_labels()
        if not handles:  # no held-out user had a target: nothing was ranked
            handles, labels = axes[-1].get_legend_handles_labels()
        rows = math.ceil(len(labels) / _LEGEND_COLUMNS)
        columns = math.ceil(len(labels) / rows)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
        figure.suptitle(title)
        figure.savefig(path, metadata={"Date": None} if path.suffix.lower() == ".svg" else None, dpi=150)


def _draw_panel(ax: Axes, panel: Panel, configurations: Sequence[Configuration]) -> None:
    widths = sorted({one.width for one in configurations})
    lines: dict[tuple[str, int], list[Configuration]] = {}
    for one in configurations:
        if panel.score in one.scores and "sae.l0" in one.scores:
            lines.setdefault((one.variant, one.width), []).append(one)
    for (variant, width), line in lines.items():
        colour = _COLOURS[widths.index(width) % len(_COLOURS)]
        marker, dash = _STYLES.get(variant, ("D", "-."))
        line.sort(key=lambda one: one.scores["sae.l0"].mean)
        means = [(one.scores["sae.l0"].mean, one.scores[panel.score].mean) for one in line]
        ax.plot(
            *zip(*means, strict=True), color=colour, marker=marker, linestyle=dash, markersize=5,
            label=f"{variant}, width {width}", gid=f"{panel.score}/{variant}/{width}",
        )  # fmt: skip
        seeds = [
            (result.scores["sae.l0"], result.scores[panel.score])
            for one in line
            for result in one.results
            if len(one.results) > 1 and not result.failure
        ]
        _draw_intervals(ax, panel, line, colour, f"{panel.score}/{variant}/{width}/interval")
        if seeds:
            ax.plot(
                *zip(*seeds, strict=True), color=colour, marker=marker, linestyle="", alpha=0.35, markersize=4,
                gid=f"{panel.score}/{variant}/{width}/seeds",
            )  # fmt: skip
    if panel.from_zero:
        ax.set_ylim(bottom=0.0)
    _draw_reference(ax, panel, configurations)
    ax.set_xlabel("L0 (latents that fire per vector)")
    ax.set_ylabel(panel.label)
    ax.grid(alpha=0.25)


def _draw_intervals(ax: Axes, panel: Panel, line: Sequence[Configuration], colour: str, gid: str) -> None:
    """95 % intervals over users, their ends averaged over seeds: what lies within them is noise."""
    ends = [f"{panel.score}_low", f"{panel.score}_high"]
    known = [one.scores for one in line if all(end in one.scores for end in ends)]
    if known:
        low, high = ([scores[end].mean for scores in known] for end in ends)
        ax.vlines([scores["sae.l0"].mean for scores in known], low, high, color=colour, alpha=0.35, gid=gid)


def _draw_reference(ax: Axes, panel: Panel, configurations: Sequence[Configuration]) -> None:
    """Adaptive PCA with as many numbers per vector as the SAE was trained for: it depends on k alone."""
    by_k = {one.k: one.scores[panel.reference].mean for one in configurations if panel.reference in one.scores}
    if by_k:
        ks = sorted(by_k)
        ax.plot(
            ks, [by_k[k] for k in ks], color=_REFERENCE, linestyle="-.", marker="x", markersize=5,
            label="adaptive PCA", gid=f"{panel.score}/adaptive-pca",
        )  # fmt: skip
