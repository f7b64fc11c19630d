"""Firings kept as examples: the first few of each group in an order that every shard agrees on.

What is kept is a function of the set of firings alone: the first `most` of each group by `order`, ties by user and
position, of firings with one owner (a user, an item) the first only. The first few of a whole are among the first few
of each part, so parts merge exactly, in any order. Random draws are the same with a hash for `order`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.mixing import splitmix64

Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Orders = NDArray[np.uint64]

_LAST = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
COLUMNS = ("group", "order", "user", "position", "item", "value")


@dataclass(frozen=True)
class Rule:
    """How many firings of each group are kept; `owner`: the column ("user", "item") that must differ, "" = none."""

    most: int
    owner: str = ""


@dataclass(frozen=True)
class DrawnFirings:
    """Firings by group, in order within it: `group` int64 and `order` uint64 [m]; user, position, item, value [m].

    A group is a latent, or a bucket of one (`evidence_buckets`).
    """

    group: Longs
    order: Orders
    user: Ints
    position: Ints
    item: Ints
    value: NDArray[np.float32]

    def __len__(self) -> int:
        """Number of firings."""
        return len(self.group)

    @classmethod
    def none(cls) -> DrawnFirings:
        """Of no rows."""
        places = np.zeros(0, np.int32)
        return cls(np.zeros(0, np.int64), np.zeros(0, np.uint64), places, places, places, np.zeros(0, np.float32))

    @classmethod
    def merge(cls, parts: Sequence[DrawnFirings], rule: Rule) -> DrawnFirings:
        """What the rule keeps of all parts together."""
        whole = cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS))
        return whole.drawn(rule)

    def take(self, kept: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> DrawnFirings:
        """Some of them."""
        return DrawnFirings(*(getattr(self, name)[kept] for name in COLUMNS))

    def drawn(self, rule: Rule) -> DrawnFirings:
        """What the rule keeps."""
        found = self._sorted()
        if rule.owner:
            found = found.take(first_of_each(found.group, getattr(found, rule.owner)))
        return found.take(rank_in_group(found.group) < rule.most)

    def _sorted(self) -> DrawnFirings:
        # One fast sort by as much of the order as fits beside the group; ties are rare, and five columns are slow.
        bits = np.uint64(int(self.group.max(initial=0)).bit_length())
        key = (self.group.astype(np.uint64) << (np.uint64(64) - bits)) | (self.order >> bits)
        at = np.argsort(key)
        if (np.diff(key[at]) == 0).any():
            at = np.lexsort((self.item, self.position, self.user, self.order, self.group))
        return self.take(at)

    def bounds(self, groups: int, rule: Rule) -> Orders:
        """The order beyond which a further firing cannot be kept, uint64 [groups]; the largest where there is room."""
        last = np.full(groups, _LAST)
        full = rank_in_group(self.group) == rule.most - 1
        last[self.group[full]] = self.order[full]
        return last


def by_value(value: NDArray[np.float32], chance: Orders) -> Orders:
    """An order that puts larger values > 0 first, equal ones by `chance`, uint64 [n].

    Equal values are common: users who began with the same item have the same first activation.
    """
    falling = ~np.ascontiguousarray(value, np.float32).view(np.uint32)
    return (falling.astype(np.uint64) << np.uint64(32)) | (chance >> np.uint64(32))


def hashed(seed: int, *columns: NDArray[np.integer[Any]]) -> Orders:
    """A 64-bit hash of the entries of some columns, uint64 [n]: the same on every machine (SplitMix64)."""
    state = np.full(len(columns[0]), seed, np.uint64)
    for column in columns:
        state = splitmix64(state ^ column.astype(np.int64).view(np.uint64))
    return state


def first_of_runs(values: NDArray[Any]) -> Longs:
    """Where each run of equal entries begins."""
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])) if len(values) else np.zeros(0, np.int64)


def first_of_each(group: Longs, owner: Ints) -> Longs:
    """Positions of the first entry of every (group, owner), in the order given: the strongest when sorted so."""
    order = np.lexsort((owner, group))
    same = np.diff(group[order], prepend=-1) == 0
    same &= np.diff(owner[order].astype(np.int64), prepend=np.iinfo(np.int64).min // 2) == 0
    return np.sort(order[~same])


def rank_in_group(group: Longs) -> Longs:
    """0, 1, 2, ... within each run of equal entries of a sorted array."""
    starts = first_of_runs(group)
    rank: Longs = np.arange(len(group)) - np.repeat(starts, np.diff(starts, append=len(group)))
    return rank
