"""A batch of subjects as a trunk reads it: histories, users and attributes as arrays.

Not here: where histories and attributes come from, and the graphs (`runtime`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.attributes import AttributeValue
from recsae.errors import InvalidRequestError
from recsae.recommenders.bundle import ModelBundle
from recsae.recommenders.description import AttributeInput

# Names of a trunk's inputs.
HISTORY, USER, CANDIDATE, ATTRIBUTE = "history", "user", "candidate", "attribute."

_ONE = np.uint64(1)

Ints = NDArray[np.int64]
Attributes = Mapping[str, AttributeValue | bool]


@dataclass(frozen=True)
class ModelInputs:
    """n subjects. `history` int64 [n, max_history], oldest first, filled up with 0 on the right.

    `user` int64 [n], 0 = nobody the model was trained with; `attributes` by name: int64 [n] indices of categories
    (0 = unknown) or float32 [n] numbers.
    """

    history: Ints
    user: Ints
    attributes: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of subjects."""
        return len(self.history)

    def take(self, rows: Ints | slice) -> ModelInputs:
        """Some of the subjects; an index may come several times."""
        return ModelInputs(
            self.history[rows], self.user[rows], {name: values[rows] for name, values in self.attributes.items()}
        )


def model_inputs(
    bundle: ModelBundle,
    histories: Sequence[Sequence[int] | NDArray[np.integer]],
    users: Sequence[str] = (),
    attributes: Sequence[Attributes] = (),
) -> ModelInputs:
    """Histories of item indices, user ids and attributes as the bundle's trunk reads them; what it does not read is 0.

    `users` and `attributes` are one per history or none. InvalidRequestError for an empty history where the model needs
    one, for an index outside 1..n_items, and for an attribute of the wrong type.
    """
    reads = bundle.description.inputs
    n = len(histories)
    if (users and len(users) != n) or (attributes and len(attributes) != n):
        raise InvalidRequestError(
            f"{n} histories came with {len(users)} users and {len(attributes)} attributes; give one each"
        )
    user = np.zeros(n, np.int64)
    if reads.user and users:
        user[:] = [bundle.user_index(one) if one else 0 for one in users]
    known = attributes or [{}] * n
    columns = {one.name: attribute_column(one, known) for one in reads.attributes}
    return ModelInputs(pad_histories(bundle, histories), user, columns)


def pad_histories(bundle: ModelBundle, histories: Sequence[Sequence[int] | NDArray[np.integer]]) -> Ints:
    """int64 [n, max_history], oldest first, filled up with 0 on the right; keeps the newest items.

    Zeros where the model reads no history. InvalidRequestError for an empty history where it needs one, or an index
    outside 1..n_items.
    """
    reads, longest = bundle.description.inputs, bundle.description.max_history
    padded = np.zeros((len(histories), longest), dtype=np.int64)
    if not reads.history:
        return padded
    may_be_empty, n_items = reads.empty_history, bundle.n_items
    for row, history in enumerate(histories):
        newest = np.asarray(history[-longest:], dtype=np.int64)
        if not newest.size:
            if may_be_empty:
                continue
            raise InvalidRequestError(f"history {row} is empty; give at least one item")
        # Seen as unsigned, 0 less 1 and every negative index are very large ones.
        if (newest.view(np.uint64) - _ONE).max() >= n_items:
            raise InvalidRequestError(f"history {row} has an item index outside 1..{n_items}")
        padded[row, : newest.size] = newest
    return padded


def newest_as_candidate(inputs: ModelInputs) -> tuple[ModelInputs, Ints]:
    """Subjects before their newest item, and that item int64 [n]; InvalidRequestError for an empty history."""
    lengths = (inputs.history > 0).sum(axis=1)
    if not lengths.all():
        raise InvalidRequestError("a history is empty: name the candidate, or give at least one item")
    rows, newest = np.arange(len(inputs)), lengths - 1
    history = inputs.history.copy()
    candidates = history[rows, newest].copy()
    history[rows, newest] = 0
    return ModelInputs(history, inputs.user, inputs.attributes), candidates


def made_up_inputs(bundle: ModelBundle, n: int, seed: int = 0) -> ModelInputs:
    """N subjects with random histories, users and attributes, the same for the same seed."""
    random = np.random.default_rng(seed)
    description = bundle.description
    lengths = random.integers(1, description.max_history + 1, size=n)
    histories = [random.integers(1, bundle.n_items + 1, size=length) for length in lengths]
    user = random.integers(0, bundle.description.n_users + 1, size=n)
    attributes = {
        one.name: random.integers(0, len(one.values) + 1, size=n)
        if one.kind == "category"
        else random.normal(one.default, 1.0, size=n).astype(np.float32)
        for one in description.inputs.attributes
    }
    return ModelInputs(pad_histories(bundle, histories), user.astype(np.int64), attributes)


def attribute_column(one: AttributeInput, subjects: Sequence[Attributes]) -> NDArray[Any]:
    """One attribute of all subjects, int64 or float32 [n]; InvalidRequestError for text where a number is read."""
    given = (attributes.get(one.name) for attributes in subjects)
    if one.kind == "category":
        index = one.index
        return np.fromiter((index.get(category_text(value), 0) for value in given), np.int64, len(subjects))
    return np.fromiter((_number(one, value) for value in given), np.float32, len(subjects))


def category_text(value: AttributeValue | bool | None) -> str:
    """A category as data files write it: 25.0 and 25 are one value, nothing is ""."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _number(one: AttributeInput, value: AttributeValue | bool | None) -> float:
    if value is None or value == "":
        return one.default
    try:
        number = float(value)
    except ValueError as error:
        raise InvalidRequestError(f"attribute {one.name!r} is {value!r}, the model reads a number") from error
    return number if math.isfinite(number) else one.default


def stack_indices(rows: Iterable[Sequence[int] | NDArray[np.integer]]) -> Ints:
    """int64 [n, longest]: unequal lists of item indices, filled up with 0 on the right."""
    lists = [np.asarray(row, dtype=np.int64) for row in rows]
    stacked = np.zeros((len(lists), max((len(row) for row in lists), default=0)), dtype=np.int64)
    for index, row in enumerate(lists):
        stacked[index, : len(row)] = row
    return stacked
