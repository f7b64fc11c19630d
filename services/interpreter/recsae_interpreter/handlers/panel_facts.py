"""The figures of a panel: lists before and after against what the dictionary knows of their items.

Every interval is 95 % over users (`recsae.steering.panel`). Facets are single values of items; pairs of values and
groups of items consumed together are left out of what is off target, and so are pairs the target is part of.
Not here: how the lists came about (`panel_lists`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.catalogue import Catalogue
from recsae.datasets.facet_names import BOTH, LIKE
from recsae.recommenders.metrics import ndcg_gains, ranks_in_lists
from recsae.steering.panel import Moves, Pair, coverage, mean_value, most_changed, paired, places_held, weights
from recsae_interpreter.handlers.panel_lists import Ints, ItemNumbers, Lists
from recsae_interpreter.handlers.preview import MovedItem
from recsae_interpreter.readings import ScoredItem

MOST_FACETS = 10
EXAMPLES = 3


@dataclass(frozen=True)
class FacetShift:
    """A facet's share of the lists."""

    facet: str
    share: Pair


@dataclass(frozen=True)
class Example:
    """The lists of one user."""

    user_id: str
    before: Sequence[ScoredItem]
    after: Sequence[MovedItem]


@dataclass(frozen=True)
class ItemFacts:
    """What is known of the items that were numbered: `places` int64 [items] in the catalogue, -1 = not known there."""

    catalogue: Catalogue
    places: Ints

    @classmethod
    def of(cls, catalogue: Catalogue, numbers: ItemNumbers) -> ItemFacts:
        """Looks the items up."""
        return cls(catalogue, np.array([catalogue.index_of.get(one, -1) for one in numbers.ids], np.int64))

    def share(self, facet: str, before: Ints, after: Ints) -> Pair:
        """The share of the lists' items that carry a facet of the catalogue."""
        members = self.catalogue.members(self.catalogue.facet_index[facet])
        held = np.isin(self.places, members)
        return paired(places_held(before, held), places_held(after, held))

    def off_target(self, target: str, before: Ints, after: Ints) -> list[FacetShift]:
        """The other facets whose shares changed most, largest change first."""
        known = self.places >= 0
        # Facets of the numbered items alone: a catalogue may hold many more.
        starts = self.catalogue.offsets[self.places[known]]
        sizes = self.catalogue.offsets[self.places[known] + 1] - starts
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        at = np.repeat(starts - offsets[:-1], sizes) + np.arange(offsets[-1])
        told = np.array([_told(name, target) for name in self.catalogue.facets], bool)
        carried = self.catalogue.carried[at]
        kept = told[carried] if len(carried) else np.zeros(0, bool)
        offsets = np.concatenate([[0], np.cumsum(kept)])[offsets].astype(np.int64)
        shares = [weights(lists, len(self.places))[known] for lists in (before, after)]
        found = most_changed(shares[0], shares[1], offsets, carried[kept].astype(np.int64), MOST_FACETS)
        names = [self.catalogue.facets[facet] for facet in found.tolist()]
        shifts = [FacetShift(name, self.share(name, before, after)) for name in names]
        return sorted(shifts, key=lambda one: -abs(one.share.difference.value))

    def popularity(self, before: Ints, after: Ints) -> Pair:
        """Mean popularity percentile of the lists' items; those the catalogue does not know count nowhere."""
        # One entry more, so that -1 finds it.
        every = np.append(self.catalogue.popularity, np.nan)
        values = every[self.places]
        return paired(mean_value(before, values), mean_value(after, values))


def shown_of(before: Ints, after: Ints, numbers: ItemNumbers, items: int) -> Pair:
    """Share of a catalogue of so many items that somebody is shown."""
    return coverage(before, after, len(numbers), items)


def gains(lists: Lists, hidden: Sequence[str], numbers: ItemNumbers, k: int) -> NDArray[np.float64]:
    """NDCG@k of each user's hidden item, float64 [n]; lists are one longer than `k`, so that ties cost."""
    targets = np.array([numbers.number_of.get(one, -2) for one in hidden], np.int64)
    return ndcg_gains(ranks_in_lists(lists.items, lists.scores, targets), k)


def examples(user_ids: Sequence[str], before: Lists, after: Lists, numbers: ItemNumbers, found: Moves) -> list[Example]:
    """Lists of the users whose list changed most: fewest items in common, then the longest moves."""
    order = np.lexsort((np.arange(len(user_ids)), -np.nan_to_num(found.moved), found.overlap))
    ids = numbers.ids

    def scored(lists: Lists, row: int) -> list[ScoredItem]:
        numbered = zip(lists.items[row].tolist(), lists.scores[row].tolist(), strict=True)
        return [ScoredItem(ids[one], score, numbers.titles[one]) for one, score in numbered if one >= 0]

    return [
        Example(
            user_ids[row],
            scored(before, row),
            [
                MovedItem(item, rank)
                for item, rank in zip(scored(after, row), found.rank_before[row].tolist(), strict=False)
            ],
        )
        for row in order[:EXAMPLES].tolist()
        if found.changed[row]
    ]


def _told(facet: str, target: str) -> bool:
    """Whether a facet is shown beside the target: a single value, and another one."""
    return facet != target and BOTH not in facet and not facet.startswith(f"{LIKE}=")
