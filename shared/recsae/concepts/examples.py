"""The examples of every latent as records: strongest, random, near misses, and one per quantile band.

Not here: which firings were remembered (`evidence_sums`) and how a sequence is written down (`sequences`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsae.concepts.bands import BANDS, strength_bands
from recsae.concepts.dictionary import ConceptArrays
from recsae.concepts.evidence import Decided
from recsae.concepts.evidence_sums import EvidenceSums
from recsae.concepts.features import Windows
from recsae.concepts.inputs import DictionaryInputs, PartRows
from recsae.concepts.near_misses import near_misses
from recsae.concepts.records import Evidence, QuantileBand
from recsae.concepts.sequences import Sequences, random_positives

# Newest items shown of a band's example: enough to see what it is like, a fifth of the dictionary's size.
_BAND_ITEMS = 4

ByLatent = list[tuple[Evidence, ...]]


@dataclass(frozen=True)
class ShownExamples:
    """Examples by latent: strongest firings, random positives, near misses and bands."""

    strongest: ByLatent
    random: ByLatent
    near: ByLatent
    bands: list[tuple[QuantileBand, ...]]


def shown_examples(
    inputs: DictionaryInputs,
    sums: EvidenceSums,
    part: PartRows,
    arrays: ConceptArrays,
    top: Windows,
    decided: Decided,
) -> ShownExamples:
    """All of them; `top` are the windows the rows of `decided` count in, `part` the construction rows."""
    chosen = decided.candidates
    strength = chosen.value / arrays.p95[chosen.latent]
    strongest = Sequences(top, chosen.latent, chosen.row, strength, decided.drop, decided.lag)
    return ShownExamples(
        strongest=strongest.by_latent(inputs),
        random=random_positives(inputs, sums, arrays.p95).by_latent(inputs),
        near=_near(inputs, part, arrays).by_latent(inputs),
        bands=_bands(inputs, sums, arrays),
    )


def _near(inputs: DictionaryInputs, part: PartRows, arrays: ConceptArrays) -> Sequences:
    """Near misses; their strength is what it would have been."""
    if inputs.scores is None:
        nothing = np.zeros(0, np.int64)
        return Sequences.plain(part.windows, nothing, nothing, nothing.astype(np.float32))
    found = near_misses(part.sample.x, part.firings, part.sample.user, inputs.scores)
    return Sequences.plain(part.windows, found.latent, found.row, found.score / arrays.p95[found.latent])


def _bands(inputs: DictionaryInputs, sums: EvidenceSums, arrays: ConceptArrays) -> list[tuple[QuantileBand, ...]]:
    bands = strength_bands(sums, arrays)
    drawn = sums.draws["per_bucket"]
    latent, _ = np.nonzero(bands.example >= 0)
    example = drawn.take(bands.example[bands.example >= 0])
    strength = example.value / arrays.p95[latent]
    shown = Sequences.plain(inputs.windows(example), latent, np.arange(len(example)), strength, _BAND_ITEMS)
    place = np.cumsum(bands.example.ravel() >= 0).reshape(bands.example.shape) - 1
    edges = np.concatenate([np.zeros((1, sums.width)), bands.edges, bands.largest[None]]) / arrays.p95
    # A latent whose strongest firing lies in a low band has nothing above it.
    edges = np.minimum(edges, edges[-1])
    result = []
    for each in range(sums.width):
        mine = []
        for band in range(BANDS):
            count = int(bands.count[each, band])
            shown_one = shown.record(inputs, int(place[each, band])) if count else None
            mine.append(QuantileBand(float(edges[band, each]), float(edges[band + 1, each]), count, shown_one))
        result.append(tuple(mine) if bands.count[each].any() else ())
    return result
