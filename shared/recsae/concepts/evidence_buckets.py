"""Values of firings as counts in logarithmic buckets: health figures that merge exactly, in any order.

A bucket is the exponent and the first six bits of the mantissa of a float32, so that two values of one bucket differ by
less than 1/64, and no range has to be chosen. All sums are integers (mantissas within a bucket share their exponent),
so that adding them in any order gives the same bytes. Quantiles are those of numpy with every value taken as the mean
of its bucket: off by less than 1/64 of the value, exact where a bucket holds equal values or one. Sums are exact; sums
of squares miss less than 1/64^2. Not here: which rows are counted (`evidence_sums`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.evidence_draws import first_of_runs

Longs = NDArray[np.int64]
Doubles = NDArray[np.float64]

_FRACTION_BITS, _KEPT_BITS = 23, 6
RELATIVE_ERROR = 2.0**-_KEPT_BITS
_DROPPED_BITS = _FRACTION_BITS - _KEPT_BITS
_BITS = 8 + _KEPT_BITS
# The mantissa of a float32 counts units of 2^(exponent - 150).
_UNIT = 150
COLUMNS = ("key", "count", "mantissa", "log_count")
# Log counts of items are added as whole 1/1,024: at most 15 bits, so that the squares of 2^33 rows fit.
LOG_COUNT_UNIT = 2.0**-10


@dataclass(frozen=True)
class ValueBuckets:
    """Firings of all latents by bucket, ascending by `key`; all int64 [m], m <= firings and <= 2^14 per latent.

    `key` = latent << 14 | bucket; `count` firings; `mantissa` the sum of their mantissas; `log_count` the sum of the
    newest item's log count in units of 1/1,024.
    """

    key: Longs
    count: Longs
    mantissa: Longs
    log_count: Longs

    @classmethod
    def of(cls, latents: Longs, values: NDArray[np.float32], log_counts: Longs) -> ValueBuckets:
        """Of firings given as latent [n], value > 0 [n] and log count in units [n]."""
        ones = np.ones(len(latents), np.int64)
        return _reduced(cls(keys_of(latents, values), ones, _mantissas(values), log_counts))

    @classmethod
    def merge(cls, parts: Sequence[ValueBuckets]) -> ValueBuckets:
        """The buckets of all firings of all parts."""
        none = np.zeros(0, np.int64)
        return _reduced(cls(*(np.concatenate([none, *(getattr(part, name) for part in parts)]) for name in COLUMNS)))

    @property
    def latents(self) -> Longs:
        """The latent of each bucket, ascending."""
        return self.key >> _BITS

    @cached_property
    def means(self) -> Doubles:
        """Mean value of each bucket, float64 [m]."""
        exponent = np.maximum((self.key & ((1 << _BITS) - 1)) >> _KEPT_BITS, 1)
        means: Doubles = np.ldexp(self.mantissa / self.count, (exponent - _UNIT).astype(np.int32))
        return means

    def totals(self, width: int, per_bucket: NDArray[np.int64] | Doubles) -> Doubles:
        """Sums over the buckets of each latent, float64 [w]; counts below 2^53 stay exact."""
        return np.bincount(self.latents, weights=per_bucket, minlength=width).astype(np.float64)

    def counts(self, width: int) -> Longs:
        """Firings of each latent, int64 [w]."""
        return self.totals(width, self.count).astype(np.int64)

    def sums(self, width: int) -> Doubles:
        """Sum of the values of each latent, float64 [w]."""
        return self.totals(width, self.count * self.means)

    def quantiles(self, width: int, shares: Sequence[float]) -> Doubles:
        """Quantiles of the values of each latent, float64 [shares, w]; 1 for one that never fires."""
        found = np.ones((len(shares), width))
        fires = np.unique(self.latents)
        firings = self.counts(width)[fires]
        for row, share in enumerate(shares):
            at = share * (firings - 1)
            low = np.floor(at).astype(np.int64)
            below = self.means[self.bucket_of_rank(width, fires, low)]
            above = self.means[self.bucket_of_rank(width, fires, np.minimum(low + 1, firings - 1))]
            found[row, fires] = below + (at - low) * (above - below)
        return found

    def bucket_of_rank(self, width: int, latents: Longs, rank: Longs) -> Longs:
        """Position here of the bucket that holds the firing of that rank (0 = weakest) of each latent."""
        before = np.concatenate([[0], np.cumsum(self.counts(width))])[latents]
        found: Longs = np.asarray(np.searchsorted(np.cumsum(self.count), before + rank, side="right"), np.int64)
        return found

    def top_share(self, width: int, strongest: float = 0.01) -> Doubles:
        """Share of each latent's activation mass that its strongest 1 % of firings hold, float64 [w]; 0 if silent.

        .01 when all are equally strong; 1 % of fewer than 100 firings is a part of the strongest one.
        """
        latents, firings = self.latents, self.counts(width)
        after = np.concatenate([[0], np.cumsum(firings)])[latents + 1] - np.cumsum(self.count)
        counted = np.clip(strongest * firings[latents] - after, 0, self.count)
        mass = self.sums(width)
        top = self.totals(width, counted * self.means)
        return np.divide(top, mass, out=np.zeros(width), where=mass > 0)


def keys_of(latents: Longs, values: NDArray[np.float32]) -> Longs:
    """Key of the bucket of each firing, int64 [n]."""
    return (latents << _BITS) | (_bits(values) >> _DROPPED_BITS)


def tops_of(keys: Longs) -> NDArray[np.float32]:
    """Upper end of the bucket of each key, which no value of it reaches, float32."""
    above = ((keys & ((1 << _BITS) - 1)) + 1) << _DROPPED_BITS
    return above.astype(np.uint32).view(np.float32)


def log_count_units(log_counts: NDArray[np.float32]) -> Longs:
    """Log counts as whole units of 1/1,024, int64."""
    units: Longs = np.rint(log_counts / LOG_COUNT_UNIT).astype(np.int64)
    return units


def _bits(values: NDArray[np.float32]) -> Longs:
    return np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.int64)


def _mantissas(values: NDArray[np.float32]) -> Longs:
    bits = _bits(values)
    implicit = np.where(bits >> _FRACTION_BITS > 0, 1 << _FRACTION_BITS, 0)
    return (bits & ((1 << _FRACTION_BITS) - 1)) | implicit


def _reduced(found: ValueBuckets) -> ValueBuckets:
    """Ascending by key, entries of one key added up."""
    order = np.argsort(found.key, kind="stable")
    key = found.key[order]
    starts = first_of_runs(key)
    if not len(starts):
        return found
    rest = (np.add.reduceat(column[order], starts) for column in (found.count, found.mantissa, found.log_count))
    return ValueBuckets(key[starts], *rest)
