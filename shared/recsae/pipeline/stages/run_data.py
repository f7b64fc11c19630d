"""The data set of a run as its stages read it: histories before the test item, cut to what the model knows.

Items the model does not know are left out here, once, so that nothing later meets them. Where items lie in the same
space as users (matrix factorisation, LightGCN), they stand beside them as subjects of their own. Pure values; not here:
files of the run (`material`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.splits import UserPart, split_users
from recsae.datasets.schema import Dataset, Histories, UserTable
from recsae.datasets.splits import leave_one_out
from recsae.pipeline.sources import Subject

_ITEM_SUBJECT = "item:"


class Part(StrEnum):
    """What the rows of a shard may be used for; `ITEMS` are single-item probes."""

    SAE = "sae"
    CONSTRUCTION = "construction"
    VERIFICATION = "verification"
    ITEMS = "items"


_USER_PARTS = {
    Part.SAE: UserPart.SAE,
    Part.CONSTRUCTION: UserPart.CONSTRUCTION,
    Part.VERIFICATION: UserPart.VERIFICATION,
}


@dataclass(frozen=True)
class RunData:
    """The data set as the run reads it: `histories` end before the leave-one-out test item, `targets` are those.

    `targets` int32 [n_users], 0 where a user has none. The last `item_subjects` users are items: each with a history of
    itself and no target, in the order of the items.
    """

    dataset: Dataset
    histories: Histories
    targets: NDArray[np.int32]
    item_subjects: int = 0

    @classmethod
    def of(cls, dataset: Dataset) -> RunData:
        """Of a whole data set."""
        split = leave_one_out(dataset.histories)
        return cls(dataset, split.test_inputs(), split.test)

    @property
    def first_item_subject(self) -> int:
        """Index of the first user that is an item; the number of users when none is."""
        return self.histories.n_users - self.item_subjects

    def users_of(self, part: Part) -> NDArray[np.int64]:
        """Users of a part who have a history, int64, ascending."""
        parts = split_users(self.dataset.users.ids)
        return np.flatnonzero((parts == _USER_PARTS[part]) & (self.histories.lengths > 0)).astype(np.int64)

    def item_ids(self, items: NDArray[np.int32]) -> list[str]:
        """The caller's ids of item indices."""
        return [self.dataset.items.ids[index - 1] for index in items.tolist()]

    def subject(self, user: int, items: NDArray[np.int32]) -> Subject:
        """A user (-1 = nobody) with a history of item indices."""
        return Subject(tuple(self.item_ids(items)), self.dataset.users.ids[user] if user >= 0 else "")

    def someone(self, user: int) -> Subject:
        """A user by id alone, -1 = nobody."""
        return self.subject(user, self.histories.items[:0])

    def without(self, unknown: Sequence[int]) -> RunData:
        """The data without the items of these indices: histories keep the others, such a target is none."""
        if not len(unknown):
            return self
        known = np.ones(self.dataset.items.count + 1, bool)
        known[list(unknown)] = False
        number = np.where(known, np.cumsum(known) - 1, 0).astype(np.int32)
        return replace(
            self,
            dataset=_restricted(self.dataset, known, number),
            histories=_renumbered(self.histories, known, number),
            targets=number[self.targets],
        )

    def with_items(self) -> RunData:
        """The data with every item as a user of its own, "item:<item id>", split into parts like any other."""
        items, users, before = self.dataset.items, self.dataset.users, self.histories
        # An item has no time of its own; the oldest there is makes none seem to have fired lately.
        oldest = before.timestamps.min() if len(before.timestamps) else 0.0
        ids = (*users.ids, *(f"{_ITEM_SUBJECT}{item_id}" for item_id in items.ids))
        own = np.arange(1, items.count + 1, dtype=np.int32)
        histories = Histories(
            np.concatenate([before.offsets, before.offsets[-1] + np.arange(1, items.count + 1)]).astype(np.int64),
            np.concatenate([before.items, own]),
            np.concatenate([before.timestamps, np.full(items.count, oldest)]),
        )
        return RunData(
            replace(self.dataset, users=UserTable(ids, {})),
            histories,
            np.concatenate([self.targets, np.zeros(items.count, np.int32)]),
            items.count,
        )


def _restricted(dataset: Dataset, known: NDArray[np.bool_], number: NDArray[np.int32]) -> Dataset:
    kept = np.flatnonzero(known[1:]).tolist()
    items = dataset.items
    table = replace(
        items,
        ids=tuple(items.ids[at] for at in kept),
        titles=tuple(items.titles[at] for at in kept),
        columns={name: tuple(values[at] for at in kept) for name, values in items.columns.items()},
    )
    return replace(dataset, items=table, histories=_renumbered(dataset.histories, known, number))


def _renumbered(histories: Histories, known: NDArray[np.bool_], number: NDArray[np.int32]) -> Histories:
    kept = histories.keep(known[histories.items])
    return replace(kept, items=number[kept.items])
