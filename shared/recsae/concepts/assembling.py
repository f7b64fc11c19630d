"""Puts what was computed for all latents at once into one record per latent. No figure is computed here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.dictionary import ConceptArrays
from recsae.concepts.enrichment import Enrichment
from recsae.concepts.evidence import Decided
from recsae.concepts.examples import ShownExamples
from recsae.concepts.firings import CoFiring
from recsae.concepts.identity import Identity
from recsae.concepts.inputs import DictionaryInputs
from recsae.concepts.labels import output_label_of, predicate_of
from recsae.concepts.outputs import Outputs
from recsae.concepts.records import (
    ConceptKind,
    ConceptRecord,
    ItemScore,
    RuleRecord,
)


@dataclass(frozen=True)
class LatentFacts:
    """Everything construction found, by latent; `outputs`, `output_side` are None where no head can be asked.

    `near` fire together, `alike` are those of `decoder_neighbours`; `health_scores` by name, NaN = not defined.
    """

    identity: Identity
    labels: list[str]
    shown: list[RuleRecord]
    arrays: ConceptArrays
    health_scores: Mapping[str, NDArray[Any]]
    decided: Decided
    input_side: Enrichment
    effective_items: NDArray[np.float64]
    outputs: Outputs | None
    output_side: Enrichment | None
    near: CoFiring
    alike: CoFiring


def draft_records(inputs: DictionaryInputs, facts: LatentFacts, shown: ShownExamples) -> tuple[ConceptRecord, ...]:
    """One record per latent, verification scores still missing."""
    ids, width = list(facts.identity.ids), len(facts.labels)
    scores = dict(facts.health_scores) | {"typical_lag": facts.decided.typical_lag}
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
                evidence=shown.strongest[latent],
                random_evidence=shown.random[latent],
                near_misses=shown.near[latent],
                bands=shown.bands[latent],
                promoted=promoted,
                suppressed=suppressed,
                neighbours=facts.near.of(latent, ids, facts.labels),
                decoder_neighbours=facts.alike.of(latent, ids, facts.labels),
                input_facets=facts.input_side.lifts(latent, inputs.facets.names),
                output_facets=output_facets,
                rule=facts.shown[latent],
                origin=facts.identity.origins[latent],
                scores={name: float(values[latent]) for name, values in scores.items() if np.isfinite(values[latent])},
            )
        )
    return tuple(records)


def kind_of(rule: RuleRecord) -> ConceptKind:
    """Class of a label not yet shown to hold on unseen items."""
    if rule.item_ids:
        return ConceptKind.ITEM_SET
    return ConceptKind.FACET if rule.literals else ConceptKind.NONE


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
