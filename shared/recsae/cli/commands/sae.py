"""`recsae sae`: sparse autoencoders compared with each other; here the sweep over width, k, variant and seed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from recsae.cli.commands import sae_compare
from recsae.cli.context import JsonFlag, ModelName, Platform, context_of
from recsae.cli.output import console, print_json
from recsae.cli.run_bars import ENDED, fail_unless_succeeded, follow
from recsae.cli.sweep_plot import check_plot_file, write_plot
from recsae.cli.sweep_table import results_of, sweep_json, sweep_table
from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.v1 import pipeline_pb2

app = typer.Typer(help="SAEs: sweep, export, match, seed stability.", no_args_is_help=True)
sae_compare.register(app)


@app.command()
def sweep(
    ctx: typer.Context,
    model: ModelName = "",
    data: Annotated[str, typer.Option(help="Data set to collect over; default: the model's own")] = "",
    width: Annotated[str, typer.Option(help="Latents, e.g. 512,1024; default: 4 x d")] = "",
    k: Annotated[str, typer.Option(help="Firing latents per vector, e.g. 8,16; default: d / 8")] = "",
    variant: Annotated[str, typer.Option(help="topk, batchtopk, matryoshka")] = "topk",
    seed: Annotated[str, typer.Option(help="Seeds, e.g. 0,1,2")] = "0",
    epochs: Annotated[int, typer.Option(min=0, help="Passes over the activations; 0 = chosen")] = 0,
    run: Annotated[str, typer.Option(help="Show the sweep of this run instead of starting one")] = "",
    plot: Annotated[
        Path | None, typer.Option(help="File of the plot (.svg, .png, .pdf); default: RUN.svg", show_default=False)
    ] = None,
    wait: Annotated[bool, typer.Option(help="Follow it to its end")] = True,
    json: JsonFlag = False,
) -> None:
    """Train one SAE per combination on the same activations; show one table and draw one plot.

    With --json a plot is drawn only where --plot names its file.

    Examples: [bold]recsae sae sweep --width 512,1024 --k 8,16 --variant topk,batchtopk,matryoshka --seed 0,1,2[/] ·
    [bold]recsae sae sweep --run r-20261123-2041-7f3a --plot sweep.svg[/]
    """
    context = context_of(ctx)
    if plot is not None:
        _check_can_plot(plot)
    if run:
        found = _get(context.platform, run)
    else:
        entry = context.workspace.model(model)
        if not data and not entry.dataset:
            raise FailedPreconditionError(f"model {entry.name} came without a data set; name one, e.g. --data ml-100k")
        request = pipeline_pb2.StartSweepRequest(
            model=model or entry.name,
            dataset_version=context.workspace.dataset(data or entry.dataset).version,
            epochs=epochs,
            grid=grid_of(width, k, variant, seed),
        )
        found = context.platform.call(context.platform.pipeline.StartSweep, request).run
    if wait and found.state not in ENDED:
        found = follow(context.platform, found.id, quiet=json)
    _show(found, plot, json)
    if wait:
        fail_unless_succeeded(found)


def grid_of(width: str, k: str, variant: str, seed: str) -> pipeline_pb2.SweepGrid:
    """The grid of comma-separated lists; InvalidRequestError names a value that is no number."""
    return pipeline_pb2.SweepGrid(
        widths=_numbers("--width", width, 32),
        ks=_numbers("--k", k, 32),
        variants=_words(variant),
        seeds=_numbers("--seed", seed, 63),
    )


def _show(run: pipeline_pb2.Run, plot: Path | None, json: bool) -> None:
    """Table and plot of what is done so far; a sweep that failed shows the points it has."""
    if not run.HasField("sweep"):
        raise InvalidRequestError(f"run {run.id} is a refresh, not a sweep; `recsae runs {run.id}` shows it")
    results = results_of(run)
    title = f"Sweep of {run.config.model}, {len(results)} points, run {run.id}"
    if json:
        print_json(sweep_json(run))
    elif results:
        console.print(sweep_table(title, results))
    elif run.state not in ENDED:
        console.print(f"Run {run.id} has no point yet; `recsae sae sweep --run {run.id}` shows it later.")
    if not any(result.scores for result in results) or (json and plot is None):
        return
    if plot is None and importlib.util.find_spec("matplotlib") is None:
        console.print("No plot: that needs the package matplotlib (pip install 'recsae[worker]').", style="dim")
        return
    path = plot or Path(f"{run.id}.svg")
    write_plot(path, title, results)
    if not json:
        console.print(f"Plot: {path}", markup=False)


def _check_can_plot(path: Path) -> None:
    """Before hours of training, not after them."""
    check_plot_file(path)
    if importlib.util.find_spec("matplotlib") is None:
        raise ModuleNotFoundError("matplotlib is not installed", name="matplotlib")


def _get(platform: Platform, run_id: str) -> pipeline_pb2.Run:
    return platform.call(platform.pipeline.GetRun, pipeline_pb2.GetRunRequest(run_id=run_id)).run


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(option: str, text: str, bits: int) -> list[int]:
    numbers = []
    for word in _words(text):
        if not word.isdecimal() or int(word) >= 1 << bits:
            raise InvalidRequestError(f"{option} {word!r} is no number that fits; give e.g. {option} 8,16")
        numbers.append(int(word))
    return numbers
