"""An experiment as one plot: differences and their intervals, a panel per comparison.

matplotlib is imported when a plot is drawn: the rest of the command line works without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recsae.cli.experiment_record import Experiment
from recsae.cli.sweep_plot import check_plot_file
from recsae.errors import FailedPreconditionError

_FOUND, _FOUND_COLOUR, _OTHER_COLOUR = 0.05, "#0072B2", "#777777"


def write_experiment_plot(path: Path, experiment: Experiment, wanted: Sequence[str], limit: int) -> None:
    """Quality, the facets `wanted`, and the `limit` others that differ most; coloured where it is no accident.

    FailedPreconditionError when nothing could be compared.
    """
    import matplotlib
    from matplotlib.figure import Figure

    check_plot_file(path)
    if not experiment.comparisons:
        raise FailedPreconditionError("no two arms have users enough to compare, so there is nothing to plot")
    first = experiment.comparisons[0].found
    order = np.argsort(-np.abs(first.value), kind="stable").tolist()
    named = [at for at, name in enumerate(experiment.measures) if at < experiment.quality or name in wanted]
    shown = [*named, *[at for at in order if at >= experiment.quality and at not in named][:limit]]
    places = np.arange(len(shown))[::-1]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "recsae", "font.size": 9}):
        panels = len(experiment.comparisons)
        figure = Figure(figsize=(4.0 + 3.2 * panels, 1.4 + 0.3 * len(shown)), layout="constrained")
        axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
        for one, ax in zip(experiment.comparisons, axes, strict=True):
            found, adjusted = one.found, experiment.adjusted(one)
            colours = [_FOUND_COLOUR if adjusted[at] < _FOUND else _OTHER_COLOUR for at in shown]
            ax.axvline(0.0, color="black", linewidth=0.8)
            ax.hlines(places, found.low[shown], found.high[shown], color=colours)
            ax.scatter(found.value[shown], places, color=colours, s=18, gid=f"{one.comparing}/{one.revision}")
            ax.set_title(f"{one.comparing}, revision {one.revision}")
            ax.set_xlabel("difference, 95 % interval")
            ax.locator_params(axis="x", nbins=5)
            ax.grid(alpha=0.25, axis="x")
        axes[0].set_yticks(places, [experiment.measures[at] for at in shown])
        figure.suptitle(f"{experiment.policy_id} {experiment.name}".strip())
        figure.savefig(path, metadata={"Date": None} if path.suffix.lower() == ".svg" else None, dpi=150)
