"""Fixed probe rows of a dictionary: histories, and what its model made of them, kept so that a later one can compare.

A recommender serves one version of a model. To lay a new version's activations over an old one's, and to see on which
histories old latents fired, both must read the same histories: so each dictionary carries some. Whose they are it says,
by pseudonym, only where a model makes activations of more than a history. They are rows of construction users. Bounded:
8,192 rows, a million items together. Not here: comparing (`identity`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from recsae.concepts.evidence import Embed
from recsae.concepts.features import Windows
from recsae.concepts.inputs import DictionaryInputs
from recsae.concepts.sampling import RowSample, drawn_or_refused
from recsae.concepts.splits import UserPart
from recsae.errors import CorruptArtifactError
from recsae.store.files import write_atomic

# A concept with the 100 cases in 50,000 rows that a verdict takes fires on about 16 of these; 10 are enough to match.
PROBE_ROWS = 8_192
_MOST_ITEMS = 4_096
_MOST_STORED = 1 << 20  # items of their histories: 4 MB
_FILE = "probe.safetensors"
_COLUMNS = ("x", "items", "start", "end", "vectors")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ProbeSet:
    """n rows: row r is the history `windows.items[start[r]:end[r]]`, oldest first, which the model reads as `x[r]`.

    Items count from 1 into `item_ids`, which hold only items of these histories. `vectors` float32 [m, d]: vectors of a
    dot-product head of the first m of `item_ids` (none for any other head). `user_ids`: a pseudonym per row, or none at
    all where the model reads a history alone.
    """

    x: Floats
    windows: Windows
    item_ids: tuple[str, ...]
    vectors: Floats
    user_ids: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.x)

    def take(self, rows: NDArray[np.int64]) -> ProbeSet:
        """Some of the rows."""
        users = tuple(self.user_ids[row] for row in rows.tolist()) if self.user_ids else ()
        return ProbeSet(self.x[rows], self.windows.take(rows), self.item_ids, self.vectors, users)

    def save(self, folder: Path) -> None:
        """Writes `probe.safetensors` into a dictionary's folder."""
        arrays = {
            "x": self.x, "items": self.windows.items, "start": self.windows.start, "end": self.windows.end,
            "vectors": self.vectors,
        }  # fmt: skip
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        names = {"item_ids": json.dumps(list(self.item_ids))}
        if self.user_ids:
            names["user_ids"] = json.dumps(list(self.user_ids))
        write_atomic(folder / _FILE, safetensors.numpy.save(contiguous, metadata=names))


def load_probe_set(folder: Path) -> ProbeSet | None:
    """The probe set of a dictionary's folder; None for a dictionary of a release that kept none."""
    path = folder / _FILE
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            columns = {name: file.get_tensor(name) for name in _COLUMNS}
            item_ids = tuple(json.loads(file.metadata()["item_ids"]))
            user_ids = tuple(json.loads(file.metadata().get("user_ids", "[]")))
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise CorruptArtifactError(
            f"{path.name} holds no probe rows ({error}); publish the dictionary again"
        ) from error
    windows = Windows(columns["items"], columns["start"], columns["end"])
    return ProbeSet(columns["x"], windows, item_ids, columns["vectors"], user_ids)


def make_probe_set(inputs: DictionaryInputs) -> ProbeSet:
    """Chooses the probe set of a dictionary among the rows drawn of construction users.

    User by user in random order, so that few histories carry many rows. FailedPreconditionError when there is no row.
    """
    drawn = drawn_or_refused(inputs.sums.samples[UserPart.CONSTRUCTION])
    windows = inputs.windows(drawn)
    rows = _chosen(drawn, windows, inputs.seed)
    compact = _compact(windows.take(rows))
    used, items = np.unique(compact.items, return_inverse=True)
    x = np.ascontiguousarray(drawn.x[rows])
    vectors = np.zeros((0, x.shape[1]), np.float32)
    if inputs.item_vectors is not None:
        vectors = np.asarray(inputs.item_vectors[used[:_MOST_ITEMS]], np.float32)
    return ProbeSet(
        x,
        Windows((items + 1).astype(np.int32), compact.start, compact.end),
        tuple(inputs.item_ids[item - 1] for item in used.tolist()),
        vectors,
        tuple(inputs.pseudonyms[user] for user in drawn.user[rows].tolist()) if inputs.names_users else (),
    )


@dataclass(frozen=True)
class Reading:
    """Both models' activations of the same histories, [n, d_new] and [n, d_old], and vectors of the same items."""

    new: Floats
    old: Floats
    new_vectors: Floats | None
    old_vectors: Floats | None


@dataclass(frozen=True)
class Reader:
    """A model that reads histories: `embed` maps those of item indices to activations [B, d]; `item_ids` name them.

    `item_vectors` [n_items + 1, d] of a dot-product head, None for any other. `user_ids` name the users that `embed`
    counts, where it reads more than histories.
    """

    item_ids: Sequence[str]
    embed: Embed
    max_history: int
    item_vectors: Floats | None = None
    user_ids: Sequence[str] = ()


def read_again(probe: ProbeSet, reader: Reader) -> Reading:
    """The probe rows as `reader` reads them; rows with items or users it does not know are left out: it may be all."""
    index = {item_id: at for at, item_id in enumerate(reader.item_ids, 1)}
    number = np.array([0, *(index.get(item_id, 0) for item_id in probe.item_ids)], np.int32)
    new_vectors, old_vectors = _shared_vectors(probe, number, reader)
    strange = np.concatenate([[0], np.cumsum(number[probe.windows.items] == 0)])
    users = _users_of(probe, reader)
    known = strange[probe.windows.end] == strange[probe.windows.start]
    known = np.flatnonzero(known & ((users >= 0) | (not reader.user_ids)))
    left = probe.take(known)
    items = number[left.windows.items]
    pairs = zip(left.windows.start.tolist(), left.windows.end.tolist(), strict=True)
    x = reader.embed([items[max(start, end - reader.max_history) : end] for start, end in pairs], users[known])
    return Reading(x, left.x, new_vectors, old_vectors)


def _users_of(probe: ProbeSet, reader: Reader) -> NDArray[np.int32]:
    """Index of each row's user among the reader's, int32 [n], -1 = not known there."""
    index = {user_id: at for at, user_id in enumerate(reader.user_ids)}
    found = [index.get(user_id, -1) for user_id in probe.user_ids] or [-1] * len(probe)
    return np.array(found, np.int32)


def _chosen(drawn: RowSample, windows: Windows, seed: int) -> NDArray[np.int64]:
    """At most 8,192 rows of a million items together, ascending, int64."""
    users = np.unique(drawn.user)
    place = np.empty(len(users), np.int64)
    place[np.random.default_rng(seed).permutation(len(users))] = np.arange(len(users))
    order = np.lexsort((drawn.position, place[np.searchsorted(users, drawn.user)]))[:PROBE_ROWS]
    # Rows of a user mostly share their items; counted apart they are at least as many.
    starts, first = np.unique(windows.start[order], return_index=True)
    added = np.zeros(len(order), np.int64)
    ends = np.zeros(len(starts), np.int64)
    np.maximum.at(ends, np.searchsorted(starts, windows.start[order]), windows.end[order])
    added[first] = ends - starts
    chosen: NDArray[np.int64] = np.sort(order[np.cumsum(added) <= _MOST_STORED])
    return chosen


def _compact(windows: Windows) -> Windows:
    """The same rows over no more items than they need: rows that begin together share theirs."""
    starts, group = np.unique(windows.start, return_inverse=True)
    ends = np.zeros(len(starts), np.int64)
    np.maximum.at(ends, group, windows.end)
    begins = np.concatenate([[0], np.cumsum(ends - starts)])
    at = np.repeat(starts - begins[:-1], ends - starts) + np.arange(begins[-1])
    start = begins[:-1][group]
    return Windows(windows.items[at], start, start + windows.lengths)


def _shared_vectors(probe: ProbeSet, number: NDArray[np.int32], reader: Reader) -> tuple[Floats | None, Floats | None]:
    """Vectors of the items both heads score, row by row; None where one of them is no dot product."""
    if reader.item_vectors is None or not len(probe.vectors):
        return None, None
    mine = number[1 : len(probe.vectors) + 1]
    shared = mine > 0
    return np.asarray(reader.item_vectors[mine[shared]], np.float32), probe.vectors[shared]
