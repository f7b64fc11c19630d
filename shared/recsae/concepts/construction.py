"""First stage of a dictionary: health, evidence, rules, enrichment and outputs of every latent, on construction users.

Nothing here reads a verification user. Not here: the verdict (`judgement`) and how each figure is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.assembling import LatentFacts, draft_records
from recsae.concepts.cases import Cases
from recsae.concepts.decoder_neighbours import decoder_neighbours
from recsae.concepts.described import permute_rules, set_levels
from recsae.concepts.describing import FittedRules, fit_rules
from recsae.concepts.description import Description
from recsae.concepts.dictionary import ConceptArrays, Dictionary
from recsae.concepts.enrichment import Enrichment, effective_number, enrich, user_weights
from recsae.concepts.evidence import MAX_EMBEDDINGS, Decided, check_reproduced, decide, strongest
from recsae.concepts.evidence_draws import DrawnFirings, Rule
from recsae.concepts.evidence_sums import DRAWS, EvidenceSums, health_scores
from recsae.concepts.examples import shown_examples
from recsae.concepts.features import Strata, Windows, cut_strata
from recsae.concepts.firings import CoFiring, cofiring
from recsae.concepts.identity import identify
from recsae.concepts.inputs import DictionaryInputs, PartRows, Progress, read_part
from recsae.concepts.item_sets import FittedSets, fit_item_sets
from recsae.concepts.linear_facets import LinearFacets, fit_linear, rule_bits
from recsae.concepts.literals import LiteralBank, build_bank
from recsae.concepts.objective import ENOUGH
from recsae.concepts.output_differences import output_differences
from recsae.concepts.outputs import Outputs, output_items
from recsae.concepts.records import LiteralRecord, RuleRecord
from recsae.concepts.splits import UserPart

# An item set must beat the facet rule by this much in F1 to be shown instead: it memorises, a facet generalises.
_SET_MARGIN = 0.1
# A rule has three literals: more rows than this change few of them, and the search takes time in proportion.
_FITTED_ROWS = 40_000
# The family `recsae.datasets.facets` gives popularity bands.
_POPULARITY = "popularity"


def describe(inputs: DictionaryInputs, progress: Progress = lambda _message, _share: None) -> Description:
    """Describes all latents. FailedPreconditionError when rows, histories and model do not belong together."""
    progress("reading construction users", 0.0)
    sums = inputs.sums
    part = read_part(inputs, UserPart.CONSTRUCTION)
    check_reproduced(part.sample.x, part.windows, inputs.embed, part.sample.user)
    arrays = sums.health()
    near, strata = cofiring(part.firings), cut_strata(part.features)
    progress("finding rules", 0.2)
    rules = _fit(inputs, part, arrays, near, strata)
    progress("leaving items out of the strongest histories", 0.5)
    top, decided = _decided(inputs, sums)
    progress("finding facets, outputs and neighbours", 0.8)
    input_side, effective = _input_side(inputs, part, decided, arrays)
    outputs = _outputs(inputs, part, arrays)
    progress("finding the concepts of the dictionary before", 0.9)
    identity = identify(inputs)
    facts = LatentFacts(
        identity=identity,
        labels=[inputs.label(rule) for rule in rules.shown],
        shown=rules.shown,
        arrays=arrays,
        health_scores=health_scores(sums),
        decided=decided,
        input_side=input_side,
        effective_items=effective,
        outputs=outputs,
        output_side=_enriched(inputs, outputs.labelled) if outputs else None,
        near=near,
        alike=decoder_neighbours(inputs.sae.w_dec, sums.probe_counts > 0),
    )
    records = draft_records(inputs, facts, shown_examples(inputs, sums, part, arrays, top, decided))
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
        probe_counts=sums.probe_counts,
        effect=effect,
        strata=strata,
        permuted_rules=rules.permuted,
        linear=rules.linear,
        bits=rules.bits,
    )


def _decided(inputs: DictionaryInputs, sums: EvidenceSums) -> tuple[Windows, Decided]:
    """The strongest firings of all construction rows with what decides them, as rows of the windows returned."""
    draws = sums.draws
    both = Rule(DRAWS["by_user"].most + DRAWS["by_item"].most)
    pool = DrawnFirings.merge([draws["by_user"], draws["by_item"]], both)
    windows = inputs.windows(pool)
    budget = MAX_EMBEDDINGS if inputs.reads_history else 0
    decided = decide(
        strongest(pool), windows, inputs.sae.width, inputs.sae, inputs.embed, budget, users=pool.user.astype(np.int32)
    )
    return windows, decided


@dataclass(frozen=True)
class _Rules:
    facet: tuple[RuleRecord, ...]
    sets: tuple[RuleRecord, ...]
    popularity: tuple[RuleRecord, ...]
    prefers_set: NDArray[np.bool_]
    permuted: tuple[RuleRecord, ...]
    linear: LinearFacets
    bits: float

    @property
    def shown(self) -> list[RuleRecord]:
        """The rule a latent is labelled by before verification."""
        pairs = zip(self.facet, self.sets, self.prefers_set, strict=True)
        return [of_set if prefers else facet for facet, of_set, prefers in pairs]


def _fit(inputs: DictionaryInputs, part: PartRows, arrays: ConceptArrays, near: CoFiring, strata: Strata) -> _Rules:
    """Fits on rows whose newest item is one of the seen 70 %."""
    rows = np.flatnonzero(~inputs.unseen[part.features.newest[:, 0]])
    if len(rows) > _FITTED_ROWS:
        rows = rows[np.linspace(0, len(rows) - 1, _FITTED_ROWS).astype(np.int64)]
    features, cases = part.features.take(rows), _cases(part, arrays, near, strata).restricted(rows)
    bank = build_bank(features)
    values = part.firings.by_latent[:, rows].tocsr()
    fitted = fit_rules(bank, cases, values)
    facet = tuple(fitted.rules.records(bank.literals, arrays.p95))
    sets = fit_item_sets(features, cases.strong, cases.weak, ~inputs.unseen)
    bits = rule_bits([facet[latent] for latent in np.flatnonzero(arrays.density > 0)], len(bank.literals))
    return _Rules(
        facet=facet,
        sets=set_levels(sets.sets.records(inputs.item_ids), features, values, arrays.p95, inputs.item_ids),
        popularity=tuple(_popularity_rules(bank, fitted)),
        prefers_set=_prefers_set(fitted, sets),
        permuted=permute_rules(facet, features, values, arrays.p95, inputs.seed),
        linear=fit_linear(features, part.sample.x[rows], bits),
        bits=bits,
    )


def _cases(part: PartRows, arrays: ConceptArrays, near: CoFiring, strata: Strata) -> Cases:
    """What rules are fitted to; nothing is resampled here, so all users are one group."""
    rows = len(part.sample)
    return Cases(
        strong=part.firings.strong(arrays.p95),
        weak=part.firings.weak(arrays.p95),
        user=part.sample.user.astype(np.int64),
        group=np.zeros(rows, np.int64),
        unseen=np.zeros(rows, bool),
        stratum=strata.of(part.features),
        n_strata=strata.count,
        groups=1,
        neighbours=near.latents,
    )


def _prefers_set(fitted: FittedRules, sets: FittedSets) -> NDArray[np.bool_]:
    """Where a list of items describes a latent far better than facets that will hardly be verified."""
    prefers: NDArray[np.bool_] = (sets.f1 > fitted.f1 + _SET_MARGIN) & (fitted.margin < ENOUGH)
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


def _outputs(inputs: DictionaryInputs, part: PartRows, arrays: ConceptArrays) -> Outputs | None:
    if inputs.item_vectors is not None:
        return output_items(inputs.sae.w_dec, inputs.item_vectors)
    if inputs.rank is None:
        return None
    # Where a row holds several interests, a concept is added to each of them.
    added = np.tile(inputs.sae.w_dec, part.sample.x.shape[1] // inputs.sae.w_dec.shape[1])
    return output_differences(added, arrays.p95, part.sample.x, inputs.rank, inputs.n_items)
