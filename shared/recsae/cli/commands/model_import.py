"""`recsae model import`: a folder with a bundle, or one ONNX graph to be cut, checked and published."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from recsae.cli.context import JsonFlag, context_of
from recsae.cli.onnx_importing import Given, GraphImport, PublishedIds, import_graph, load, next_command
from recsae.cli.output import console, print_json
from recsae.cli.workspace import ModelEntry, Workspace, check_name
from recsae.errors import InvalidRequestError

if TYPE_CHECKING:
    from recsae.datasets.schema import Dataset
    from recsae.recommenders.onnx_study import Statements

_CHOOSE = 2
_SHOWN = 40


class Padding(StrEnum):
    """Where a graph wants its histories filled up."""

    left = "left"
    right = "right"


def import_(
    ctx: typer.Context,
    path: Annotated[
        Path,
        typer.Argument(
            help="One ONNX graph, or a folder with trunk.onnx, head.onnx, items.json, bundle.json", exists=True
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the model; default: the bundle's own, or the file's")] = "",
    data: Annotated[str, typer.Option(help="Data set whose histories it serves and is checked on")] = "",
    activation: Annotated[
        list[str] | None,
        typer.Option(help="Tensor to cut at; further ones can be read only. None: list those there are"),
    ] = None,
    hook: Annotated[list[str] | None, typer.Option(help="NAME=TENSOR: name of an activation")] = None,
    items: Annotated[
        Path | None, typer.Option(help='Item ids in the graph\'s order: JSON list or {"ids": .., "titles": ..}')
    ] = None,
    users: Annotated[Path | None, typer.Option(help="User ids in the graph's order, likewise")] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", help="NAME=history|length|mask|user|candidate|attribute:age: what an input is; default: guessed"
        ),
    ] = None,
    scores: Annotated[str, typer.Option(help="Tensor with the scores; default: the output it must be")] = "",
    padding: Annotated[Padding, typer.Option(help="Side histories are filled up at")] = Padding.right,
    first_index: Annotated[int, typer.Option(min=0, max=1, help="The graph's index of the first item")] = 1,
    padding_index: Annotated[int | None, typer.Option(help="Its index for no item; default: 0")] = None,
    max_history: Annotated[int, typer.Option(min=0, help="Items to read where it leaves that open")] = 0,
    first_user: Annotated[int, typer.Option(min=0, max=1, help="Its index of the first user")] = 1,
    unknown_user: Annotated[int | None, typer.Option(help="Its index for a user it does not know")] = None,
    json: JsonFlag = False,
) -> None:
    """Publish a model made elsewhere: one ONNX graph, cut at a tensor, or a folder with a bundle. It is run first.

    Without --activation the tensors a graph can be cut at are listed, with a suggestion, and the exit code is 2.

    Examples: [bold]recsae model import model.onnx[/] ·
    [bold]recsae model import model.onnx --activation /norm/Add_output_0 --items items.json --data ml-100k[/] ·
    [bold]recsae model import bundle/ --name mine[/]
    """
    from recsae.recommenders.onnx_study import Statements

    side: Literal["left", "right"] = "left" if padding is Padding.left else "right"
    stated = Statements(
        tuple(inputs or ()), scores, side, first_index, padding_index, max_history, first_user, unknown_user
    )
    workspace = context_of(ctx).workspace
    dataset = load(workspace, data)
    if path.is_dir():
        if activation or hook or items or users or stated != Statements():
            raise InvalidRequestError(f"{path} is a folder with a bundle; options about a single graph do not apply")
        _import_folder(workspace, path, check_name(name) if name else None, dataset, json)
    elif activation:
        called = check_name(name or re.sub(r"[^\w.-]", "_", path.stem))
        asked = GraphImport(path, stated, called, activation, hook or [], items, users)
        _import_graph(workspace, asked, dataset, json)
    else:
        given = Given(bool(data), items is not None, users is not None, bool(max_history))
        _list(workspace, path, stated, given, json)
        raise typer.Exit(_CHOOSE)


def _import_folder(workspace: Workspace, folder: Path, name: str | None, dataset: Dataset | None, json: bool) -> None:
    from recsae.recommenders.importing import import_bundle

    imported = import_bundle(workspace.artifacts(), folder, name=name, published_as=PublishedIds(workspace, dataset))
    entry = ModelEntry(imported.name, imported.version, dataset.name if dataset else "")
    workspace.add_model(entry)
    if json:
        print_json({**vars(entry), "notes": imported.notes})
    else:
        _say(entry, [f"Note: {note}" for note in imported.notes])


def _import_graph(workspace: Workspace, asked: GraphImport, dataset: Dataset | None, json: bool) -> None:
    imported = import_graph(workspace, asked, dataset, PublishedIds(workspace, dataset))
    entry = ModelEntry(asked.name, imported.version, dataset.name if dataset else "")
    workspace.add_model(entry)
    description = imported.description
    if json:
        facts = {
            "head": description.head,
            "hooks": [vars(one) for one in description.hooks],
            "passthrough": description.passthrough,
            "agreement": vars(imported.agreement),
        }
        print_json({**vars(entry), **facts, "notes": imported.notes})
        return
    head = "a dot product" if description.head == "dot_product" else "opaque"
    hooks = ", ".join(f"{one.name} ({one.dim} numbers per {one.rows})" for one in description.hooks)
    said = [f"Checked: {imported.agreement}.", f"Hooks: {hooks}. The head is {head}."]
    _say(entry, [*said, *(f"Note: {note}" for note in imported.notes)])


def _say(entry: ModelEntry, lines: list[str]) -> None:
    console.print(f"Added [bold]{entry.name}[/], version {entry.version}.")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _list(workspace: Workspace, path: Path, stated: Statements, given: Given, json: bool) -> None:
    """The candidates, and the command that imports the suggested one."""
    from recsae.cli.onnx_views import listing, record
    from recsae.recommenders.onnx_candidates import suggestion
    from recsae.recommenders.onnx_study import study

    studied = study(path, stated, to_import=False)
    found = studied.candidates()
    chosen = suggestion(found)
    if chosen is None:
        raise InvalidRequestError(
            f"{path} has no tensor [batch, d] or [batch, interests, d] before its scores {studied.scores!r}; export it "
            "so that the vector the scores are computed from is one row per subject"
        )
    command = next_command(sys.argv[1:], workspace, path, studied, chosen.candidate.name, given)
    if json:
        print_json(record(studied, found, chosen, command))
        return
    console.print(listing(studied, found, chosen, _SHOWN))
    console.print("\n[bold]Next[/]")
    console.print(f"  {command}", markup=False, soft_wrap=True)
