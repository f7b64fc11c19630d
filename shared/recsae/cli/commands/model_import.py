"""`recsae model import`: a folder with a bundle, or one ONNX graph to be cut, checked and published."""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from recsae.cli.context import JsonFlag, context_of
from recsae.cli.output import console, print_json
from recsae.cli.workspace import ModelEntry, Workspace, check_name
from recsae.errors import InvalidRequestError

if TYPE_CHECKING:
    from recsae.datasets.schema import Dataset
    from recsae.recommenders.importing import Imported
    from recsae.recommenders.onnx_study import Statements, Study

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
    dataset = _dataset(workspace, data)
    published_as = _Pseudonyms(workspace, dataset)
    about_graph: dict[str, Any] = {}
    if path.is_dir():
        if activation or hook or items or users or stated != Statements():
            raise InvalidRequestError(f"{path} is a folder with a bundle; options about a single graph do not apply")
        from recsae.recommenders.importing import import_bundle

        imported = import_bundle(
            workspace.artifacts(), path, name=check_name(name) if name else None, published_as=published_as
        )
    elif not activation:
        _list(path, stated, items is not None or dataset is not None, users is not None or dataset is not None, json)
        raise typer.Exit(_CHOOSE)
    else:
        called = check_name(name or re.sub(r"[^\w.-]", "_", path.stem))
        imported, about_graph = _import_graph(
            workspace, path, stated, called, activation, hook or [], items, users, dataset, published_as
        )
    entry = ModelEntry(imported.name, imported.version, dataset.name if dataset else "")
    workspace.add_model(entry)
    if json:
        print_json({**vars(entry), **about_graph, "notes": imported.notes})
        return
    console.print(f"Added [bold]{entry.name}[/], version {entry.version}.")
    for note in (*about_graph.get("summary", ()), *(f"Note: {note}" for note in imported.notes)):
        console.print(note, markup=False, soft_wrap=True)


class _Pseudonyms:
    """User ids as they are published: pseudonyms under the workspace's key, unless they are the data set's already."""

    def __init__(self, workspace: Workspace, dataset: Dataset | None) -> None:
        self._workspace, self._dataset = workspace, dataset
        self._known: frozenset[str] | None = None

    def __call__(self, user_id: str) -> str:
        from recsae.store.pseudonyms import pseudonym

        key = self._workspace.pseudonym_key()
        if self._known is None:
            ids = self._dataset.users.ids if self._dataset else ()
            self._known = frozenset(pseudonym(key, one) for one in ids)
        return user_id if user_id in self._known else pseudonym(key, user_id)


def _dataset(workspace: Workspace, name: str) -> Dataset | None:
    if not name:
        return None
    from recsae.datasets.schema import load_dataset

    entry = workspace.dataset(name)
    return replace(load_dataset(entry.folder), name=entry.name)


def _list(path: Path, stated: Statements, has_items: bool, has_users: bool, json: bool) -> None:
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
    command = _next(studied, stated, chosen.candidate.name, has_items, has_users)
    if json:
        print_json(record(studied, found, chosen, command))
        return
    console.print(listing(studied, found, chosen, command, _SHOWN))


def _next(studied: Study, stated: Statements, tensor: str, has_items: bool, has_users: bool) -> str:
    """The command as it was typed, with what it still needs."""
    given = [word for word in sys.argv[1:] if word != "--json"]
    kinds = {role.kind: role for role in studied.roles}
    more = ["--activation", tensor]
    more += [] if has_items else ["--items", "items.json"]
    more += ["--users", "users.json"] if "user" in kinds and not has_users else []
    if "history" in kinds and not isinstance(kinds["history"].type.dims[1], int) and not stated.max_history:
        more += ["--max-history", "50"]
    for role in studied.roles:
        if role.attribute and role.attribute.kind == "category" and not role.attribute.values:
            more += ["--input", f"{role.tensor}=attribute:{role.attribute.name}:values.json"]
    return shlex.join(["recsae", *given, *more])


def _import_graph(
    workspace: Workspace,
    path: Path,
    stated: Statements,
    name: str,
    activations: list[str],
    hooks: list[str],
    items: Path | None,
    users: Path | None,
    dataset: Dataset | None,
    published_as: _Pseudonyms,
) -> tuple[Imported, dict[str, Any]]:
    from recsae.recommenders.importing import import_bundle
    from recsae.recommenders.onnx_import import Names, build_bundle, hook_names
    from recsae.recommenders.onnx_names import item_list, real_subjects, user_list
    from recsae.recommenders.onnx_study import study

    named = hook_names(activations, hooks)
    studied = study(path, stated)
    listed, about_items = item_list(studied, items, dataset)
    people, about_users = user_list(studied, users, dataset)
    names = Names(name, listed.ids, listed.titles, [published_as(user) for user in people.ids])
    real = real_subjects(dataset, listed.ids, published_as) if dataset else None
    with tempfile.TemporaryDirectory() as scratch:
        built = build_bundle(studied, named, names, Path(scratch), real)
        imported = import_bundle(workspace.artifacts(), Path(scratch))
    notes = (*about_items, *about_users, *built.notes, *imported.notes)
    description, agreement = built.bundle.description, built.agreement
    head = "a dot product" if description.head == "dot_product" else "opaque"
    hooks_said = ", ".join(f"{hook.name} ({hook.dim} numbers per {hook.rows})" for hook in description.hooks)
    said = (f"Checked: {agreement}.", f"Hooks: {hooks_said}. The head is {head}.")
    facts: dict[str, Any] = {
        "hooks": [vars(hook) for hook in description.hooks],
        "head": description.head,
        "passthrough": description.passthrough,
        "agreement": vars(agreement),
    }
    return replace(imported, notes=notes), {**facts, "summary": said}
