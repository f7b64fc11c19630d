"""Lists of many users before and after a change, as arrays: steer all rows, rank both, number the items.

Memory is bounded by users times the length of their lists: activations are held for one batch. Not here: who the users
are (`panel_users`) and what is measured (`recsae.steering.panel`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import time

import numpy as np
from numpy.typing import NDArray

from recsae.rpc.deadline import Deadline
from recsae.steering.delta import Steerer
from recsae.steering.matching import SteerContext
from recsae.steering.receipts import UnsteeredReason
from recsae_interpreter.readings import HeadRows, Reading, ScoredItem
from recsae_interpreter.recommender import Recommender

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class ItemNumbers:
    """Items numbered from 0 as they come up, with their titles."""

    def __init__(self) -> None:
        """None yet."""
        self.number_of: dict[str, int] = {}
        self.titles: list[str] = []

    def __len__(self) -> int:
        """Number of items."""
        return len(self.titles)

    @property
    def ids(self) -> list[str]:
        """Ids by number."""
        return list(self.number_of)

    def of(self, item: ScoredItem) -> int:
        """The number of an item, its next one when it is new."""
        number = self.number_of.setdefault(item.item_id, len(self.titles))
        if number == len(self.titles):
            self.titles.append(item.title)
        return number


@dataclass(frozen=True)
class Lists:
    """`items` int64 [n, k] by number, best first, -1 = no item; `scores` float32 [n, k], -inf there."""

    items: Ints
    scores: Floats

    @classmethod
    def joined(cls, parts: Sequence[Lists]) -> Lists:
        """All of them, one after the other."""
        return cls(np.concatenate([one.items for one in parts]), np.concatenate([one.scores for one in parts]))


@dataclass(frozen=True)
class Tried:
    """Lists before and after, `share` float64 [n]: the largest change of a row over the row; rows refused by reason."""

    before: Lists
    after: Lists
    share: NDArray[np.float64]
    refused: Counter[str]

    @classmethod
    def joined(cls, parts: Sequence[Tried]) -> Tried:
        """All users, one batch after the other."""
        return cls(
            Lists.joined([one.before for one in parts]),
            Lists.joined([one.after for one in parts]),
            np.concatenate([one.share for one in parts]),
            sum((one.refused for one in parts), Counter()),
        )


@dataclass(frozen=True)
class Trial:
    """A change to try on users; `numbers` grows with the items that are shown."""

    recommender: Recommender
    steerer: Steerer
    deadline: Deadline
    numbers: ItemNumbers = field(default_factory=ItemNumbers)

    def __call__(self, readings: Sequence[Reading], k: int) -> Tried:
        """Both lists of `k` items of each of one or more users; whatever the encoder raises."""
        x = np.concatenate([one.activations for one in readings])
        # Row by row, so that every refusal counts; a row is steered the same beside others of its user.
        steered = self.steerer.steer(x, [SteerContext()] * len(x), time())
        if steered.error is not None:
            raise steered.error
        ends = np.cumsum([len(one) for one in readings])
        rows = np.split(steered.activation, ends[:-1])
        lists = [HeadRows.of(one) for one in readings]
        lists += [HeadRows.of(one, own) for one, own in zip(readings, rows, strict=True)]
        ranked = self.recommender.rank_each([*readings, *readings], lists, k=k, deadline=self.deadline)
        shares = np.array([receipt.delta_share for receipt in steered.receipts])
        refused = Counter(
            receipt.reason.value for receipt in steered.receipts if receipt.reason is not UnsteeredReason.STEERED
        )
        return Tried(
            self._lists(ranked[: len(readings)], k),
            self._lists(ranked[len(readings) :], k),
            np.maximum.reduceat(shares, np.concatenate([[0], ends[:-1]])),
            refused,
        )

    def _lists(self, ranked: Sequence[Sequence[ScoredItem]], k: int) -> Lists:
        items, scores = np.full((len(ranked), k), -1, np.int64), np.full((len(ranked), k), -np.inf, np.float32)
        for row, one in enumerate(ranked):
            items[row, : len(one)] = [self.numbers.of(item) for item in one]
            scores[row, : len(one)] = [item.score for item in one]
        return Lists(items, scores)
