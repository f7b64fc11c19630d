"""Everything the evidence of all latents needs of the activations, as sums that merge, in any order.

What is in the sums depends on the rows alone, so that any partition into shards, merged in any order, gives the same
bytes. Construction rows feed everything; the SAE's own rows and item probes only values (for latents silent in
construction) and who is alive; verification rows only who is alive and their own draw of rows. Memory is at most

    64 B x construction's buckets + 32 B x others' + width x 48 x 32 B + 2 x rows_per_part x 4 (d + 3) B,

whatever the number of rows: a latent occupies at most 64 buckets for each doubling between its weakest and strongest
firing, some 250 in practice (52 MB in all at width 1,024 and d = 64 for 10 million rows). Merging holds four times
that. Not here: reading a shard (`evidence_reading`), files (`evidence_files`), what is made of the sums
(`construction`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.dictionary import ConceptArrays
from recsae.concepts.evidence_buckets import LOG_COUNT_UNIT, ValueBuckets
from recsae.concepts.evidence_draws import DrawnFirings, Rule
from recsae.concepts.sampling import ROWS_PER_PART, RowSample
from recsae.concepts.splits import UserPart
from recsae.errors import InvalidRequestError

# Twice as many candidates as are looked at, by distinct user and by distinct item: enough where one item or one user
# holds most of the strongest firings. Random firings: three times as many as are shown, as weak ones are passed over.
DRAWS: Mapping[str, Rule] = {
    "by_user": Rule(16, "user"),
    "by_item": Rule(16, "item"),
    "at_random": Rule(16),
    "per_bucket": Rule(1),
}
SAMPLED = (UserPart.CONSTRUCTION, UserPart.VERIFICATION)
NEVER = float("-inf")
_MERGED_AT_ONCE = 2


@dataclass(frozen=True)
class EvidenceSums:
    """Sums over rows.

    `rows` int64 [3] by `UserPart`; `log_count` int64 [2], sums over construction rows of the newest item's log count in
    units of 1/1,024, and of its square; `construction` and `others` values of firings; `verification_fired` int64 [w];
    `last_fired` float64 [w] newest construction interaction it fired at (-inf = never), in the histories' time; `draws`
    of construction firings by the names of `DRAWS`; `samples` of rows by part. Only sums of one SAE, with the same
    `rows_per_part` and `seed`, may be merged.
    """

    width: int
    rows_per_part: int
    seed: int
    rows: NDArray[np.int64]
    log_count: NDArray[np.int64]
    construction: ValueBuckets
    others: ValueBuckets
    verification_fired: NDArray[np.int64]
    last_fired: NDArray[np.float64]
    draws: Mapping[str, DrawnFirings]
    samples: Mapping[UserPart, RowSample]

    @classmethod
    def none(cls, width: int, rows_per_part: int = ROWS_PER_PART, seed: int = 0) -> EvidenceSums:
        """Of no rows."""
        return cls(
            width=width,
            rows_per_part=rows_per_part,
            seed=seed,
            rows=np.zeros(len(UserPart), np.int64),
            log_count=np.zeros(2, np.int64),
            construction=ValueBuckets.merge([]),
            others=ValueBuckets.merge([]),
            verification_fired=np.zeros(width, np.int64),
            last_fired=np.full(width, NEVER),
            draws={name: DrawnFirings.none() for name in DRAWS},
            samples={part: RowSample.none() for part in SAMPLED},
        )

    @classmethod
    def merge(cls, parts: Iterable[EvidenceSums]) -> EvidenceSums:
        """Of the rows of all parts; a few are held at a time. InvalidRequestError when they do not belong together."""
        remaining = iter(parts)
        found = next(remaining, None)
        if found is None:
            raise InvalidRequestError("no sums to merge; read at least one shard")
        while more := list(islice(remaining, _MERGED_AT_ONCE)):
            found = _added([found, *more])
        return found

    @property
    def probe_counts(self) -> NDArray[np.int64]:
        """Firings outside verification, int64 [w]."""
        return self.construction.counts(self.width) + self.others.counts(self.width)

    def health(self) -> ConceptArrays:
        """p50, p95, p99 and mean of the positive values, and density, over all construction rows.

        A latent that is silent there takes its quantiles and mean (never its density) from the other rows; a dead one
        has p50 = p95 = p99 = 1 and mean 0.
        """
        counts = self.construction.counts(self.width)
        here, elsewhere = (_moments(values, self.width) for values in (self.construction, self.others))
        p50, p95, p99, mean = np.where(counts > 0, here, elsewhere).astype(np.float32)
        density = (counts / max(1, self.rows[UserPart.CONSTRUCTION])).astype(np.float32)
        return ConceptArrays(p50, p95, p99, mean, density)

    def popularity_correlation(self) -> NDArray[np.float64]:
        """Pearson correlation of value (0 where silent) and newest item's log count, float64 [w]; 0 if undefined.

        Over all construction rows: histories of real users, the same rows for every latent.
        """
        n = max(1, int(self.rows[UserPart.CONSTRUCTION]))
        values, width = self.construction, self.width
        log_sum, log_squares = self.log_count * np.array([LOG_COUNT_UNIT, LOG_COUNT_UNIT**2])
        z = values.sums(width) / n
        z_spread = values.totals(width, values.count * values.means**2) / n - z**2
        spread = z_spread * (log_squares / n - (log_sum / n) ** 2)
        together = values.totals(width, values.log_count * values.means) * LOG_COUNT_UNIT / n - z * log_sum / n
        correlation: NDArray[np.float64] = np.zeros(width)
        np.divide(together, np.sqrt(np.maximum(spread, 0)), out=correlation, where=spread > 0)
        return correlation

    def largest(self) -> NDArray[np.float32]:
        """Largest value of each latent on construction rows, float32 [w]; 0 where it never fires."""
        largest = np.zeros(self.width, np.float32)
        np.maximum.at(largest, self.draws["by_user"].group, self.draws["by_user"].value)
        return largest


def health_scores(sums: EvidenceSums) -> dict[str, NDArray[np.float64]]:
    """Health figures by name, float64 [w], NaN = not defined: docs/method.md, section 4.

    `firings` and `mean`, `p50`, `p99`, `max` of their values; `concentration`, the share of the activation mass that
    the strongest 1 % of firings hold; `popularity_correlation`; `last_fired` in the histories' time.
    """
    arrays, counts = sums.health(), sums.construction.counts(sums.width)
    figures: dict[str, NDArray[Any]] = {
        "mean": arrays.mean,
        "p50": arrays.p50,
        "p99": arrays.p99,
        "max": sums.largest(),
        "concentration": sums.construction.top_share(sums.width),
        "popularity_correlation": sums.popularity_correlation(),
        "last_fired": sums.last_fired,
    }
    defined = {name: np.where(counts > 0, each, np.nan).astype(np.float64) for name, each in figures.items()}
    return {"firings": counts.astype(np.float64)} | defined


def _added(parts: Sequence[EvidenceSums]) -> EvidenceSums:
    first = parts[0]
    if len(kinds := {(part.width, part.rows_per_part, part.seed) for part in parts}) > 1:
        raise InvalidRequestError(
            f"sums of different width, rows per part or seed ({sorted(kinds)}) do not add up; read all shards alike"
        )
    samples = {part: first.samples[part] for part in first.samples}
    for other in parts[1:]:
        for part, sample in samples.items():
            samples[part] = sample.merged(other.samples[part], first.rows_per_part, first.seed)
    return EvidenceSums(
        width=first.width,
        rows_per_part=first.rows_per_part,
        seed=first.seed,
        rows=sum((part.rows for part in parts[1:]), first.rows),
        log_count=sum((part.log_count for part in parts[1:]), first.log_count),
        construction=ValueBuckets.merge([part.construction for part in parts]),
        others=ValueBuckets.merge([part.others for part in parts]),
        verification_fired=sum((part.verification_fired for part in parts[1:]), first.verification_fired),
        last_fired=np.max([part.last_fired for part in parts], axis=0),
        draws={name: DrawnFirings.merge([part.draws[name] for part in parts], rule) for name, rule in DRAWS.items()},
        samples=samples,
    )


def _moments(values: ValueBuckets, width: int) -> NDArray[np.float64]:
    """p50, p95, p99 and mean, float64 [4, w]."""
    mean = values.sums(width) / np.maximum(values.counts(width), 1)
    return np.concatenate([values.quantiles(width, (0.5, 0.95, 0.99)), mean[None]])
