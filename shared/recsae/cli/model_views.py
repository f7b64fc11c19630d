"""How the models of a workspace look in a terminal, and as JSON: what they are, and where they can be read.

What a bundle says of itself is read from the artifact store; a model of another server says it when asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from recsae.cli.output import table
from recsae.cli.workspace import ModelEntry, Workspace
from recsae.errors import RecsaeError
from recsae.recommenders.bundle import KIND
from recsae.recommenders.description import BundleDescription, Hook

_ROWS = {"subject": "", "interest": ", a row per interest", "pair": ", a row per candidate"}


def model_table(workspace: Workspace, entries: Sequence[ModelEntry]) -> Table:
    """One row per model, the default one first."""
    rows = [(entry.name, entry.version, entry.dataset, *_said(workspace, entry), *_scores(entry)) for entry in entries]
    columns = ["name", "version", "data set", "family", "hooks", ">HR@10", ">NDCG@10"]
    return table("Models", columns, rows)


def model_records(workspace: Workspace, entries: Sequence[ModelEntry]) -> list[dict[str, Any]]:
    """The same for scripts; `family`, `hooks`, `reads` are left out where the bundle cannot be read."""
    records = []
    for entry in entries:
        found = _description(workspace, entry)
        said = {"family": found.family, "hooks": [_hook_record(hook) for hook in found.hooks]} if found else {}
        records.append({**vars(entry), **said, **({"reads": asdict(found.inputs)} if found else {})})
    return records


def hooks_text(hooks: Sequence[Hook]) -> str:
    """A line per hook: its name, numbers per row, what a row is of, and whether it can be steered."""
    lines = []
    for hook in hooks:
        size = f"{hook.interests} x {hook.dim}" if hook.rows == "interest" else str(hook.dim)
        lines.append(f"{hook.name} ({size}{_ROWS[hook.rows]}{'' if hook.steerable else ', read-only'})")
    return "\n".join(lines)


def _said(workspace: Workspace, entry: ModelEntry) -> tuple[str, str]:
    found = _description(workspace, entry)
    if found is not None:
        return escape(found.family), escape(hooks_text(found.hooks))
    return "", f"served at {entry.address}" if entry.address else "(its bundle cannot be read)"


def _description(workspace: Workspace, entry: ModelEntry) -> BundleDescription | None:
    if entry.address:
        return None
    try:
        return BundleDescription.read(workspace.artifacts().fetch(KIND, entry.version).folder)
    except RecsaeError:  # a list names what there is, also what is broken
        return None


def _hook_record(hook: Hook) -> dict[str, Any]:
    return {**asdict(hook), "interests": hook.interests if hook.rows == "interest" else 1}


def _scores(entry: ModelEntry) -> list[str]:
    return [f"{entry.scores[name]:.4f}" if name in entry.scores else "" for name in ("hr@10", "ndcg@10")]
