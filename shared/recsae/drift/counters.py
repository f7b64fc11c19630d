"""Additive counters of how concepts fire (docs/method.md, section 9): they merge by adding, in any order.

One `ConceptCounters` holds what was seen of one series (model, SAE version, segment, steered or not) in some span
of time. Not here: spans (`panes`), live collection (`arena`) and what the numbers mean (`compare`). numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError

SCHEMA_VERSION = 1
# Bucket b counts values v with 2^(b - 12) <= v < 2^(b - 11); the outer two are open. SAE inputs are scaled to unit
# mean norm in training, so values between 2^-12 and 2^12 of any trained SAE fall inside.
BUCKETS = 24
_BUCKET_OFFSET = 12

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Series:
    """What a set of counters is about. Versions never mix; steered rows are counted apart."""

    model: str
    sae_version: str
    segment: str = ""
    steered: bool = False


class ConceptCounters:
    """Counts over rows; every field adds up but `last_fired`, of which the later one stays.

    `n` rows; per latent `fired` int64 [w], `total` and `squares` float64 [w] (sums of values and their squares),
    `buckets` int64 [w, 24] (counts of values by power of two), `last_fired` float64 [w] (seconds since the epoch,
    0 = never); and the two sums of FVU, float.
    """

    def __init__(self, width: int) -> None:
        """Nothing seen yet; `width` latents."""
        self.width = width
        self.n = 0
        self.fired: Counts = np.zeros(width, np.int64)
        self.total: Doubles = np.zeros(width, np.float64)
        self.squares: Doubles = np.zeros(width, np.float64)
        self.buckets: Counts = np.zeros((width, BUCKETS), np.int64)
        self.last_fired: Doubles = np.zeros(width, np.float64)
        self.fvu_numerator = 0.0
        self.fvu_denominator = 0.0

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained: sum |x - x_hat|^2 / sum |x - mean|^2; NaN before the first row."""
        return self.fvu_numerator / self.fvu_denominator if self.fvu_denominator > 0 else float("nan")

    def add(
        self,
        indices: NDArray[np.integer[Any]],
        values: Floats,
        x: Floats,
        x_hat: Floats,
        *,
        mean: Floats,
        at: float,
    ) -> None:
        """Counts rows. `indices`, `values` [n, k] are their codes (a value <= 0 did not fire); `x`, `x_hat` [n, d].

        `mean` [d] is the training mean FVU is measured from; `at` is the time in seconds since the epoch.
        InvalidRequestError when shapes do not agree or a latent is outside the width.
        """
        self._check(indices, values, x, x_hat, mean)
        fires = values > 0
        latents = indices[fires].astype(np.int64, copy=False)
        strengths = values[fires].astype(np.float64)
        if latents.size and not 0 <= int(latents.min()) <= int(latents.max()) < self.width:
            raise InvalidRequestError(f"latent {int(latents.max())} is outside width {self.width}; SAE versions differ")
        self.n += int(values.shape[0])
        self.fired += np.bincount(latents, minlength=self.width)
        self.total += np.bincount(latents, weights=strengths, minlength=self.width)
        self.squares += np.bincount(latents, weights=strengths * strengths, minlength=self.width)
        np.add.at(self.buckets, (latents, bucket_of(strengths)), 1)
        self.last_fired[latents] = np.maximum(self.last_fired[latents], at)
        self.fvu_numerator += float(np.square(x - x_hat, dtype=np.float64).sum())
        self.fvu_denominator += float(np.square(x - mean, dtype=np.float64).sum())

    def merge(self, other: ConceptCounters) -> None:
        """Adds the counts of `other`; InvalidRequestError when the widths differ."""
        if other.width != self.width:
            raise InvalidRequestError(f"counters of width {other.width} do not add to width {self.width}")
        self.n += other.n
        self.fired += other.fired
        self.total += other.total
        self.squares += other.squares
        self.buckets += other.buckets
        np.maximum(self.last_fired, other.last_fired, out=self.last_fired)
        self.fvu_numerator += other.fvu_numerator
        self.fvu_denominator += other.fvu_denominator

    def to_bytes(self) -> bytes:
        """Bytes in safetensors form of the latents that fired and their filled buckets: small for sparse traffic."""
        latents = np.flatnonzero(self.fired)
        flat = self.buckets.ravel()
        filled = np.flatnonzero(flat)
        return safetensors.numpy.save(
            {
                "header": np.array([SCHEMA_VERSION, self.width, self.n], np.int64),
                "fvu": np.array([self.fvu_numerator, self.fvu_denominator], np.float64),
                "latents": latents,
                "fired": self.fired[latents],
                "total": self.total[latents],
                "squares": self.squares[latents],
                "last_fired": self.last_fired[latents],
                "bucket_at": filled,
                "bucket_count": flat[filled],
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> ConceptCounters:
        """What `to_bytes` wrote; InvalidRequestError when another release wrote another form."""
        arrays: Mapping[str, NDArray[Any]] = safetensors.numpy.load(data)
        version, width, n = (int(value) for value in arrays["header"])
        if version != SCHEMA_VERSION:
            raise InvalidRequestError(f"counters have schema {version}, this release reads {SCHEMA_VERSION}")
        counters = cls(width)
        latents = arrays["latents"]
        counters.n = n
        counters.fired[latents] = arrays["fired"]
        counters.total[latents] = arrays["total"]
        counters.squares[latents] = arrays["squares"]
        counters.last_fired[latents] = arrays["last_fired"]
        counters.buckets.ravel()[arrays["bucket_at"]] = arrays["bucket_count"]
        counters.fvu_numerator, counters.fvu_denominator = (float(value) for value in arrays["fvu"])
        return counters

    def _check(self, indices: NDArray[np.integer[Any]], values: Floats, x: Floats, x_hat: Floats, mean: Floats) -> None:
        rows = values.shape[:1]
        if indices.shape != values.shape or values.ndim != 2:
            raise InvalidRequestError(f"codes have shapes {indices.shape} and {values.shape}; both must be [n, k]")
        if x.ndim != 2 or x.shape != x_hat.shape or x.shape[:1] != rows or mean.shape != x.shape[1:]:
            raise InvalidRequestError(
                f"x {x.shape}, x_hat {x_hat.shape} and mean {mean.shape} do not fit {values.shape[0]} rows of codes"
            )


def bucket_of(values: Doubles) -> Counts:
    """Bucket, 0 to 23, of each positive value [m]."""
    # frexp gives v = mantissa * 2^exponent with mantissa in [.5, 1): exact, where log2 rounds at powers of two.
    exponents = np.frexp(values)[1].astype(np.int64) - 1
    return np.clip(exponents + _BUCKET_OFFSET, 0, BUCKETS - 1)


def merged(parts: list[ConceptCounters], width: int) -> ConceptCounters:
    """The sum of `parts`, all of `width` latents."""
    whole = ConceptCounters(width)
    for part in parts:
        whole.merge(part)
    return whole
