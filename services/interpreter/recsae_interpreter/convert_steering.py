"""Messages of previews, plans and the audit trail to and from the handlers' values. Nothing here computes.

Not here: policies and kill switches (`convert_policies`).
"""

from __future__ import annotations

from recsae.rpc.request import RequestInfo
from recsae.rpc.tensors import to_tensor
from recsae.steering.delta import Steered
from recsae.steering.matching import SteerContext
from recsae.steering.plans import PlanSet
from recsae.steering.wire import attributes_from, operations_from, timestamp
from recsae.steering.wire_plans import plan_set_message, receipt_message, triple_message
from recsae.store.events import AuditEvent
from recsae.v1 import steering_pb2
from recsae_interpreter.convert import item_message
from recsae_interpreter.convert_effects import safe_range_message
from recsae_interpreter.convert_policies import context_from, handles_from
from recsae_interpreter.handlers.preview import Preview, PreviewQuery
from recsae_interpreter.handlers.watch import Heartbeat
from recsae_interpreter.readings import Subject


def event_message(event: AuditEvent) -> steering_pb2.AuditEvent:
    """The message for an audit event."""
    return steering_pb2.AuditEvent(
        id=event.id,
        at=timestamp(event.change.at),
        actor=event.change.actor,
        action=event.change.action,
        subject=event.subject,
        reason=event.change.reason,
        before_json=event.before_json,
        after_json=event.after_json,
        request_id=event.change.request_id,
    )


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
        after=[
            steering_pb2.PreviewItem(item=item_message(one.item), rank_before=one.rank_before) for one in found.after
        ],
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
    )


def contexts_from(request: steering_pb2.SteerRequest) -> list[SteerContext]:
    """The context of each row of a request."""
    return [context_from(context) for context in request.contexts]


def steer_response(steered: Steered) -> steering_pb2.SteerResponse:
    """The response for steered activations."""
    return steering_pb2.SteerResponse(
        activations=to_tensor(steered.activation),
        receipts=[receipt_message(receipt) for receipt in steered.receipts],
    )


def watch_response(event: PlanSet | Heartbeat) -> steering_pb2.WatchPlansResponse:
    """The response for plans or a heartbeat."""
    if isinstance(event, Heartbeat):
        return steering_pb2.WatchPlansResponse(heartbeat=steering_pb2.PlanHeartbeat(revision=event.revision))
    return steering_pb2.WatchPlansResponse(plans=plan_set_message(event))
