"""Effects, safe ranges and handles as messages. Nothing here computes."""

from __future__ import annotations

from recsae.concepts.effects import CausalRecord, DoseEffect, SafeRange
from recsae.concepts.estimates import Estimate
from recsae.steering.wire_plans import triple_message
from recsae.v1 import common_pb2, interpreter_pb2
from recsae_interpreter.handlers.concepts import FoundHandles, LabelledHandle


def estimate_message(one: Estimate) -> interpreter_pb2.Estimate:
    """The message for an estimate."""
    return interpreter_pb2.Estimate(value=one.value, low=one.low, high=one.high)


def safe_range_message(one: SafeRange) -> common_pb2.SafeRange:
    """The message for a safe range."""
    return common_pb2.SafeRange(
        operation=one.operation,
        low=one.low,
        high=one.high,
        limited_by=one.limited_by,
        limited_below=one.limited_below,
        empty=one.empty,
    )


def dose_message(one: DoseEffect) -> interpreter_pb2.DoseEffect:
    """The message for the effect of a dose."""
    return interpreter_pb2.DoseEffect(
        operation=one.operation,
        dose=one.dose,
        facet_log_odds=estimate_message(one.facet_log_odds),
        ndcg_kept=estimate_message(one.ndcg_kept),
        ndcg_kept_inside=estimate_message(one.ndcg_kept_inside),
        ndcg_kept_outside=estimate_message(one.ndcg_kept_outside),
        off_target=estimate_message(one.off_target),
        lists_changed=one.lists_changed,
        loss_upper=one.loss_upper,
        off_target_upper=one.off_target_upper,
        survives=one.survives,
        facet_share=one.facet_share,
    )


def causal_summary(one: CausalRecord) -> interpreter_pb2.CausalSummary:
    """The message for what effects were measured on."""
    return interpreter_pb2.CausalSummary(
        facet=one.facet,
        facet_share=one.facet_share,
        panel_users=one.panel_users,
        panel=one.panel,
        agreement=one.agreement,
        null_percentile=one.null_percentile,
        direction_percentile=one.direction_percentile,
    )


def handles_response(found: FoundHandles) -> interpreter_pb2.ListHandlesResponse:
    """The response for the handles of a dictionary."""
    return interpreter_pb2.ListHandlesResponse(
        handles=[_handle_message(one) for one in found.handles], triple=triple_message(found.triple), model=found.model
    )


def _handle_message(one: LabelledHandle) -> interpreter_pb2.Handle:
    handle = one.handle
    return interpreter_pb2.Handle(
        facet=handle.facet,
        weights=[
            interpreter_pb2.HandleWeight(concept_id=concept, label=label, weight=weight)
            for concept, label, weight in zip(handle.concept_ids, one.labels, handle.weights, strict=True)
        ],
        doses=[dose_message(dose) for dose in handle.doses],
        safe_range=safe_range_message(handle.safe_range),
        panel_users=handle.panel_users,
        facet_share=handle.facet_share,
    )
