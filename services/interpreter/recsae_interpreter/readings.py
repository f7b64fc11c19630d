"""What a model made of a subject at one hook, and what is known of the model: the values handlers work with.

A subject has one row, or one per interest, or one per candidate item. Not here: who is asked for them (`recommender`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.recommenders.description import RowKind
from recsae.steering.segments import Attribute, Segment

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Subject:
    """Whom to read: a user, or a history when given (None = the stored one); with the attributes of the request."""

    user_id: str = ""
    history: Sequence[str] | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def named(self) -> bool:
        """True when it says whom to read."""
        return bool(self.user_id) or self.history is not None


@dataclass(frozen=True)
class UserPage:
    """Users asked for: those of a model's recommender, of whom `segment` is certain to hold (None = all)."""

    model: str
    model_version: str
    limit: int
    cursor: str = ""
    segment: Segment | None = None


@dataclass(frozen=True)
class UserIds:
    """A page of users, and the cursor of the next ("" = the last); it may be short or empty before the last."""

    user_ids: tuple[str, ...]
    next_cursor: str = ""


@dataclass(frozen=True)
class HookFacts:
    """A hook, what one row of it stands for, and how many rows a subject has where that is one per interest."""

    name: str
    rows: RowKind = "subject"
    interests: int = 1


@dataclass(frozen=True)
class ModelFacts:
    """What a recommender says of a model; `dot_product` heads score by an item table; 0 items = it does not say."""

    name: str
    version: str
    hooks: tuple[HookFacts, ...]
    dot_product: bool = False
    ignores_history: bool = False
    item_count: int = 0

    def hook(self, name: str) -> HookFacts:
        """The hook of that name, "" = the first; InvalidRequestError names those there are."""
        for one in self.hooks:
            if name in ("", one.name):
                return one
        known = ", ".join(one.name for one in self.hooks) or "none"
        raise InvalidRequestError(f"model {self.name} has no hook {name!r}; its hooks are {known}")


@dataclass(frozen=True)
class RowOwner:
    """Whose an activation row is: a subject by its place in a request, its user and how much of its history counts."""

    history_index: int = 0
    user_id: str = ""
    position: int = 0
    interest: int = 0
    item_id: str = ""

    def shares_subject(self, other: RowOwner) -> bool:
        """True when both rows are of one subject."""
        mine = (self.history_index, self.user_id, self.position)
        return mine == (other.history_index, other.user_id, other.position)


@dataclass(frozen=True)
class Batch:
    """Activations float32 [n, d] as they came, `owners` one per row or none at all."""

    model: str
    hook: str
    model_version: str
    activations: Floats
    owners: tuple[RowOwner, ...] = ()
    passthrough: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """All rows of one subject: `activations` float32 [n, d], and what else crosses to the head, n rows each.

    `item_ids` are the candidates of a hook with a row per pair, else none. `position` items of the history are known to
    the model. `user_id` "" = a bare history.
    """

    model: str
    model_version: str
    activations: Floats
    hook: str = ""
    rows: RowKind = "subject"
    item_ids: tuple[str, ...] = ()
    history: tuple[str, ...] = ()
    passthrough: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    position: int = 0
    user_id: str = ""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.activations)

    @property
    def kind_words(self) -> str:
        """What its rows are, for a sentence."""
        return {"subject": "rows", "interest": "interests", "pair": "candidates"}[self.rows]


@dataclass(frozen=True)
class HeadRows:
    """What the head makes one list from: `activations` float32 [m, d] in place of rows `places` [m] of a reading."""

    activations: Floats
    places: Ints

    @classmethod
    def of(cls, reading: Reading, activations: Floats | None = None) -> HeadRows:
        """Every row of a reading, or `activations` [n, d] in the place of all of them."""
        return cls(reading.activations if activations is None else activations, np.arange(len(reading)))


@dataclass(frozen=True)
class Rows:
    """Activations float32 [n, d] of one model version; `subject` int64 [n] says whose, by place in what was asked."""

    model_version: str
    activations: Floats
    subject: Ints


@dataclass(frozen=True)
class ScoredItem:
    """One ranked item."""

    item_id: str
    score: float
    title: str


@dataclass(frozen=True)
class ItemTable:
    """Items of a dot-product head: `vectors` float32 [n + 1, d], `biases` float32 [n + 1] or None; row 0 is padding."""

    index_of: Mapping[str, int]
    vectors: Floats
    biases: Floats | None


def first_subject(batch: Batch, hook: HookFacts, history: tuple[str, ...] = ()) -> Reading:
    """The reading of the subject the first row of a batch is of.

    InvalidRequestError when there is no row, when a pair does not name its candidate, or interests are missing.
    """
    if not len(batch.activations):
        raise FailedPreconditionError("the activation batch has no rows; send at least one")
    count = _rows_of_first(batch, hook)
    owners = batch.owners[:count]
    if hook.rows == "pair" and not (owners and all(owner.item_id for owner in owners)):
        raise InvalidRequestError(
            f"hook {hook.name!r} of model {batch.model} has a row per pair; name the candidate of every row"
        )
    return Reading(
        model=batch.model,
        model_version=batch.model_version,
        activations=batch.activations[:count],
        hook=batch.hook,
        rows=hook.rows,
        item_ids=tuple(owner.item_id for owner in owners) if hook.rows == "pair" else (),
        history=history,
        passthrough={name: tensor[:count] for name, tensor in batch.passthrough.items()},
        position=owners[0].position if owners else 0,
    )


def each_subject(batch: Batch, hook: HookFacts, histories: Sequence[tuple[str, ...]]) -> list[Reading]:
    """The reading of each subject of a batch; subject i was given history i. Not of hooks with a row per pair.

    FailedPreconditionError unless each came with all its rows, in order.
    """
    each = hook.interests
    wanted = [(at, interest) for at in range(len(histories)) for interest in range(each)]
    if [(one.history_index, one.interest) for one in batch.owners] != wanted:
        raise FailedPreconditionError(
            f"{len(batch.activations)} activation rows of model {batch.model} came for {len(histories)} subjects of "
            f"{each} rows; send all rows of each subject, in order"
        )
    return [
        Reading(
            model=batch.model,
            model_version=batch.model_version,
            activations=batch.activations[at * each : (at + 1) * each],
            hook=batch.hook,
            rows=hook.rows,
            history=history,
            passthrough={name: rows[at * each : (at + 1) * each] for name, rows in batch.passthrough.items()},
            position=batch.owners[at * each].position,
        )
        for at, history in enumerate(histories)
    ]


def _rows_of_first(batch: Batch, hook: HookFacts) -> int:
    if hook.rows == "subject":
        return 1
    count = hook.interests if hook.rows == "interest" else 1
    if batch.owners:
        first = batch.owners[0]
        count = sum(1 for _ in takewhile(first.shares_subject, batch.owners))
    held = min(count, len(batch.activations))
    if hook.rows == "interest" and held != hook.interests:
        raise InvalidRequestError(
            f"{held} rows came of the first subject, hook {hook.name!r} of model {batch.model} has {hook.interests} "
            "interests; send all of them"
        )
    return held
