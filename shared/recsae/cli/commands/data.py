"""`recsae data fetch | import | planted | show`: data sets of the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsae.cli.context import JsonFlag, context_of
from recsae.cli.output import console, print_json, table
from recsae.cli.workspace import DatasetEntry, Workspace
from recsae.errors import InvalidRequestError

app = typer.Typer(help="Data sets: fetch, import, make, show.", no_args_is_help=True)
Lenient = Annotated[bool, typer.Option("--lenient", help="Count and report bad rows instead of stopping at the first.")]


@app.command()
def fetch(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Fetch MovieLens-100K (out of the PyPI wheel recbole 1.2.1) and add it as `ml-100k`.

    Example: [bold]recsae data fetch[/]
    """
    entry = fetch_ml100k_into(context_of(ctx).workspace)
    print_json(vars(entry)) if json else console.print(f"Added [bold]{entry.name}[/], version {entry.version}.")


@app.command(name="import")
def import_(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="Folder of RecBole atomic files, or a CSV or Parquet file", exists=True)],
    name: Annotated[str, typer.Option(help="Name in the workspace; default: the folder's or file's name")] = "",
    items: Annotated[Path | None, typer.Option(help="CSV or Parquet file of items", exists=True)] = None,
    users: Annotated[Path | None, typer.Option(help="CSV or Parquet file of users", exists=True)] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--column", help="Mapping, repeatable: --column user=customer_id")
    ] = None,
    lenient: Lenient = False,
    json: JsonFlag = False,
) -> None:
    """Import interactions, with items and users where there are any.

    Examples: [bold]recsae data import ml-1m/[/] ·
    [bold]recsae data import orders.parquet --column user=customer --column item=sku --column time=ordered_at[/]
    """
    from recsae.datasets.atomic import load_atomic
    from recsae.datasets.tabular import ColumnMapping, load_table

    if path.is_dir():
        loaded = load_atomic(path, name or None, lenient=lenient)
    else:
        mapping = ColumnMapping(**_mapping(columns or []))
        loaded = load_table(path, mapping, items_path=items, users_path=users, lenient=lenient, name=name or path.stem)
    entry = add_dataset(context_of(ctx).workspace, loaded.dataset)
    if json:
        print_json({**vars(entry), "skipped_rows": loaded.report.skipped})
        return
    console.print(f"Added [bold]{entry.name}[/], version {entry.version}.")
    if loaded.report.skipped:
        console.print(f"[yellow]{loaded.report.skipped} bad rows were left out:[/] {loaded.report}")


@app.command()
def planted(
    ctx: typer.Context,
    users: Annotated[int, typer.Option(min=50, help="Users")] = 400,
    items: Annotated[int, typer.Option(min=20, help="Items")] = 200,
    concepts: Annotated[int, typer.Option(min=2, help="Known concepts planted in it")] = 8,
    seed: Annotated[int, typer.Option(help="Seed")] = 0,
    json: JsonFlag = False,
) -> None:
    """Make a data set with known concepts, to see what is found back.

    Example: [bold]recsae data planted --concepts 12[/]
    """
    from recsae.datasets.planted import make_planted

    made = make_planted(seed=seed, n_users=users, n_items=items, n_concepts=concepts)
    entry = add_dataset(context_of(ctx).workspace, made.dataset)
    print_json(vars(entry)) if json else console.print(f"Added [bold]{entry.name}[/], version {entry.version}.")


@app.command()
def show(ctx: typer.Context, json: JsonFlag = False) -> None:
    """List the data sets of the workspace."""
    entries = context_of(ctx).workspace.datasets()
    if json:
        print_json([vars(entry) for entry in entries])
        return
    console.print(table("Data sets", ["name", "version", "folder"], [(e.name, e.version, e.folder) for e in entries]))


def fetch_ml100k_into(workspace: Workspace) -> DatasetEntry:
    """Fetches MovieLens-100K into the download cache and adds it."""
    from recsae.datasets.atomic import load_atomic
    from recsae.datasets.movielens import fetch_ml100k

    return add_dataset(workspace, load_atomic(fetch_ml100k(workspace.downloads), "ml-100k").dataset)


def add_dataset(workspace: Workspace, dataset: object) -> DatasetEntry:
    """Saves the private folder, publishes the pseudonymous artifact, and enters both in the workspace."""
    from recsae.datasets.schema import Dataset, publish_dataset, save_dataset

    assert isinstance(dataset, Dataset)
    folder = workspace.dataset_folder(dataset.name)
    save_dataset(dataset, folder)
    version = publish_dataset(workspace.artifacts(), dataset, workspace.pseudonym_key())
    entry = DatasetEntry(dataset.name, version, str(folder))
    workspace.add_dataset(entry)
    return entry


def _mapping(pairs: list[str]) -> dict[str, str]:
    mapping = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not value:
            raise InvalidRequestError(f"--column {pair!r} is not of the form field=column, e.g. user=customer_id")
        mapping[key] = value
    return mapping
