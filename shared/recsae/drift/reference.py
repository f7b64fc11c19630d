"""The frozen reference of an SAE version: a file beside the concepts in the dictionary artifact."""

from __future__ import annotations

from pathlib import Path

from recsae.drift.counters import ConceptCounters
from recsae.errors import FailedPreconditionError
from recsae.store.files import write_atomic

FILE = "reference.safetensors"


def save_reference(counters: ConceptCounters, folder: Path) -> None:
    """Writes the counters into a dictionary's folder before it is published."""
    write_atomic(folder / FILE, counters.to_bytes())


def load_reference(folder: Path) -> ConceptCounters:
    """The counters of a dictionary's folder; FailedPreconditionError when it was published without any."""
    path = folder / FILE
    if not path.is_file():
        raise FailedPreconditionError(f"dictionary {folder.name} has no drift reference; run a refresh to make one")
    return ConceptCounters.from_bytes(path.read_bytes())
