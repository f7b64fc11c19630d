"""`recsae model train | export | import | list`: model bundles of the workspace."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from recsae.cli.commands.model_import import import_
from recsae.cli.context import JsonFlag, context_of
from recsae.cli.model_views import model_records, model_tables
from recsae.cli.output import console, print_json, table
from recsae.cli.training import TrainedModels, train_models
from recsae.cli.workspace import check_name
from recsae.errors import FailedPreconditionError

app = typer.Typer(help="Models: train, export, import, list.", no_args_is_help=True)

_FAMILIES = "Model family: sasrec, gru4rec, comirec, bpr, lightgcn, two_tower, din"


@app.command()
def train(
    ctx: typer.Context,
    data: Annotated[str, typer.Option(help="Data set name; default: the newest one")] = "",
    family: Annotated[str, typer.Option(help=_FAMILIES)] = "sasrec",
    name: Annotated[str, typer.Option(help="Name of the model; default: its family")] = "",
    epochs: Annotated[int, typer.Option(min=0, help="Most epochs; 0 = the default schedule")] = 0,
    seed: Annotated[int, typer.Option(help="Seed")] = 0,
    json: JsonFlag = False,
) -> None:
    """Train a model on a data set, export it to ONNX and publish the bundle, beside an untrained control.

    The control is the same network as initialised: concepts that it shows, too, say nothing about what was learnt.

    Examples: [bold]recsae model train --data ml-100k[/] · [bold]recsae model train --family gru4rec --name gru[/]
    """
    workspace = context_of(ctx).workspace
    dataset = workspace.dataset(data)
    check_name(name or family)
    with training_progress(quiet=json) as progress:
        task = progress.add_task("training", total=1.0)
        trained = train_models(
            workspace,
            dataset,
            family=family,
            name=name,
            epochs=epochs,
            seed=seed,
            progress=lambda share, text: progress.update(task, completed=share, description=text),
        )
    if json:
        print_json({"model": vars(trained.model), "control": vars(trained.control)})
        return
    console.print(quality_table(trained))


@app.command()
def export(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder to write the bundle to; must not exist yet")],
    model: Annotated[str, typer.Option("--model", "-m", help="Model name; default: the first one")] = "",
    json: JsonFlag = False,
) -> None:
    """Write a model's bundle (ONNX trunk and head, items, manifest) to a folder.

    Example: [bold]recsae model export bundle/ --model sasrec[/]
    """
    workspace = context_of(ctx).workspace
    entry = workspace.model(model)
    artifact = workspace.artifacts().fetch("model", entry.version)
    try:
        shutil.copytree(artifact.folder, folder)
    except FileExistsError as error:
        raise FailedPreconditionError(f"{folder} exists already; name a folder that does not") from error
    if json:
        print_json({**vars(entry), "folder": str(folder.resolve())})
        return
    console.print(f"Wrote {entry.name} {entry.version} to {folder}.")


app.command(name="import")(import_)


@app.command(name="list")
def list_(ctx: typer.Context, json: JsonFlag = False) -> None:
    """List the models `recsae up` serves, the default one first, with their hooks.

    Another hook than the first is addressed as NAME@HOOK, e.g. in `recsae refresh --model sasrec@block_0`.

    Examples: [bold]recsae model list[/] · [bold]recsae model list --json[/]
    """
    workspace = context_of(ctx).workspace
    entries = workspace.models()
    if json:
        print_json(model_records(workspace, entries))
        return
    console.print(model_tables(workspace, entries))


def training_progress(quiet: bool = False) -> Progress:
    """A bar for work measured as a share; `quiet` shows none, for JSON on the same output."""
    return Progress(
        TextColumn("{task.description:<46}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(), console=console, disable=quiet,
    )  # fmt: skip


def quality_table(trained: TrainedModels) -> Table:
    """HR and NDCG of the model beside the popularity baseline."""
    scores = trained.model.scores
    rows = [
        (label, *(f"{scores[f'{prefix}{metric}@{k}']:.4f}" for metric in ("hr", "ndcg") for k in (5, 10, 20)))
        for label, prefix in ((trained.model.name, ""), ("popularity", "popularity_"))
    ]
    columns = ["model", *(f">{metric}@{k}" for metric in ("HR", "NDCG") for k in (5, 10, 20))]
    return table("Test quality, full ranking, seen items left out", columns, rows)
