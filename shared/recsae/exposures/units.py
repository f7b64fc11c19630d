"""Arms of an experiment from an exposure log: per user the mean facet shares of the lists shown in each arm.

A user counts once however often a list was shown, because lists of one user are not independent; a request without a
user counts for itself. Memory is bounded: of more users than asked for, those with the smallest hashes are kept, which
is an even sample. Not here: statistics (`recsae.steering.experiment`).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsae.exposures.record import REPLAYED, Exposure
from recsae.steering.arms import Arm, Place, Role, place_of
from recsae.steering.experiment import Doubles, facet_shares
from recsae.steering.receipts import UnsteeredReason

_REPLAYED, _NO_ITEMS, _NO_LIST = "replayed", "no_known_items", "no_shadow_list"


class _Unit(NamedTuple):
    order: bytes
    """Hash of who it is: the smallest are kept."""
    place: Place


@dataclass
class _Sums:
    """Sums over a unit's exposures; `bare` are shares of what was served where `shares` are of a shadow list."""

    shares: Doubles
    bare: Doubles
    overlap: float = 0.0
    count: int = 0


@dataclass
class LogArms:
    """Takes exposures one by one and gives the arms of one policy.

    `index` maps item ids to rows of `facets` float32 0/1 [n_items + 1, f]. `most_users` are kept over all arms.
    """

    policy_id: str
    index: Mapping[str, int]
    facets: NDArray[np.float32]
    most_users: int = 50_000
    outside: Counter[str] = field(default_factory=Counter)
    """Exposures in no arm, by reason."""
    exposures: int = 0
    """Exposures looked at."""
    unlinked: int = 0
    """Exposures in arms without a user: each counted as a user of its own."""
    _units: dict[_Unit, _Sums] = field(default_factory=dict)

    def add(self, exposure: Exposure) -> None:
        """Takes one exposure."""
        self.exposures += 1
        place = self._place(exposure)
        if isinstance(place, str):
            self.outside[place] += 1
            return
        served = self._shares(exposure.item_ids)
        if served is None:
            self.outside[_NO_ITEMS] += 1
            return
        shown, overlap = served, 0.0
        if place.role is Role.SHADOW:
            would = exposure.shadow
            shares = None if would is None or would.item_ids is None else self._shares(would.item_ids)
            if would is None or shares is None:
                self.outside[_NO_LIST] += 1
                return
            shown, overlap = shares, would.overlap or 0.0
        self.unlinked += not exposure.user
        sums = self._of(exposure.user or exposure.request_id, place)
        sums.shares += shown
        sums.bare += served
        sums.overlap += overlap
        sums.count += 1

    def arms(self) -> dict[Place, Arm]:
        """Mean shares of each user by arm; of shadow arms beside those of what was served."""
        self._forget()
        rows: dict[Place, list[_Sums]] = defaultdict(list)
        for unit, sums in self._units.items():
            rows[unit.place].append(sums)
        return {
            place: Arm(
                np.stack([one.shares / one.count for one in found]),
                np.stack([one.bare / one.count for one in found]) if place.role is Role.SHADOW else None,
            )
            for place, found in rows.items()
        }

    def overlaps(self) -> dict[int, Doubles]:
        """By revision: each user's mean overlap of shadow lists with those served, float64 [n]."""
        found: dict[int, list[float]] = defaultdict(list)
        for unit, sums in self._units.items():
            if unit.place.role is Role.SHADOW:
                found[unit.place.revision].append(sums.overlap / sums.count)
        return {revision: np.array(values) for revision, values in found.items()}

    def _place(self, exposure: Exposure) -> Place | str:
        if exposure.request_id.startswith(REPLAYED):
            return _REPLAYED
        if exposure.reason is UnsteeredReason.NOT_WANTED:
            return exposure.reason.value
        shadow = exposure.shadow
        return place_of(
            self.policy_id,
            reason=exposure.reason,
            applied=exposure.applied,
            held_out=exposure.held_out,
            shadow=shadow.policies if shadow is not None else (),
        )

    def _shares(self, item_ids: tuple[str, ...]) -> Doubles | None:
        """Facet shares of a list, float64 [f]; None when it holds no item of the data set."""
        known = [at for item_id in item_ids if (at := self.index.get(item_id))]
        return facet_shares(np.array([known], np.int64), self.facets)[0] if known else None

    def _of(self, who: str, place: Place) -> _Sums:
        unit = _Unit(hashlib.sha256(who.encode()).digest()[:8], place)
        if unit not in self._units:
            if len(self._units) >= 2 * self.most_users:
                self._forget()
            width = self.facets.shape[1]
            self._units[unit] = _Sums(np.zeros(width), np.zeros(width))
        return self._units[unit]

    def _forget(self) -> None:
        """Keeps the units with the smallest hashes. A unit forgotten once is never kept later: the bound only falls."""
        if len(self._units) > self.most_users:
            kept = sorted(self._units)[: self.most_users]
            self._units = {unit: self._units[unit] for unit in kept}
