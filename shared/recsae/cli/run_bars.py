"""Following a run in a terminal: one bar per stage, and what training measures behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from recsae.cli.context import Platform
from recsae.cli.output import console
from recsae.errors import FailedPreconditionError
from recsae.v1 import pipeline_pb2

_POLL_S = 0.5
ENDED = {pipeline_pb2.RUN_STATE_SUCCEEDED, pipeline_pb2.RUN_STATE_FAILED, pipeline_pb2.RUN_STATE_CANCELLED}
_SHOWN = {pipeline_pb2.RUN_STATE_RUNNING, pipeline_pb2.RUN_STATE_SUCCEEDED, pipeline_pb2.RUN_STATE_FAILED}


def _nothing(run: pipeline_pb2.Run) -> None: ...


def follow(
    platform: Platform, run_id: str, quiet: bool = False, look: Callable[[pipeline_pb2.Run], None] = _nothing
) -> pipeline_pb2.Run:
    """Shows one bar per stage until the run ends; returns it as it ended. `look` sees the run at every poll."""
    bars: dict[str, TaskID] = {}
    with Progress(
        TextColumn("{task.fields[stage]:>10}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(), TextColumn("{task.description}", style="dim", markup=False),
        console=console, disable=quiet,
    ) as progress:  # fmt: skip
        while True:
            run = platform.call(platform.pipeline.GetRun, pipeline_pb2.GetRunRequest(run_id=run_id)).run
            for stage in run.stages:
                if stage.name not in bars and stage.state in _SHOWN:
                    bars[stage.name] = progress.add_task(stage.detail, total=1.0, stage=stage.name)
                if stage.name in bars:
                    progress.update(bars[stage.name], completed=stage.progress, description=bar_text(stage))
            look(run)
            if run.state in ENDED:
                return run
            time.sleep(_POLL_S)  # the run record changes in another process; progress is all that is shown


def fail_unless_succeeded(run: pipeline_pb2.Run) -> None:
    """FailedPreconditionError with the run's own reason when it did not succeed."""
    if run.state != pipeline_pb2.RUN_STATE_SUCCEEDED:
        raise FailedPreconditionError(f"run {run.id} {state_word(run.state)}: {run.reason}")


def state_word(state: pipeline_pb2.RunState.ValueType) -> str:
    """`queued`, `running` ..."""
    return pipeline_pb2.RunState.Name(state).removeprefix("RUN_STATE_").lower()


def bar_text(stage: pipeline_pb2.Stage) -> str:
    """What stands behind a stage's bar: its detail, and while it trains its measures."""
    if stage.state != pipeline_pb2.RUN_STATE_RUNNING or not stage.measures:
        return stage.detail
    return f"{stage.detail} · {measures_text(stage.measures)}"


def measures_text(measures: Mapping[str, float]) -> str:
    """Measures in one line, of training e.g. "412k act/s · FVU .021 · L0 16.0 · 0 dead · 12 s left"."""
    words: dict[str, Callable[[float], str]] = {
        "activations_per_s": lambda value: f"{short_count(value)} act/s",
        "fvu": lambda value: f"FVU {value:.3f}".replace(" 0.", " ."),
        "l0": lambda value: f"L0 {value:.1f}",
        "dead": lambda value: f"{value:,.0f} dead",
        "llm_requests": lambda value: f"{value:,.0f} requests",
        "llm_tokens": lambda value: f"{short_count(value)} tokens",
        "llm_cost": lambda value: f"cost {value:.3f}",
        "eta_s": lambda value: f"{short_time(value)} left",
    }
    return " · ".join(write(measures[name]) for name, write in words.items() if name in measures)


def short_count(value: float) -> str:
    """Three digits at most: "950", "41.2k", "412k", "1.05M"."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            scaled = value / size
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"
    return f"{value:.0f}"


def short_time(seconds: float) -> str:
    """A time left, e.g. "12 s", "3 min 05 s", "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
