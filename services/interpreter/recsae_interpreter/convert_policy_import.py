"""Messages of `ImportPolicies` to and from the handler's values. Nothing here computes."""

from __future__ import annotations

from recsae.errors import InvalidRequestError
from recsae.steering.wire import draft_from, seconds
from recsae.v1 import steering_pb2
from recsae_interpreter.convert_policies import state_from
from recsae_interpreter.handlers.policy_import import ImportDone, ImportQuery, PolicyEntry


def import_query(request: steering_pb2.ImportPoliciesRequest) -> ImportQuery:
    """The handler's query for a request; InvalidRequestError names the policy that cannot be read."""
    return ImportQuery(
        entries=[_entry(message) for message in request.policies],
        reason=request.reason,
        overwrite=request.replace,
        allow_outside_safe_range=request.allow_outside_safe_range,
    )


def import_response(done: ImportDone) -> steering_pb2.ImportPoliciesResponse:
    """The response for what became of each."""
    return steering_pb2.ImportPoliciesResponse(
        policies=[
            steering_pb2.ImportedPolicy(policy_id=one.policy_id, outcome=one.outcome, reason=one.reason)
            for one in done.policies
        ],
        plan_revision=done.plan_revision,
    )


def _entry(message: steering_pb2.Policy) -> PolicyEntry:
    try:
        return PolicyEntry(
            id=message.id,
            salt=message.salt,
            state=state_from(message.state),
            created_at=seconds(message.created_at),
            draft=draft_from(message),
        )
    except InvalidRequestError as error:
        raise InvalidRequestError(f"policy {message.id or message.name!r}: {error}") from error
