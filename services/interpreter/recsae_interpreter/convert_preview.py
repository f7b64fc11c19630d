"""Messages of previews, of one user and of many, to and from the handlers' values. Nothing here computes."""

from __future__ import annotations

from recsae.concepts.estimates import Estimate
from recsae.rpc.request import RequestInfo
from recsae.steering.panel import Pair
from recsae.steering.wire import attributes_from, operations_from, segment_from
from recsae.steering.wire_plans import receipt_message, triple_message
from recsae.v1 import steering_pb2
from recsae_interpreter.convert import item_message
from recsae_interpreter.convert_effects import safe_range_message
from recsae_interpreter.convert_policies import handles_from
from recsae_interpreter.handlers.panel_facts import Example
from recsae_interpreter.handlers.panel_users import Who
from recsae_interpreter.handlers.preview import MovedItem, Preview, PreviewQuery
from recsae_interpreter.handlers.preview_panel import PanelPreview, PanelQuery
from recsae_interpreter.readings import Subject


def preview_query(request: steering_pb2.PreviewRequest, info: RequestInfo) -> PreviewQuery:
    """The handler's query for a request."""
    return PreviewQuery(
        operations=operations_from(request.operations),
        model=request.model,
        subject=Subject(
            request.user_id,
            list(request.history.item_ids) if request.WhichOneof("subject") == "history" else None,
            attributes_from(request.attributes),
        ),
        candidates=list(request.candidate_item_ids),
        k=request.k,
        handles=handles_from(request.handles),
        deadline=info.deadline,
    )


def preview_response(found: Preview) -> steering_pb2.PreviewResponse:
    """The response for a preview."""
    return steering_pb2.PreviewResponse(
        triple=triple_message(found.triple),
        model=found.model,
        before=[item_message(item) for item in found.before],
        after=[_moved(one) for one in found.after],
        overlap=found.overlap,
        receipt=receipt_message(found.receipt),
        strengths=[
            steering_pb2.StrengthChange(
                concept_id=one.concept_id,
                label=one.label,
                before=one.before,
                target=one.target,
                safe_range=safe_range_message(one.safe_range) if one.safe_range else None,
            )
            for one in found.strengths
        ],
        outside_safe_range=found.outside_safe_range,
        rows=found.rows,
        entered_item_ids=found.entered,
        left_item_ids=found.left,
        moved=found.moved,
    )


def panel_query(request: steering_pb2.PreviewPanelRequest, info: RequestInfo) -> PanelQuery:
    """The handler's query for a request."""
    named = request.WhichOneof("who")
    return PanelQuery(
        operations=operations_from(request.operations),
        handles=handles_from(request.handles),
        policy_id=request.policy_id,
        model=request.model,
        who=Who(
            user_ids=tuple(request.users.user_ids) if named == "users" else None,
            segment=segment_from(request.segment) if named == "segment" else None,
            most=request.most_users,
        ),
        k=request.k,
        facet=request.facet,
        deadline=info.deadline,
    )


def panel_response(found: PanelPreview) -> steering_pb2.PreviewPanelResponse:
    """The response for a panel."""
    return steering_pb2.PreviewPanelResponse(
        triple=triple_message(found.triple),
        model=found.model,
        users=found.users,
        users_changed=found.users_changed,
        overlap=_estimate(found.overlap),
        entered=_estimate(found.entered),
        moved=_estimate(found.moved),
        facet=found.facet,
        target_share=_pair(found.target_share),
        off_target=[steering_pb2.FacetShift(facet=one.facet, share=_pair(one.share)) for one in found.off_target],
        coverage=_pair(found.coverage),
        popularity=_pair(found.popularity),
        ndcg=_pair(found.ndcg),
        expected_loss_upper=found.expected_loss_upper,
        outside_safe_range=found.outside_safe_range,
        refused=found.refused,
        delta_share=_estimate(found.delta_share),
        examples=[_example(one) for one in found.examples],
    )


def _moved(one: MovedItem) -> steering_pb2.PreviewItem:
    return steering_pb2.PreviewItem(item=item_message(one.item), rank_before=one.rank_before)


def _example(one: Example) -> steering_pb2.PanelExample:
    return steering_pb2.PanelExample(
        user_id=one.user_id,
        before=[item_message(item) for item in one.before],
        after=[_moved(item) for item in one.after],
    )


def _estimate(value: Estimate) -> steering_pb2.PanelEstimate:
    return steering_pb2.PanelEstimate(mean=value.value, low=value.low, high=value.high)


def _pair(pair: Pair | None) -> steering_pb2.PanelPair | None:
    if pair is None:
        return None
    return steering_pb2.PanelPair(before=pair.before, after=pair.after, difference=_estimate(pair.difference))
