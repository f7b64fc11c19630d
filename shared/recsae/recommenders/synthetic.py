"""Small model bundles made in under a second, for tests and trials of everything that serves one.

They are networks as initialised: they rank, but they have learnt nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from recsae.datasets.planted import make_planted
from recsae.datasets.schema import Dataset
from recsae.datasets.splits import leave_one_out
from recsae.recommenders.bundle import ModelBundle
from recsae.recommenders.families.sasrec import SasrecShape, untrained_sasrec
from recsae.recommenders.families.sequence import SequenceFamily, export_network
from recsae.recommenders.families.table import family


@dataclass(frozen=True)
class NumberedItems:
    """Items `i1`, `i2`... titled `Item 1`, `Item 2`..."""

    ids: tuple[str, ...]
    titles: tuple[str, ...]


def numbered_items(count: int) -> NumberedItems:
    """`count` items without meaning."""
    numbers = range(1, count + 1)
    return NumberedItems(tuple(f"i{number}" for number in numbers), tuple(f"Item {number}" for number in numbers))


def tiny_bundle(
    out: Path, *, n_items: int = 40, dim: int = 16, max_history: int = 10, seed: int = 0, name: str = "tiny"
) -> ModelBundle:
    """Writes a bundle with items `i1`..`i<n_items>` titled `Item 1`... into the folder `out`; not published."""
    shape = SasrecShape(n_items, max_history=max_history, dim=dim, blocks=1)
    return export_network(untrained_sasrec(shape, seed), numbered_items(n_items), out, name)


@cache
def tiny_dataset() -> Dataset:
    """60 users with attributes, their histories of about 15 of the items `i1`..`i40` in 4 genres."""
    return make_planted(seed=0, n_users=60, n_items=40, n_concepts=4, mean_length=15).dataset


def tiny_family_bundle(family_name: str, out: Path, *, seed: int = 0, name: str = "") -> ModelBundle:
    """Writes a bundle of an untrained model of that family over `tiny_dataset` into the folder `out`; not published.

    Sequence families come with activations of 16 numbers and read 10 items. Users, where the model knows them, stand in
    the bundle by their ids in the data set. NotFoundError for a family there is not.
    """
    chosen, data = family(family_name), tiny_dataset()
    if isinstance(chosen, SequenceFamily):
        chosen = replace(chosen, config=replace(chosen.config, max_history=10, dim=16))
    model = chosen.untrained(data, leave_one_out(data.histories), seed=seed)
    return model.export(data, out, name or family_name, user_ids=data.users.ids)
