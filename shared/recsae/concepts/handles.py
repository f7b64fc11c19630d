"""Handles: a facet that is turned by several concepts at once, with weights found on construction users.

A handle at a dose is a set of "add" operations; its effects were measured as a whole. Plain values and their JSON; not
here: how weights are found (`recsae.concepts.causal.handles`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsae.concepts.effects import (
    DoseEffect,
    SafeRange,
    Spent,
    doses_as_rows,
    doses_from_rows,
    spent_at,
)
from recsae.errors import CorruptArtifactError
from recsae.store.files import write_atomic

HANDLES_FILE = "handles.json"
SCHEMA_VERSION = 1
# Operations one policy may hold (`recsae.steering.policies`).
MOST_LATENTS = 16


@dataclass(frozen=True)
class Handle:
    """Concepts and the strengths that a dose of 1 adds to them, to raise the share of `facet` in lists.

    `doses` (operation "add", on `panel_users` verification users of the panel) and `safe_range` are those of the handle
    as a whole. Dose 1 is what costs 2 % of NDCG@10 on the construction users the weights were found on.
    """

    facet: str
    concept_ids: tuple[str, ...]
    weights: tuple[float, ...]
    doses: tuple[DoseEffect, ...]
    safe_range: SafeRange
    panel_users: int
    facet_share: float = 0.0

    def strengths(self, dose: float) -> dict[str, float]:
        """What a dose adds to each concept."""
        return {concept: dose * weight for concept, weight in zip(self.concept_ids, self.weights, strict=True)}

    def spent(self, dose: float) -> Spent:
        """Upper bounds of what a measured dose costs."""
        return spent_at(self.doses, "add", dose)


def save_handles(handles: tuple[Handle, ...], folder: Path) -> None:
    """Writes `handles.json` into a dictionary's folder; nothing when there are none."""
    if not handles:
        return
    stored = {"schema_version": SCHEMA_VERSION, "handles": [_plain(handle) for handle in handles]}
    write_atomic(folder / HANDLES_FILE, json.dumps(stored, indent=1, ensure_ascii=False, allow_nan=False).encode())


def load_handles(folder: Path) -> tuple[Handle, ...]:
    """The handles of a dictionary's folder, none where it has no such file."""
    path = folder / HANDLES_FILE
    if not path.is_file():
        return ()
    stored = json.loads(path.read_bytes())
    if stored.get("schema_version") != SCHEMA_VERSION:
        raise CorruptArtifactError(
            f"{path} has schema {stored.get('schema_version')!r}, this release reads {SCHEMA_VERSION}; run a refresh"
        )
    return tuple(_handle(value) for value in stored["handles"])


def _plain(handle: Handle) -> dict[str, Any]:
    return {
        **vars(handle),
        "weights": [float(f"{weight:.6g}") for weight in handle.weights],
        "doses": doses_as_rows(handle.doses),
        "safe_range": vars(handle.safe_range),
    }


def _handle(value: Mapping[str, Any]) -> Handle:
    return Handle(
        **{
            **value,
            "concept_ids": tuple(value["concept_ids"]),
            "weights": tuple(value["weights"]),
            "doses": doses_from_rows(value["doses"]),
            "safe_range": SafeRange(**value["safe_range"]),
        }
    )
