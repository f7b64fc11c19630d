"""How the models of a workspace look in a terminal, and as JSON: what they are, and where they can be read.

What a bundle says of itself is read from the artifact store; a model of another server says it when asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape

from recsae.cli.output import table
from recsae.cli.workspace import ModelEntry, Workspace
from recsae.errors import RecsaeError
from recsae.recommenders.address import address_of
from recsae.recommenders.description import BundleDescription, Hook

_ROWS = {"subject": "user or history", "interest": "interest", "pair": "user and candidate"}


def model_tables(workspace: Workspace, entries: Sequence[ModelEntry]) -> RenderableType:
    """One row per model, the default one first, and one per hook, under the address commands take."""
    models = [
        (entry.name, entry.version, _family(workspace, entry), entry.dataset, *_scores(entry)) for entry in entries
    ]
    hooks = [row for entry in entries for row in _hook_rows(workspace, entry)]
    return Group(
        table("Models", ["name", "version", "family", "data set", ">HR@10", ">NDCG@10"], models),
        table("Where they can be read", ["address", "hook", ">numbers", "a row per", "steering"], hooks),
    )


def model_records(workspace: Workspace, entries: Sequence[ModelEntry]) -> list[dict[str, Any]]:
    """The same for scripts; `family`, `hooks`, `reads` are left out where the bundle cannot be read."""
    records = []
    for entry in entries:
        found = _description(workspace, entry)
        said = {"family": found.family, "hooks": [_hook_record(hook) for hook in found.hooks]} if found else {}
        records.append({**vars(entry), **said, **({"reads": asdict(found.inputs)} if found else {})})
    return records


def _family(workspace: Workspace, entry: ModelEntry) -> str:
    if entry.address:
        return f"at {entry.address}"
    found = _description(workspace, entry)
    return escape(found.family) if found else "(bundle not readable)"


def _hook_rows(workspace: Workspace, entry: ModelEntry) -> list[tuple[str, ...]]:
    found = _description(workspace, entry)
    if found is None:
        return []
    return [
        (
            escape(address_of(entry.name, hook.name, found.hooks[0].name)),
            escape(hook.name),
            f"{hook.interests} x {hook.dim}" if hook.rows == "interest" else str(hook.dim),
            _ROWS[hook.rows],
            "yes" if hook.steerable else "read-only",
        )
        for hook in found.hooks
    ]


def _description(workspace: Workspace, entry: ModelEntry) -> BundleDescription | None:
    if entry.address:
        return None
    from recsae.recommenders.bundle import KIND

    try:
        return BundleDescription.read(workspace.artifacts().fetch(KIND, entry.version).folder)
    except RecsaeError:  # a list names what there is, also what is broken
        return None


def _hook_record(hook: Hook) -> dict[str, Any]:
    return {**asdict(hook), "interests": hook.interests if hook.rows == "interest" else 1}


def _scores(entry: ModelEntry) -> list[str]:
    return [f"{entry.scores[name]:.4f}" if name in entry.scores else "" for name in ("hr@10", "ndcg@10")]
