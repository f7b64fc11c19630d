"""What a dictionary knows of its items: their facets and how often each was interacted with, kept beside it.

Shares of facets and popularity of lists can then be told where lists are made, without the data set. numpy, JSON and
safetensors only, so that serving can load it. Not here: how facets are made (`recsae.datasets.facets`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from recsae.errors import CorruptArtifactError
from recsae.store.files import write_atomic

_FILE = "catalogue.safetensors"
_COLUMNS = ("counts", "offsets", "carried")

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """n items, in the order of `item_ids`, places from 0.

    `counts` int64 [n]: interactions of each. Item i carries the facets `carried[offsets[i]:offsets[i + 1]]`, int32
    places in `facets`, a name each ("genre=Horror"). `offsets` int64 [n + 1].
    """

    item_ids: tuple[str, ...]
    counts: Ints
    facets: tuple[str, ...]
    offsets: Ints
    carried: NDArray[np.int32]

    def __len__(self) -> int:
        """Number of items."""
        return len(self.item_ids)

    @cached_property
    def index_of(self) -> dict[str, int]:
        """Place of each item."""
        return {item_id: at for at, item_id in enumerate(self.item_ids)}

    @cached_property
    def facet_index(self) -> dict[str, int]:
        """Place of each facet."""
        return {name: at for at, name in enumerate(self.facets)}

    @cached_property
    def popularity(self) -> NDArray[np.float64]:
        """Percentile of each item by its count, float64 [n]: 0 = the rarest, 1 = the most popular; ties alike."""
        ordered = np.sort(self.counts)
        below = np.searchsorted(ordered, self.counts, side="left")
        last = np.searchsorted(ordered, self.counts, side="right") - 1
        return (below + last) / 2 / max(1, len(self) - 1)

    @cached_property
    def _by_facet(self) -> tuple[Ints, Ints]:
        """Items in the order of their facets, and where each facet's begin, int64 [nnz] and [F + 1]."""
        items = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        order = np.argsort(self.carried, kind="stable")
        starts = np.searchsorted(self.carried[order], np.arange(len(self.facets) + 1))
        return items[order], starts.astype(np.int64)

    def members(self, facet: int) -> Ints:
        """Places of the items that carry a facet, int64 ascending."""
        items, starts = self._by_facet
        return items[starts[facet] : starts[facet + 1]]

    def save(self, folder: Path) -> None:
        """Writes `catalogue.safetensors` into a dictionary's folder."""
        arrays: dict[str, NDArray[Any]] = {
            "counts": np.ascontiguousarray(self.counts, np.int64),
            "offsets": np.ascontiguousarray(self.offsets, np.int64),
            "carried": np.ascontiguousarray(self.carried, np.int32),
        }
        names = {"item_ids": json.dumps(list(self.item_ids)), "facets": json.dumps(list(self.facets))}
        write_atomic(folder / _FILE, safetensors.numpy.save(arrays, metadata=names))


def make_catalogue(
    item_ids: Sequence[str],
    counts: NDArray[np.integer],
    facets: Sequence[str],
    carriers: NDArray[np.integer],
    carried: NDArray[np.integer],
) -> Catalogue:
    """From pairs: item place `carriers[p]` carries facet place `carried[p]`, each once, in any order."""
    order = np.lexsort((carried, carriers))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(carriers, minlength=len(item_ids)))])
    return Catalogue(
        tuple(item_ids),
        np.asarray(counts, np.int64),
        tuple(facets),
        offsets.astype(np.int64),
        np.asarray(carried)[order].astype(np.int32),
    )


def load_catalogue(folder: Path) -> Catalogue | None:
    """The catalogue of a dictionary's folder; None for a dictionary of a release that kept none.

    CorruptArtifactError when its parts do not fit each other.
    """
    path = folder / _FILE
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            counts, offsets, carried = (file.get_tensor(name) for name in _COLUMNS)
            item_ids = tuple(json.loads(file.metadata()["item_ids"]))
            facets = tuple(json.loads(file.metadata()["facets"]))
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise CorruptArtifactError(f"{path.name} holds no catalogue ({error}); publish the dictionary again") from error
    whole = len(counts) == len(item_ids) == len(offsets) - 1 and offsets[-1] == len(carried)
    if not whole or (len(carried) and not 0 <= carried.min() <= carried.max() < len(facets)):
        raise CorruptArtifactError(
            f"{path.name} names {len(item_ids)} items and {len(facets)} facets, its arrays are of others; publish the "
            "dictionary again"
        )
    return Catalogue(item_ids, counts, facets, offsets, carried)
