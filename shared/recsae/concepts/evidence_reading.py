"""Reads one shard of activations into `EvidenceSums`: the map of the map-reduce.

In blocks of rows, so that scratch does not grow with the shard. Firings that cannot be kept any more are passed over
before they are sorted: most of a shard's, once its first block is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.evidence_buckets import ValueBuckets, keys_of, log_count_units
from recsae.concepts.evidence_draws import DrawnFirings, Rule, by_value, hashed
from recsae.concepts.evidence_sums import DRAWS, NEVER, SAMPLED, EvidenceSums
from recsae.concepts.firings import Encoder
from recsae.concepts.sampling import ROWS_PER_PART, ActivationRows, RowSample
from recsae.concepts.splits import UserPart
from recsae.datasets.schema import Histories
from recsae.errors import FailedPreconditionError

_ROWS_AT_ONCE = 8_192
# What blocks leave is added up once there is this much of it.
_BLOCKS_AT_ONCE = 16


@dataclass(frozen=True)
class RowFacts:
    """What is known of rows beside their activations, and how many are drawn; the same for all shards.

    `parts` int8 [n_users + 1] of `UserPart`, the last for item probes; `histories` the rows were collected from;
    `log_counts` float32 [n_items + 1] of items.
    """

    parts: NDArray[np.int8]
    histories: Histories
    log_counts: NDArray[np.float32]
    rows_per_part: int = ROWS_PER_PART
    seed: int = 0

    def times(
        self, user: NDArray[np.int32], position: NDArray[np.int32], item: NDArray[np.int32]
    ) -> NDArray[np.float64]:
        """When each row's newest interaction was, float64 [n], in seconds or, without a clock, in order.

        FailedPreconditionError when rows do not end with the item their position names.
        """
        offsets, items = self.histories.offsets, self.histories.items
        at = offsets[user] + position
        lost = (at >= offsets[user.astype(np.int64) + 1]) | (items[np.minimum(at, len(items) - 1)] != item)
        if lost.any():
            raise FailedPreconditionError(
                f"{int(lost.sum())} of {len(lost)} activation rows do not end with the item their position names; "
                "pass the histories the activations were collected from"
            )
        times: NDArray[np.float64] = self.histories.timestamps[at]
        return times


def read_shard(shard: ActivationRows, encoder: Encoder, facts: RowFacts) -> EvidenceSums:
    """The sums of one shard. FailedPreconditionError when its rows are not of these histories."""
    reading = _Reading(shard, encoder, facts)
    for at in range(0, len(reading.user), _ROWS_AT_ONCE):
        reading.block(slice(at, min(at + _ROWS_AT_ONCE, len(reading.user))))
        reading.add_up(_BLOCKS_AT_ONCE)
    reading.add_up(1)
    return reading.finished()


@dataclass(frozen=True)
class _Fired:
    """Firings of one block: row in the shard, latent int64 and value float32 [m]."""

    row: NDArray[np.int64]
    latent: NDArray[np.int64]
    value: NDArray[np.float32]

    def take(self, kept: NDArray[np.bool_]) -> _Fired:
        return _Fired(self.row[kept], self.latent[kept], self.value[kept])


@dataclass
class _Reading:
    shard: ActivationRows
    encoder: Encoder
    facts: RowFacts
    construction: list[ValueBuckets] = field(default_factory=list)
    others: list[ValueBuckets] = field(default_factory=list)
    per_bucket: list[DrawnFirings] = field(default_factory=list)

    def __post_init__(self) -> None:
        width = self.encoder.width
        self.user, self.position, self.item = (
            np.asarray(column) for column in (self.shard.user, self.shard.position, self.shard.item)
        )
        self.part = self.facts.parts[self.user]
        self.log_counts = log_count_units(self.facts.log_counts)
        self.log_count = np.zeros(2, np.int64)
        self.verification_fired = np.zeros(width, np.int64)
        self.last_fired = np.full(width, NEVER)
        self.draws = {name: DrawnFirings.none() for name in DRAWS}

    def block(self, rows: slice) -> None:
        """Adds some rows."""
        codes = self.encoder.encode(np.ascontiguousarray(self.shard.x[rows], np.float32))
        row, slot = np.nonzero(codes.values > 0)
        fired = _Fired(row + rows.start, codes.indices[row, slot].astype(np.int64), codes.values[row, slot])
        of = self.part[fired.row]
        verified = np.bincount(fired.latent[of == UserPart.VERIFICATION], minlength=self.encoder.width)
        self.verification_fired += verified
        theirs = fired.take(of == UserPart.SAE)
        self.others.append(ValueBuckets.of(theirs.latent, theirs.value, np.zeros_like(theirs.latent)))
        mine = np.flatnonzero(self.part[rows] == UserPart.CONSTRUCTION) + rows.start
        if len(mine):
            self._construct(mine, fired.take(of == UserPart.CONSTRUCTION))

    def _construct(self, rows: NDArray[np.int64], fired: _Fired) -> None:
        row, latent, value = fired.row, fired.latent, fired.value
        log_counts = self.log_counts[self.item[rows]]
        self.log_count += [log_counts.sum(), np.square(log_counts).sum()]
        when = self.facts.times(self.user[rows], self.position[rows], self.item[rows])
        np.maximum.at(self.last_fired, latent, when[np.searchsorted(rows, row)])
        self.construction.append(ValueBuckets.of(latent, value, self.log_counts[self.item[row]]))
        places = self.user[row], self.position[row], self.item[row], value
        by_chance = hashed(self.facts.seed, places[0], places[1], latent)
        chance = DrawnFirings(latent, by_chance, *places)
        strong = DrawnFirings(latent, by_value(value, by_chance), *places)
        for name, firings in (("by_user", strong), ("by_item", strong), ("at_random", chance)):
            self.draws[name] = self._drawn(self.draws[name], firings, DRAWS[name])
        # Another draw than at random, or bands would show the same rows again.
        again = hashed(self.facts.seed + 1, places[0], places[1], latent)
        in_buckets = DrawnFirings(keys_of(latent, value), again, *places)
        self.per_bucket.append(in_buckets.drawn(DRAWS["per_bucket"]))

    def _drawn(self, so_far: DrawnFirings, firings: DrawnFirings, rule: Rule) -> DrawnFirings:
        hopeful = firings.order <= so_far.bounds(self.encoder.width, rule)[firings.group]
        return DrawnFirings.merge([so_far, firings.take(hopeful)], rule)

    def add_up(self, blocks: int) -> None:
        """Adds up what blocks have left, where there are as many."""
        for values in (self.construction, self.others):
            if len(values) >= blocks:
                values[:] = [ValueBuckets.merge(values)]
        if len(self.per_bucket) >= blocks:
            self.per_bucket[:] = [DrawnFirings.merge(self.per_bucket, DRAWS["per_bucket"])]

    def finished(self) -> EvidenceSums:
        """The sums of the rows added."""
        facts = self.facts
        if self.per_bucket:
            (self.draws["per_bucket"],) = self.per_bucket
        return EvidenceSums(
            width=self.encoder.width,
            rows_per_part=facts.rows_per_part,
            seed=facts.seed,
            rows=np.bincount(self.part, minlength=len(UserPart)).astype(np.int64),
            log_count=self.log_count,
            construction=ValueBuckets.merge(self.construction),
            others=ValueBuckets.merge(self.others),
            verification_fired=self.verification_fired,
            last_fired=self.last_fired,
            draws=self.draws,
            samples={
                part: RowSample.of(self.shard, self.part == part, facts.rows_per_part, facts.seed) for part in SAMPLED
            },
        )
