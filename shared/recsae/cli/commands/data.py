"""`recsae data fetch | import | planted | show`: data sets of the workspace."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from recsae.cli.context import JsonFlag, context_of
from recsae.cli.output import console, print_json, share, table
from recsae.cli.workspace import DatasetEntry, Workspace, check_name
from recsae.errors import InvalidRequestError

if TYPE_CHECKING:  # they need pyarrow or the data set's folder; every other command starts without
    from recsae.datasets.schema import Dataset
    from recsae.datasets.summary import Summary
    from recsae.datasets.tabular import ColumnMapping

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
    from recsae.datasets.tabular import load_table

    if path.is_dir():
        if items or users or columns:
            raise InvalidRequestError(
                f"{path} is a folder of atomic files, which --items, --users, --column do not fit"
            )
        loaded = load_atomic(path, check_name(name) if name else None, lenient=lenient)
    else:
        mapping, chosen = _mapping(columns or []), check_name(name or path.stem)
        loaded = load_table(path, mapping, items_path=items, users_path=users, lenient=lenient, name=chosen)
    entry = add_dataset(context_of(ctx).workspace, loaded.dataset)
    if json:
        print_json({**vars(entry), "skipped_rows": loaded.report.skipped, "examples": loaded.report.examples})
        return
    console.print(f"Added [bold]{entry.name}[/], version {entry.version}.")
    if loaded.report.skipped:
        console.print(str(loaded.report), style="yellow", markup=False, soft_wrap=True)


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
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Data set to show in full; default: list them all")] = "",
    json: JsonFlag = False,
) -> None:
    """List the data sets of the workspace with their sizes, or show one with its shape and quirks.

    Examples: [bold]recsae data show[/] · [bold]recsae data show ml-100k --json[/]
    """
    workspace = context_of(ctx).workspace
    described = [(entry, _summary(entry)) for entry in ([workspace.dataset(name)] if name else workspace.datasets())]
    if json:
        found = [{**vars(entry), "summary": asdict(summary)} for entry, summary in described]
        print_json(found[0] if name else found)
        return
    console.print(_in_full(*described[0]) if name else _overview(described))


def fetch_ml100k_into(workspace: Workspace) -> DatasetEntry:
    """Fetches MovieLens-100K into the download cache and adds it."""
    from recsae.datasets.atomic import load_atomic
    from recsae.datasets.movielens import fetch_ml100k

    return add_dataset(workspace, load_atomic(fetch_ml100k(workspace.downloads), "ml-100k").dataset)


def add_dataset(workspace: Workspace, dataset: Dataset) -> DatasetEntry:
    """Saves the private folder, publishes the pseudonymous artifact, and enters both in the workspace."""
    from recsae.datasets.schema import publish_dataset, save_dataset

    folder = workspace.dataset_folder(check_name(dataset.name))
    save_dataset(dataset, folder)
    version = publish_dataset(workspace.artifacts(), dataset, workspace.pseudonym_key())
    entry = DatasetEntry(dataset.name, version, str(folder))
    workspace.add_dataset(entry)
    return entry


def _mapping(pairs: list[str]) -> ColumnMapping:
    from recsae.datasets.tabular import ColumnMapping

    mapping = {}
    known = [field.name for field in fields(ColumnMapping)]
    for pair in pairs:
        key, separator, column = pair.partition("=")
        if not separator or key not in known:
            raise InvalidRequestError(
                f"--column {pair!r} is not FIELD=COLUMN with a field out of {', '.join(known)}; "
                "write e.g. --column user=customer_id"
            )
        mapping[key] = column
    return ColumnMapping(**mapping)


def _summary(entry: DatasetEntry) -> Summary:
    from recsae.datasets.schema import load_dataset
    from recsae.datasets.summary import summarise

    return summarise(load_dataset(entry.folder))


def _overview(described: list[tuple[DatasetEntry, Summary]]) -> Table:
    rows = [
        (
            entry.name,
            entry.version,
            f"{summary.users:,}",
            f"{summary.items:,}",
            f"{summary.interactions:,}",
            entry.folder,
        )
        for entry, summary in described
    ]
    return table("Data sets", ["name", "version", ">users", ">items", ">interactions", "folder"], rows)


def _in_full(entry: DatasetEntry, summary: Summary) -> Table:
    rows = [
        ("version", entry.version),
        ("folder", entry.folder),
        ("users, items", f"{summary.users:,}, {summary.items:,}"),
        ("interactions", f"{summary.interactions:,}, {share(summary.density)} of users x items"),
        ("per user", f"{summary.length_min} to {summary.length_max}, median {summary.length_median:g}"),
        ("with the most popular tenth of items", share(summary.top_decile_share)),
        ("at the same time as another of their user", share(summary.tied_share)),
        ("time, in the source's unit", f"{summary.first_at:.0f} to {summary.last_at:.0f}"),
        ("items that share a title", str(summary.repeated_titles)),
        ("item columns", ", ".join(summary.item_columns) or "none"),
        ("user columns", ", ".join(summary.user_columns) or "none"),
    ]
    return table(f"Data set {entry.name}", ["what", "value"], [(what, escape(value)) for what, value in rows])
