"""First stage of a dictionary: health, evidence, rules, enrichment and outputs of every latent, on construction users.

Nothing here reads a verification user. Not here: the verdict (`judgement`) and how each figure is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.assembling import LatentFacts, draft_records
from recsae.concepts.describing import FittedRules, fit_rules
from recsae.concepts.description import Description
from recsae.concepts.dictionary import ConceptArrays, Dictionary
from recsae.concepts.enrichment import Enrichment, effective_number, enrich, user_weights
from recsae.concepts.evidence import Decided, check_reproduced, decide, strongest
from recsae.concepts.features import cut_strata
from recsae.concepts.firings import cofiring, health
from recsae.concepts.identity import identify
from recsae.concepts.inputs import DictionaryInputs, PartRows, Progress, probe, read_part
from recsae.concepts.item_sets import FittedSets, fit_item_sets
from recsae.concepts.labels import label_of
from recsae.concepts.literals import LiteralBank, build_bank
from recsae.concepts.outputs import Outputs, output_items
from recsae.concepts.records import LiteralRecord, RuleRecord
from recsae.concepts.splits import UserPart

# An item set must beat the facet rule by this much in F1 to be shown instead: it memorises, a facet generalises.
_SET_MARGIN = 0.1
# The family `recsae.datasets.facets` gives popularity bands.
_POPULARITY = "popularity"


def describe(inputs: DictionaryInputs, progress: Progress = lambda _message, _share: None) -> Description:
    """Describes all latents. FailedPreconditionError when rows, histories and model do not belong together."""
    progress("reading construction users", 0.0)
    part = read_part(inputs, UserPart.CONSTRUCTION)
    check_reproduced(part.sample.x, part.windows, inputs.embed)
    others = probe(inputs)
    arrays = health(part.firings, others)
    progress("finding rules", 0.2)
    rules = _fit(inputs, part, arrays)
    progress("leaving items out of the strongest histories", 0.5)
    candidates = strongest(part.firings, part.sample.user, part.features.newest[:, 0])
    decided = decide(candidates, part.windows, inputs.sae.width, inputs.sae, inputs.embed)
    progress("finding facets, outputs and neighbours", 0.8)
    near = cofiring(part.firings)
    input_side, effective = _input_side(inputs, part, decided, arrays)
    outputs = _outputs(inputs)
    progress("finding the concepts of the dictionary before", 0.9)
    identity = identify(inputs)
    facts = LatentFacts(
        identity=identity,
        labels=[label_of(rule, inputs.title_of) for rule in rules.shown],
        shown=rules.shown,
        arrays=arrays,
        decided=decided,
        input_side=input_side,
        effective_items=effective,
        outputs=outputs,
        output_side=_enriched(inputs, outputs.labelled) if outputs else None,
        near=near,
    )
    probes = part.firings.counts + (others.counts if others is not None else 0)
    records = draft_records(inputs, part, facts)
    draft = Dictionary("", inputs.model_version, inputs.sae.version, records, arrays, {}, identity.lineage)
    effect = outputs.effect if outputs else np.zeros(inputs.sae.width, np.float32)
    return Description(
        draft=draft,
        facet_rules=rules.facet,
        item_sets=rules.sets,
        popularity_rules=rules.popularity,
        prefers_set=rules.prefers_set,
        neighbours=near.latents,
        correlations=near.correlations,
        probe_counts=probes,
        effect=effect,
        strata=cut_strata(part.features),
    )


@dataclass(frozen=True)
class _Rules:
    facet: tuple[RuleRecord, ...]
    sets: tuple[RuleRecord, ...]
    popularity: tuple[RuleRecord, ...]
    prefers_set: NDArray[np.bool_]

    @property
    def shown(self) -> list[RuleRecord]:
        """The rule a latent is labelled by before verification."""
        pairs = zip(self.facet, self.sets, self.prefers_set, strict=True)
        return [of_set if prefers else facet for facet, of_set, prefers in pairs]


def _fit(inputs: DictionaryInputs, part: PartRows, arrays: ConceptArrays) -> _Rules:
    """Fits on rows whose newest item is one of the seen 70 %."""
    rows = np.flatnonzero(~inputs.unseen[part.features.newest[:, 0]])
    bank = build_bank(part.features.take(rows))
    strong, weak = (
        matrix[:, rows].tocsr() for matrix in (part.firings.strong(arrays.p95), part.firings.weak(arrays.p95))
    )
    fitted = fit_rules(bank, strong, weak)
    sets = fit_item_sets(part.features.take(rows), strong, weak, ~inputs.unseen)
    return _Rules(
        tuple(fitted.rules.records(bank.literals)),
        tuple(sets.sets.records(inputs.item_ids)),
        tuple(_popularity_rules(bank, fitted)),
        _prefers_set(fitted, sets),
    )


def _prefers_set(fitted: FittedRules, sets: FittedSets) -> NDArray[np.bool_]:
    prefers: NDArray[np.bool_] = sets.f1 > fitted.f1 + _SET_MARGIN
    return prefers


def _popularity_rules(bank: LiteralBank, fitted: FittedRules) -> list[RuleRecord]:
    records = []
    for at in fitted.popularity.tolist():
        literal = bank.literals[at] if at >= 0 else None
        stored = (LiteralRecord("", literal.kind, literal.facet, literal.threshold),) if literal else ()
        records.append(RuleRecord(literals=stored))
    return records


def _input_side(
    inputs: DictionaryInputs, part: PartRows, decided: Decided, arrays: ConceptArrays
) -> tuple[Enrichment, NDArray[np.float64]]:
    """Facets of the deciding items of all strong firings, and their effective number before de-duplication.

    Leaving out is affordable for the evidence only, so a firing's deciding item is taken to stand where it most often
    stands in the latent's evidence.
    """
    strong: sparse.csr_matrix = part.firings.strong(arrays.p95)
    latents = np.repeat(np.arange(strong.shape[0]), np.diff(strong.indptr)).astype(np.int64)
    rows = strong.indices.astype(np.int64)
    items = part.windows.take(rows).item_at(decided.typical_lag[latents]).astype(np.int64)
    shape = (strong.shape[0], inputs.n_items + 1)
    by_user = user_weights(latents, part.sample.user[rows].astype(np.int64), items, shape)
    known = items > 0
    by_firing = sparse.csr_matrix((np.ones(int(known.sum())), (latents[known], items[known])), shape=shape)
    by_firing.sum_duplicates()
    return _enriched(inputs, by_user), effective_number(by_firing)


def _enriched(inputs: DictionaryInputs, weights: sparse.csr_matrix) -> Enrichment:
    """Enrichment of all facets but popularity bands, which a null matched in popularity cannot judge."""
    found = enrich(weights, inputs.facets.matrix, inputs.deciles)
    found.low[:, np.array(inputs.facets.families) == _POPULARITY] = -np.inf
    return found


def _outputs(inputs: DictionaryInputs) -> Outputs | None:
    return None if inputs.item_vectors is None else output_items(inputs.sae.w_dec, inputs.item_vectors)
