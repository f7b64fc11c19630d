"""What is served: SASRec models of three catalogue sizes with made-up items, and users with full histories.

Untrained weights: they cost what trained ones do. Kept in a folder between runs, for a million items take a while.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recsae.datasets.schema import Dataset, Histories, ItemTable, UserTable, save_dataset
from recsae.store.artifacts import ArtifactStore

MODEL = "bench"
DIM, POSITIONS, BLOCKS = 64, 50, 2
USERS = 200
# An id as long as a shop's article number, a title as long as a film's.
_ID, _TITLE = "item-{:08d}", "Title of item {:08d}"


@dataclass(frozen=True)
class World:
    """One model in an artifact store, and the histories of users u-0, u-1, ..."""

    items: int
    artifacts: Path
    histories: Path
    version: str


def world(items: int, cache: Path) -> World:
    """The world with that many items, made unless the folder `cache` has it."""
    folder = cache / f"{items}-items"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=cache))
        try:
            _make(items, part)
            os.rename(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return World(items, folder / "artifacts", folder / "histories", (folder / "version").read_text())


def _make(items: int, folder: Path) -> None:
    from recsae.recommenders.bundle import publish_bundle
    from recsae.recommenders.families.sasrec import SasrecShape, untrained_sasrec
    from recsae.recommenders.families.sequence import export_network

    numbers = range(1, items + 1)
    table = ItemTable(tuple(map(_ID.format, numbers)), tuple(map(_TITLE.format, numbers)), {})
    shape = SasrecShape(n_items=items, max_history=POSITIONS, dim=DIM, blocks=BLOCKS)
    with tempfile.TemporaryDirectory(dir=folder) as bundle:
        export_network(untrained_sasrec(shape, 0), table, Path(bundle), MODEL)
        version = publish_bundle(ArtifactStore(str(folder / "artifacts")), Path(bundle))
    save_dataset(_dataset(table), folder / "histories")
    (folder / "version").write_text(version)


def _dataset(items: ItemTable) -> Dataset:
    """Every user read as many items as the model does; a country each."""
    random = np.random.default_rng(0)
    rows = [1 + random.choice(len(items.ids), POSITIONS, replace=False) for _ in range(USERS)]
    users = UserTable(
        tuple(f"u-{user}" for user in range(USERS)),
        {"country": tuple("DK" if user % 2 else "SE" for user in range(USERS))},
    )
    return Dataset(
        MODEL,
        items,
        users,
        Histories(
            np.arange(0, USERS * POSITIONS + 1, POSITIONS, dtype=np.int64),
            np.concatenate(rows).astype(np.int32),
            np.tile(np.arange(POSITIONS, dtype=np.float64), USERS),
        ),
    )
