"""From one foreign ONNX graph and what a person says about it to a published bundle of the workspace."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from recsae.cli.workspace import Workspace
from recsae.errors import InvalidRequestError

if TYPE_CHECKING:
    from recsae.datasets.schema import Dataset
    from recsae.recommenders.description import BundleDescription
    from recsae.recommenders.onnx_check import Agreement
    from recsae.recommenders.onnx_study import Statements, Study


@dataclass(frozen=True)
class GraphImport:
    """A graph to import: where it is cut, hooks' names, files with the ids its indices stand for."""

    path: Path
    stated: Statements
    name: str
    activations: Sequence[str]
    hooks: Sequence[str] = ()
    items: Path | None = None
    users: Path | None = None


@dataclass(frozen=True)
class ImportedGraph:
    """A graph published, how it compares with the original, and what is worth knowing."""

    version: str
    description: BundleDescription
    agreement: Agreement
    notes: tuple[str, ...]


class PublishedIds:
    """User ids as they are published: pseudonyms under the workspace's key, unless they are the data set's already."""

    def __init__(self, workspace: Workspace, dataset: Dataset | None) -> None:
        self._workspace, self._dataset = workspace, dataset

    def __call__(self, user_id: str) -> str:
        """The pseudonym of a user id."""
        return user_id if user_id in self._pseudonyms else self._pseudonym(user_id)

    @cached_property
    def _pseudonyms(self) -> frozenset[str]:
        return frozenset(self._pseudonym(one) for one in self._dataset.users.ids) if self._dataset else frozenset()

    @cached_property
    def _pseudonym(self) -> Callable[[str], str]:
        from recsae.store.pseudonyms import pseudonym

        key = self._workspace.pseudonym_key()
        return lambda user_id: pseudonym(key, user_id)


def import_graph(
    workspace: Workspace, asked: GraphImport, dataset: Dataset | None, published_as: Callable[[str], str]
) -> ImportedGraph:
    """Studies, cuts, compares and publishes; InvalidRequestError says what is missing or does not fit."""
    from recsae.recommenders.importing import import_bundle
    from recsae.recommenders.onnx_doubts import doubts
    from recsae.recommenders.onnx_hooks import hook_names
    from recsae.recommenders.onnx_import import Names, build_bundle
    from recsae.recommenders.onnx_names import item_list, real_subjects, user_list
    from recsae.recommenders.onnx_study import study
    from recsae.recommenders.runtime import OnnxRecommender

    named = hook_names(asked.activations, asked.hooks)
    studied = study(asked.path, asked.stated)
    items, about_items = item_list(studied, asked.items, dataset)
    users, about_users = user_list(studied, asked.users, dataset)
    names = Names(asked.name, items.ids, items.titles or items.ids, [published_as(user) for user in users.ids])
    real = real_subjects(dataset, items.ids, published_as) if dataset else None
    with tempfile.TemporaryDirectory() as scratch:
        built = build_bundle(studied, named, names, Path(scratch), real)
        imported = import_bundle(workspace.artifacts(), Path(scratch))
        doubted = doubts(studied, OnnxRecommender(built.bundle), real) if real else ()
    notes = (*about_items, *about_users, *built.notes, *imported.notes, *doubted)
    return ImportedGraph(imported.version, built.bundle.description, built.agreement, notes)


@dataclass(frozen=True)
class Given:
    """What a command said already: a data set, a list of items, a list of users, the length of histories."""

    data: bool
    items: bool
    users: bool
    max_history: bool


def next_command(
    typed: Sequence[str], workspace: Workspace, path: Path, studied: Study, tensor: str, given: Given
) -> str:
    """The command as it was typed, with what it still needs to import the graph cut at a tensor.

    Lists of ids that lie beside the graph are named, and a data set that has these items, or as many where no list is.
    """
    kinds = {role.kind: role for role in studied.roles}
    more = ["--activation", tensor]
    items, users = _list_beside(path, "items.json"), _list_beside(path, "users.json")
    fitting = "" if given.data else _fitting_dataset(workspace, studied, items)
    if not given.items and (items or studied.pairs or not (given.data or fitting)):
        more += ["--items", str(items or "items.json")]
    if "user" in kinds and not given.users and (users or not (given.data or fitting)):
        more += ["--users", str(users or "users.json")]
    if fitting and not given.items:
        more += ["--data", fitting]
    if "history" in kinds and not isinstance(kinds["history"].type.dims[1], int) and not given.max_history:
        more += ["--max-history", "50"]
    for role in studied.roles:
        if role.attribute and role.attribute.kind == "category" and not role.attribute.values:
            more += ["--input", f"{role.tensor}=attribute:{role.attribute.name}:values.json"]
    return shlex.join(["recsae", *(word for word in typed if word != "--json"), *more])


def _list_beside(path: Path, name: str) -> Path | None:
    """A list of ids of that name in the graph's folder; None where there is none that can be read."""
    from recsae.recommenders.onnx_names import read_ids

    try:
        read_ids(path.with_name(name))
    except InvalidRequestError:
        return None
    return path.with_name(name)


def _fitting_dataset(workspace: Workspace, studied: Study, items: Path | None) -> str:
    """The newest data set with all the items of a list, or without one as many as the graph has scores; "" for none."""
    from recsae.datasets.schema import load_dataset
    from recsae.recommenders.onnx_names import read_ids

    wanted = set(read_ids(items).ids) if items else None
    for entry in reversed(workspace.datasets()):
        known = load_dataset(entry.folder).items
        if wanted is not None and wanted <= set(known.ids):
            return entry.name
        if wanted is None and not studied.pairs and known.count in (studied.columns, studied.columns - 1):
            return entry.name
    return ""


def load(workspace: Workspace, name: str) -> Dataset | None:
    """The data set of that name, with real user ids; None for ""."""
    from recsae.datasets.schema import load_dataset

    if not name:
        return None
    entry = workspace.dataset(name)
    return replace(load_dataset(entry.folder), name=entry.name)
