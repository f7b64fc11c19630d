"""Puts what was computed for all latents at once into one record per latent. No figure is computed here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.bands import strength_bands
from recsae.concepts.dictionary import ConceptArrays
from recsae.concepts.enrichment import Enrichment
from recsae.concepts.evidence import Decided
from recsae.concepts.firings import CoFiring
from recsae.concepts.identity import Identity
from recsae.concepts.inputs import DictionaryInputs, PartRows
from recsae.concepts.labels import output_label_of, predicate_of
from recsae.concepts.outputs import Outputs
from recsae.concepts.records import (
    ConceptKind,
    ConceptRecord,
    Evidence,
    EvidenceItem,
    ItemScore,
    QuantileBand,
    RuleRecord,
)

# Newest items shown of a band's example: enough to see what it is like, a fifth of the dictionary's size.
_BAND_ITEMS = 4


@dataclass(frozen=True)
class LatentFacts:
    """Everything construction found, by latent; `outputs` and `output_side` are None without a dot-product head."""

    identity: Identity
    labels: list[str]
    shown: list[RuleRecord]
    arrays: ConceptArrays
    decided: Decided
    input_side: Enrichment
    effective_items: NDArray[np.float64]
    outputs: Outputs | None
    output_side: Enrichment | None
    near: CoFiring


def draft_records(inputs: DictionaryInputs, part: PartRows, facts: LatentFacts) -> tuple[ConceptRecord, ...]:
    """One record per latent, verification scores still missing."""
    evidence = _evidence(inputs, part, facts)
    bands = _bands(inputs, part, facts)
    ids, width = list(facts.identity.ids), len(facts.labels)
    records = []
    for latent in range(width):
        promoted, suppressed = _output_items(inputs, facts.outputs, latent)
        output_facets = facts.output_side.lifts(latent, inputs.facets.names) if facts.output_side else ()
        records.append(
            ConceptRecord(
                id=ids[latent],
                latent=latent,
                label=facts.labels[latent],
                output_label=output_label_of(output_facets, promoted),
                kind=kind_of(facts.shown[latent]),
                density=float(facts.arrays.density[latent]),
                p95=float(facts.arrays.p95[latent]),
                predicate=predicate_of(facts.shown[latent]),
                effective_items=float(facts.effective_items[latent]),
                evidence=tuple(evidence[latent]),
                bands=bands[latent],
                promoted=promoted,
                suppressed=suppressed,
                neighbours=facts.near.of(latent, ids, facts.labels),
                input_facets=facts.input_side.lifts(latent, inputs.facets.names),
                output_facets=output_facets,
                rule=facts.shown[latent],
                origin=facts.identity.origins[latent],
                scores={"typical_lag": float(facts.decided.typical_lag[latent])},
            )
        )
    return tuple(records)


def kind_of(rule: RuleRecord) -> ConceptKind:
    """Class of a label not yet shown to hold on unseen items."""
    if rule.item_ids:
        return ConceptKind.ITEM_SET
    return ConceptKind.FACET if rule.literals else ConceptKind.NONE


def _evidence(inputs: DictionaryInputs, part: PartRows, facts: LatentFacts) -> list[list[Evidence]]:
    by_latent: list[list[Evidence]] = [[] for _ in facts.labels]
    decided = facts.decided
    chosen = decided.candidates
    for at, (latent, row, value) in enumerate(
        zip(chosen.latent.tolist(), chosen.row.tolist(), chosen.value.tolist(), strict=True)
    ):
        strength = value / float(facts.arrays.p95[latent])
        by_latent[latent].append(_sequence(inputs, part, row, strength, decided.drop[at], int(decided.lag[at])))
    return by_latent


def _bands(inputs: DictionaryInputs, part: PartRows, facts: LatentFacts) -> list[tuple[QuantileBand, ...]]:
    bands = strength_bands(part.firings, facts.arrays, inputs.seed)
    unknown = np.full(_BAND_ITEMS, np.nan, np.float32)
    result = []
    for latent in range(len(facts.labels)):
        p95 = float(facts.arrays.p95[latent])
        edges = [0.0, *(float(edge) / p95 for edge in bands.edges[:, latent])]
        tops = [*edges[1:], float(bands.largest[latent]) / p95]
        mine = []
        for band, (low, high) in enumerate(zip(edges, tops, strict=True)):
            row, count = int(bands.example[latent, band]), int(bands.count[latent, band])
            example = (
                _sequence(inputs, part, row, float(bands.value[latent, band]) / p95, unknown, -1) if count else None
            )
            mine.append(QuantileBand(low, high, count, example))
        result.append(tuple(mine) if bands.count[latent].any() else ())
    return result


def _sequence(
    inputs: DictionaryInputs, part: PartRows, row: int, strength: float, drop: NDArray[np.float32], lag: int
) -> Evidence:
    """The newest items of a row, as many as there are drops."""
    end, start = int(part.windows.end[row]), int(part.windows.start[row])
    newest = part.windows.items[max(start, end - len(drop)) : end].tolist()
    items = []
    for place, item in enumerate(newest):
        back = len(newest) - 1 - place
        lost = 0.0 if np.isnan(drop[back]) else float(drop[back])
        items.append(EvidenceItem(inputs.item_ids[item - 1], inputs.titles[item - 1], lost, back == lag))
    return Evidence(strength, tuple(items))


def _output_items(
    inputs: DictionaryInputs, outputs: Outputs | None, latent: int
) -> tuple[tuple[ItemScore, ...], tuple[ItemScore, ...]]:
    if outputs is None:
        return (), ()

    def named(items: NDArray[np.int32], scores: NDArray[np.float32]) -> tuple[ItemScore, ...]:
        pairs = zip(items.tolist(), scores.tolist(), strict=True)
        return tuple(ItemScore(inputs.item_ids[item - 1], inputs.titles[item - 1], score) for item, score in pairs)

    return (
        named(outputs.promoted[latent], outputs.raised[latent]),
        named(outputs.suppressed[latent], outputs.lowered[latent]),
    )
