"""Messages of `recsae.v1.Interpreter` to and from the handlers' values. Nothing here computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsae.concepts.dictionary import ConceptOrder
from recsae.concepts.records import (
    ConceptKind,
    ConceptRecord,
    ConceptStatus,
    Evidence,
    FacetLift,
    ItemScore,
    Neighbour,
    QuantileBand,
)
from recsae.errors import InvalidRequestError
from recsae.rpc.request import RequestInfo
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.steering.wire import attributes_from
from recsae.steering.wire_plans import triple_message
from recsae.v1 import common_pb2, interpreter_pb2
from recsae_interpreter.convert_effects import causal_summary, dose_message, estimate_message, safe_range_message
from recsae_interpreter.convert_identity import LABEL_SOURCES, origin_message
from recsae_interpreter.convert_llm import llm_message
from recsae_interpreter.convert_readings import batch_of
from recsae_interpreter.handlers.attribute import Attribution, Firing
from recsae_interpreter.handlers.concepts import ConceptPage, FoundConcept, FoundConcepts
from recsae_interpreter.handlers.encode import Encoded
from recsae_interpreter.handlers.explain import ExplainQuery, Explanation
from recsae_interpreter.handlers.observe import Observation
from recsae_interpreter.readings import Reading, ScoredItem, Subject

STATUSES = {status: interpreter_pb2.ConceptStatus.Value(f"CONCEPT_STATUS_{status.name}") for status in ConceptStatus}
_STATUSES_BACK: dict[int, ConceptStatus] = {number: status for status, number in STATUSES.items()}
_KINDS = {
    kind: interpreter_pb2.CONCEPT_KIND_UNSPECIFIED
    if kind is ConceptKind.NONE
    else interpreter_pb2.ConceptKind.Value(f"CONCEPT_KIND_{kind.name}")
    for kind in ConceptKind
}
_ORDERS: dict[int, ConceptOrder] = {
    interpreter_pb2.CONCEPT_ORDER_UNSPECIFIED: ConceptOrder.CONFIDENCE,
    interpreter_pb2.CONCEPT_ORDER_DENSITY: ConceptOrder.DENSITY,
    interpreter_pb2.CONCEPT_ORDER_LATENT: ConceptOrder.LATENT,
}


def explain_query(request: interpreter_pb2.ExplainRequest, info: RequestInfo) -> ExplainQuery:
    """The handler's query for a request."""
    subject = request.WhichOneof("subject")
    if subject == "activation" and request.model not in ("", request.activation.model):
        raise InvalidRequestError(
            f"the activation is of model {request.activation.model!r}, the request names {request.model!r}; name one"
        )
    return ExplainQuery(
        model=request.model,
        subject=Subject(
            request.user_id,
            list(request.history.item_ids) if subject == "history" else None,
            attributes_from(request.attributes),
        ),
        batch=batch_of(request.activation) if subject == "activation" else None,
        candidates=list(request.candidate_item_ids),
        concept_limit=request.concept_limit,
        item_limit=request.item_limit,
        deadline=info.deadline,
    )


def explain_response(found: Explanation) -> interpreter_pb2.ExplainResponse:
    """The response for an explanation."""
    reading = found.reading
    return interpreter_pb2.ExplainResponse(
        triple=triple_message(found.triple),
        model=found.model,
        firings=[_firing(one, reading) for one in found.firings],
        unexplained_share=found.unexplained_share,
        explainable=not found.refusal,
        refusal=found.refusal,
        items=[_attribution(one) for one in found.items],
        history=common_pb2.History(item_ids=reading.history),
        rows=[] if reading.rows == "subject" else _rows(found),
        rows_left_out=0 if found.refusal else int((~found.used).sum()),
        no_items=found.no_items,
    )


def encode_arguments(request: interpreter_pb2.EncodeRequest) -> tuple[str, str, str, np.ndarray]:
    """Model, hook, model version and activations float32 [n, d] of a request."""
    batch = request.batch
    return batch.model, batch.hook, batch.model_version, activations_of(batch)


def encode_response(found: Encoded) -> interpreter_pb2.EncodeResponse:
    """The response for codes."""
    return interpreter_pb2.EncodeResponse(
        indices=to_tensor(found.codes.indices),
        values=to_tensor(found.codes.values),
        unexplained_shares=to_tensor(found.unexplained_shares),
        triple=triple_message(found.triple),
        model=found.model,
    )


def status_from(number: int) -> ConceptStatus | None:
    """The status of a request; None when it is not set."""
    if number == interpreter_pb2.CONCEPT_STATUS_UNSPECIFIED:
        return None
    if number not in _STATUSES_BACK:
        raise InvalidRequestError(f"status {number} is not known; leave it out for all but dead concepts")
    return _STATUSES_BACK[number]


def order_from(number: int) -> ConceptOrder:
    """The order of a request."""
    if number not in _ORDERS:
        raise InvalidRequestError(f"order {number} is not known; leave it out for confidence")
    return _ORDERS[number]


def concepts_response(page: ConceptPage) -> interpreter_pb2.ListConceptsResponse:
    """The response for a page."""
    return interpreter_pb2.ListConceptsResponse(
        concepts=[concept_message(concept) for concept in page.concepts],
        next_page_token=page.next_page_token,
        total=page.total,
        triple=triple_message(page.triple),
        model=page.model,
    )


def concept_response(found: FoundConcept) -> interpreter_pb2.GetConceptResponse:
    """The response for one concept."""
    return interpreter_pb2.GetConceptResponse(
        detail=_detail_message(found.concept), triple=triple_message(found.triple), model=found.model
    )


def by_meaning(mode: int) -> bool:
    """Whether a request asks for a search by meaning."""
    if mode not in interpreter_pb2.SearchMode.values():
        raise InvalidRequestError(f"search mode {mode} is not known; leave it out to search by words")
    return mode == interpreter_pb2.SEARCH_MODE_MEANING


def search_response(found: FoundConcepts) -> interpreter_pb2.SearchConceptsResponse:
    """The response for concepts found by words."""
    return interpreter_pb2.SearchConceptsResponse(
        hits=[
            interpreter_pb2.ConceptHit(concept=concept_message(hit.concept), score=hit.score, matched_in=hit.matched_in)
            for hit in found.hits
        ],
        triple=triple_message(found.triple),
        model=found.model,
    )


def observation(request: interpreter_pb2.ObserveRequest) -> Observation:
    """The handler's observation for a request."""
    x = activations_of(request.batch)
    steered = None
    if request.HasField("steered"):
        steered = from_tensor(request.steered, name="steered", dtype=np.bool_, shape=(len(x),))
    batch = request.batch
    return Observation(batch.model, batch.hook, batch.model_version, x, steered, request.batch_id)


def activations_of(batch: common_pb2.ActivationBatch) -> np.ndarray:
    """Activations float32 [n, d] of a batch; InvalidRequestError when they are malformed or not finite."""
    return from_tensor(batch.activations, name="activations", dtype=np.float32, shape=(None, None), finite=True)


def item_message(item: ScoredItem) -> common_pb2.ScoredItem:
    """The message for an item."""
    return common_pb2.ScoredItem(item_id=item.item_id, score=item.score, title=item.title)


def concept_message(concept: ConceptRecord) -> interpreter_pb2.Concept:
    """The message for a concept."""
    return interpreter_pb2.Concept(
        id=concept.id,
        latent=concept.latent,
        label=concept.label,
        output_label=concept.output_label,
        kind=_KINDS[concept.kind],
        status=STATUSES[concept.status],
        density=concept.density,
        p95=concept.p95,
        confidence=concept.confidence,
        control_confidence=concept.control_confidence,
        predicate=concept.predicate,
        label_source=LABEL_SOURCES[concept.label_source],
        machine_label=concept.machine_label,
        note=concept.note,
    )


def _detail_message(concept: ConceptRecord) -> interpreter_pb2.ConceptDetail:
    return interpreter_pb2.ConceptDetail(
        concept=concept_message(concept),
        precision=estimate_message(concept.precision),
        recall=estimate_message(concept.recall),
        f1=estimate_message(concept.f1),
        balanced_f1=estimate_message(concept.balanced_f1),
        matched_f1=estimate_message(concept.matched_f1),
        hard_f1=estimate_message(concept.hard_f1),
        positives=concept.positives,
        users=concept.users,
        effective_items=concept.effective_items,
        evidence=[_evidence(one) for one in concept.evidence],
        random_evidence=[_evidence(one) for one in concept.random_evidence],
        near_misses=[_evidence(one) for one in concept.near_misses],
        bands=[_band(one) for one in concept.bands],
        scores=dict(concept.scores),
        promoted=_item_scores(concept.promoted),
        suppressed=_item_scores(concept.suppressed),
        neighbours=[_neighbour(one) for one in concept.neighbours],
        decoder_neighbours=[_neighbour(one) for one in concept.decoder_neighbours],
        input_facets=_lifts(concept.input_facets),
        output_facets=_lifts(concept.output_facets),
        origin=origin_message(concept.origin) if concept.origin else None,
        llm=None if concept.llm is None else llm_message(concept.llm),
        safe_ranges=[safe_range_message(one) for one in concept.causal.safe_ranges] if concept.causal else [],
        doses=[dose_message(one) for one in concept.causal.doses] if concept.causal else [],
        causal=causal_summary(concept.causal) if concept.causal else None,
    )


def _evidence(one: Evidence) -> interpreter_pb2.Evidence:
    return interpreter_pb2.Evidence(
        strength=one.strength,
        items=[
            interpreter_pb2.EvidenceItem(item_id=item.item_id, title=item.title, drop=item.drop, deciding=item.deciding)
            for item in one.items
        ],
    )


def _band(one: QuantileBand) -> interpreter_pb2.QuantileBand:
    example = None if one.example is None else _evidence(one.example)
    return interpreter_pb2.QuantileBand(low=one.low, high=one.high, firings=one.firings, example=example)


def _neighbour(one: Neighbour) -> interpreter_pb2.Neighbour:
    return interpreter_pb2.Neighbour(concept_id=one.concept_id, label=one.label, correlation=one.correlation)


def _firing(one: Firing, reading: Reading) -> interpreter_pb2.Firing:
    rows = sorted(one.at)
    return interpreter_pb2.Firing(
        interests=rows if reading.rows == "interest" else [],
        item_ids=[reading.item_ids[row] for row in rows] if reading.rows == "pair" else [],
        concept_id=one.concept.id,
        latent=one.concept.latent,
        label=one.concept.label,
        strength=one.strength,
        value=one.value,
        confidence=one.concept.confidence,
        status=STATUSES[one.concept.status],
    )


def _rows(found: Explanation) -> list[interpreter_pb2.ExplainedRow]:
    pairs = found.reading.rows == "pair"
    return [
        interpreter_pb2.ExplainedRow(
            interest=0 if pairs else row,
            item_id=found.reading.item_ids[row] if pairs else "",
            unexplained_share=share,
            explainable=explainable,
        )
        for row, (share, explainable) in enumerate(zip(found.shares.tolist(), found.used.tolist(), strict=True))
    ]


def _attribution(one: Attribution) -> interpreter_pb2.ItemAttribution:
    return interpreter_pb2.ItemAttribution(
        item=item_message(one.item),
        base=one.base,
        contributions=[
            interpreter_pb2.Contribution(concept_id=part.concept_id, score=part.score, share=part.share)
            for part in one.contributions
        ],
        other_concepts=one.other,
        unexplained=one.unexplained,
        catalogue_mean=one.catalogue_mean,
    )


def _item_scores(items: Sequence[ItemScore]) -> list[common_pb2.ScoredItem]:
    return [common_pb2.ScoredItem(item_id=one.item_id, score=one.score, title=one.title) for one in items]


def _lifts(lifts: Sequence[FacetLift]) -> list[interpreter_pb2.FacetLift]:
    return [interpreter_pb2.FacetLift(facet=one.facet, log_odds=one.log_odds, low=one.low) for one in lifts]
