"""An experiment as tables: the arms, then each comparison with its intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from recsae.cli.experiment_record import INTERVAL, Experiment
from recsae.cli.output import short, table, with_interval
from recsae.steering.arms import Comparing, Comparison

_TITLES = {
    Comparing.PAIRED: ("Those it applied to, with and without steering", "with", "without"),
    Comparing.ARMS: ("Those it applied to beside those held out", "applied", "held out"),
    Comparing.ADJUSTED: ("The same, each user less the bare list", "applied", "held out"),
    Comparing.SHADOW: ("What it would have shown beside what was served", "would be", "served"),
}
_FOUND = 0.05


def experiment_view(experiment: Experiment, wanted: Sequence[str], limit: int) -> RenderableType:
    """Quality always, facets `wanted` always, of the others the `limit` that changed most and are no accident."""
    named = f"{experiment.policy_id} {experiment.name}".strip()
    source = "replayed traffic" if experiment.source == "replay" else "exposure log"
    parts: list[RenderableType] = [f"[bold]{escape(named)}[/], {source}", _arms(experiment)]
    for one in experiment.comparisons:
        parts += _comparison(experiment, one, wanted, limit)
    for revision, (mean, low, high) in experiment.overlaps.items():
        parts.append(f"Revision {revision} in shadow keeps {escape(with_interval(mean, low, high))} of each list.")
    parts += [f"[yellow]![/] {escape(note)}" for note in experiment.notes]
    parts.append(f"[dim]Intervals: {INTERVAL}. p of facets adjusted for their number.[/]")
    return Group(*parts)


def _arms(experiment: Experiment) -> Table:
    rows = [
        (place.role.value.replace("_", " "), str(place.revision), f"{len(arm):,}")
        for place, arm in experiment.arms.items()
    ]
    outside = [
        (f"[dim]in no arm: {escape(reason.replace('_', ' '))}[/]", "", f"[dim]{count:,}[/]")
        for reason, count in sorted(experiment.outside.items(), key=lambda one: -one[1])
    ]
    counted = ">users" if experiment.source == "replay" else ">users (in no arm: exposures)"
    return table("Arms", ["arm", ">revision", counted], [*rows, *outside])


def _comparison(experiment: Experiment, one: Comparison, wanted: Sequence[str], limit: int) -> Iterable[RenderableType]:
    found, adjusted = one.found, experiment.adjusted(one)
    title, after, before = _TITLES[one.comparing]
    named = [
        at for at in range(len(experiment.measures)) if at < experiment.quality or experiment.measures[at] in wanted
    ]
    changed = [
        int(at)
        for at in np.argsort(-np.abs(found.value), kind="stable")
        if at >= experiment.quality and adjusted[at] < _FOUND and found.value[at] != 0 and at not in named
    ]
    rows = [_row(experiment, one, at, float(adjusted[at])) for at in [*named, *changed[:limit]]]
    users = (
        f"{found.n_after:,} users" if found.n_after == found.n_before else f"{found.n_after:,} and {found.n_before:,}"
    )
    heading = f"{title} (revision {one.revision}, {users})"
    facets = len(experiment.measures) - experiment.quality
    if not rows:
        yield f"[bold]{heading}[/]: no facet of {facets} changed beyond chance.\n"
        return
    yield table(heading, ["measure", f">{after}", f">{before}", "difference [95 %]", ">p"], rows)
    if len(changed) > limit:
        yield f"[dim]{len(changed) - limit} more of {facets} facets changed; --limit shows more, --json all.[/]"
    elif not changed and facets:
        yield f"[dim]No {'other ' if wanted else ''}facet of {facets} changed beyond chance.[/]"


def _row(experiment: Experiment, one: Comparison, at: int, p: float) -> tuple[str, ...]:
    found = one.found
    name = escape(experiment.measures[at])
    difference = _with(float(found.value[at]), float(found.low[at]), float(found.high[at]))
    if p < _FOUND:
        difference = f"[bold {'green' if found.value[at] > 0 else 'red'}]{difference}[/]"
    return name, short(float(found.after[at]), ".4f"), short(float(found.before[at]), ".4f"), difference, _p(p)


def _with(value: float, low: float, high: float) -> str:
    return escape(f"{short(value, '+.4f')} [{short(low, '+.4f')}, {short(high, '+.4f')}]")


def _p(value: float) -> str:
    return "<.001" if value < 0.001 else short(value)
