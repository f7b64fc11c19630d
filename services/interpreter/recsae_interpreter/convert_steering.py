"""Messages of plans and the audit trail to and from the handlers' values. Nothing here computes.

Not here: policies and kill switches (`convert_policies`), previews (`convert_preview`).
"""

from __future__ import annotations

from recsae.rpc.tensors import to_tensor
from recsae.steering.delta import Steered
from recsae.steering.matching import SteerContext
from recsae.steering.plans import PlanSet
from recsae.steering.wire import timestamp
from recsae.steering.wire_plans import plan_set_message, receipt_message
from recsae.store.events import AuditEvent
from recsae.v1 import steering_pb2
from recsae_interpreter.convert_policies import context_from
from recsae_interpreter.handlers.watch import Heartbeat


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


def contexts_from(request: steering_pb2.SteerRequest) -> list[SteerContext]:
    """The context of each row of a request."""
    return [context_from(context) for context in request.contexts]


def steer_response(steered: Steered) -> steering_pb2.SteerResponse:
    """The response for steered activations."""
    return steering_pb2.SteerResponse(
        activations=to_tensor(steered.activation),
        receipts=[receipt_message(receipt) for receipt in steered.receipts],
        plan_revision=max((receipt.plan_revision for receipt in steered.receipts), default=0),
    )


def watch_response(event: PlanSet | Heartbeat, sent_at: float) -> steering_pb2.WatchPlansResponse:
    """The response for plans or a heartbeat; `sent_at` is this machine's time now, in seconds since the epoch."""
    if isinstance(event, Heartbeat):
        heartbeat = steering_pb2.PlanHeartbeat(revision=event.revision, sent_at=timestamp(sent_at))
        return steering_pb2.WatchPlansResponse(heartbeat=heartbeat)
    response = steering_pb2.WatchPlansResponse(plans=plan_set_message(event))
    response.plans.sent_at.CopyFrom(timestamp(sent_at))
    return response
