"""A small model bundle made in under a second, for tests and trials of everything that serves one.

It is a SASRec as initialised: it ranks, but it has learnt nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recsae.recommenders.bundle import ModelBundle
from recsae.recommenders.families.sasrec import SasrecShape, untrained_sasrec
from recsae.recommenders.families.sequence import export_network


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
