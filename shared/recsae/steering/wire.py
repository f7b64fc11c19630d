"""Policies, scopes and segments to and from the messages of the contract.

Reading checks only what the message form itself can get wrong (nothing set where something must be); ranges are the
domain's. Not here: plans and receipts (`wire_plans`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from recsae.errors import InvalidRequestError
from recsae.steering.policies import Operation, OperationKind, Policy, PolicyDraft, PolicyState, Scope, Window
from recsae.steering.segments import (
    MAX_DEPTH,
    AllOf,
    AnyOf,
    Attribute,
    Equals,
    Exists,
    In,
    Not,
    Range,
    Segment,
)
from recsae.v1 import common_pb2, steering_pb2

KINDS: Mapping[OperationKind, steering_pb2.OperationKind.ValueType] = {
    kind: steering_pb2.OperationKind.Value(f"OPERATION_KIND_{kind.name}") for kind in OperationKind
}
_KINDS_BACK: Mapping[int, OperationKind] = {number: kind for kind, number in KINDS.items()}
STATES: Mapping[PolicyState, steering_pb2.PolicyState.ValueType] = {
    state: steering_pb2.PolicyState.Value(f"POLICY_STATE_{state.name}") for state in PolicyState
}
_NANOS = 1_000_000_000
_MICROS = 1_000_000


def policy_message(policy: Policy) -> steering_pb2.Policy:
    """The message for a policy."""
    return steering_pb2.Policy(
        id=policy.id,
        name=policy.name,
        model=policy.model,
        operations=[operation_message(operation) for operation in policy.operations],
        scope=scope_message(policy.scope),
        window=window_message(policy.window),
        priority=policy.priority,
        state=STATES[policy.state],
        state_reason=policy.state_reason,
        revision=policy.revision,
        salt=policy.salt,
        created_at=timestamp(policy.created_at),
        updated_at=timestamp(policy.updated_at),
        created_by=policy.created_by,
        dictionary_version=policy.dictionary_version,
        outside_safe_range=policy.outside_safe_range,
    )


def draft_from(message: steering_pb2.Policy) -> PolicyDraft:
    """What a caller may say about a policy; fields that are the server's are not read."""
    return PolicyDraft(
        name=message.name,
        model=message.model,
        operations=operations_from(message.operations),
        scope=scope_from(message.scope),
        window=window_from(message.window),
        priority=message.priority,
    )


def operation_message(operation: Operation) -> steering_pb2.Operation:
    """The message for an operation."""
    return steering_pb2.Operation(concept_id=operation.concept_id, kind=KINDS[operation.kind], value=operation.value)


def operations_from(messages: Iterable[steering_pb2.Operation]) -> tuple[Operation, ...]:
    """Operations of repeated messages; InvalidRequestError for one without a kind."""
    return tuple(_operation(message) for message in messages)


def kind_from(number: int, *, where: str) -> OperationKind:
    """The kind of an operation; InvalidRequestError when it is not set or not known."""
    kind = _KINDS_BACK.get(number)
    if kind is None:
        names = ", ".join(kind.name for kind in OperationKind)
        raise InvalidRequestError(f"the operation on {where} has kind {number}; set one of {names}")
    return kind


def scope_message(scope: Scope) -> steering_pb2.Scope:
    """The message for a scope."""
    return steering_pb2.Scope(
        user_ids=scope.user_ids,
        segment=None if scope.segment is None else segment_message(scope.segment),
        rollout_percent=None if scope.rollout_percent >= 100 else scope.rollout_percent,
    )


def scope_from(message: steering_pb2.Scope) -> Scope:
    """The scope of a message."""
    return Scope(
        user_ids=tuple(message.user_ids),
        segment=segment_from(message.segment) if message.HasField("segment") else None,
        rollout_percent=message.rollout_percent if message.HasField("rollout_percent") else 100.0,
    )


def segment_message(segment: Segment) -> common_pb2.Segment:
    """The message for a segment."""
    match segment:
        case AllOf(children):
            return common_pb2.Segment(all=common_pb2.SegmentList(segments=[segment_message(one) for one in children]))
        case AnyOf(children):
            return common_pb2.Segment(any=common_pb2.SegmentList(segments=[segment_message(one) for one in children]))
        case Not(child):
            message = common_pb2.Segment()
            # `not` is a word of Python, so the field cannot be named as an argument.
            getattr(message, "not").CopyFrom(segment_message(child))
            return message
        case Equals(attribute, value):
            return common_pb2.Segment(
                equals=common_pb2.SegmentEquals(attribute=attribute, value=attribute_message(value))
            )
        case In(attribute, values):
            message = common_pb2.Segment()
            getattr(message, "in").CopyFrom(
                common_pb2.SegmentIn(attribute=attribute, values=[attribute_message(value) for value in values])
            )
            return message
        case Range(attribute, low, high):
            return common_pb2.Segment(range=common_pb2.SegmentRange(attribute=attribute, min=low, max=high))
        case Exists(attribute):
            return common_pb2.Segment(exists=common_pb2.SegmentExists(attribute=attribute))


def segment_from(message: common_pb2.Segment, depth: int = 1) -> Segment:
    """The segment of a message; InvalidRequestError for an empty node or one that is too deep."""
    if depth > MAX_DEPTH:
        raise InvalidRequestError(f"the segment is deeper than {MAX_DEPTH} levels; flatten it")
    match message.WhichOneof("node"):
        case "all":
            return AllOf(tuple(segment_from(child, depth + 1) for child in message.all.segments))
        case "any":
            return AnyOf(tuple(segment_from(child, depth + 1) for child in message.any.segments))
        case "not":
            return Not(segment_from(getattr(message, "not"), depth + 1))
        case "equals":
            name = message.equals.attribute
            return Equals(name, attribute_from(message.equals.value, where=name))
        case "in":
            node: common_pb2.SegmentIn = getattr(message, "in")
            return In(node.attribute, tuple(attribute_from(value, where=node.attribute) for value in node.values))
        case "range":
            limits = message.range
            return Range(
                limits.attribute,
                limits.min if limits.HasField("min") else None,
                limits.max if limits.HasField("max") else None,
            )
        case "exists":
            return Exists(message.exists.attribute)
    raise InvalidRequestError("a node of the segment is empty; set one of all, any, not, equals, in, range, exists")


def attribute_message(value: Attribute) -> common_pb2.AttributeValue:
    """The message for an attribute value."""
    match value:
        case bool():
            return common_pb2.AttributeValue(flag=value)
        case str():
            return common_pb2.AttributeValue(text=value)
        case _:
            return common_pb2.AttributeValue(number=value)


def attribute_from(message: common_pb2.AttributeValue, *, where: str) -> Attribute:
    """The value of a message; InvalidRequestError when it is empty or not finite."""
    match message.WhichOneof("value"):
        case "text":
            return message.text
        case "flag":
            return message.flag
        case "number" if math.isfinite(message.number):
            return message.number
    raise InvalidRequestError(f"attribute {where!r} has no value or no finite one; set text, number or flag")


def attributes_from(messages: Mapping[str, common_pb2.AttributeValue]) -> dict[str, Attribute]:
    """Attribute values by name."""
    return {name: attribute_from(value, where=name) for name, value in messages.items()}


def window_message(window: Window) -> common_pb2.TimeWindow:
    """The message for a window."""
    return common_pb2.TimeWindow(
        start=None if window.start is None else timestamp(window.start),
        end=None if window.end is None else timestamp(window.end),
    )


def window_from(message: common_pb2.TimeWindow) -> Window:
    """The window of a message."""
    return Window(
        start=seconds(message.start) if message.HasField("start") else None,
        end=seconds(message.end) if message.HasField("end") else None,
    )


def timestamp(at: float) -> Timestamp:
    """The message for seconds since the epoch, to the microsecond: a float knows no more of today's dates."""
    micros = round(math.fmod(at, 1) * _MICROS)
    return Timestamp(seconds=int(at) + micros // _MICROS, nanos=micros % _MICROS * (_NANOS // _MICROS))


def seconds(message: Timestamp) -> float:
    """Seconds since the epoch."""
    return message.seconds + message.nanos / _NANOS


def _operation(message: steering_pb2.Operation) -> Operation:
    kind = kind_from(message.kind, where=f"concept {message.concept_id!r}")
    return Operation(message.concept_id, kind, 0.0 if kind is OperationKind.ABLATE else message.value)
