"""Policies as JSON: how they are stored and how the audit trail shows them.

The message form of the contract, by its own JSON mapping: one schema to keep compatible instead of two.
"""

from __future__ import annotations

from google.protobuf import json_format

from recsae.errors import CorruptArtifactError
from recsae.steering.policies import Policy, PolicyDraft, PolicyState
from recsae.steering.wire import STATES, draft_from, policy_message, seconds
from recsae.v1 import steering_pb2

_STATES_BACK: dict[int, PolicyState] = {number: state for state, number in STATES.items()}


def policy_to_json(policy: Policy) -> str:
    """One line of JSON; `revision` is a string there, as 64-bit numbers are in JSON of messages."""
    return json_format.MessageToJson(
        policy_message(policy), preserving_proto_field_name=True, indent=None, sort_keys=True
    )


def policy_from_json(text: str) -> Policy:
    """The policy `policy_to_json` was made from; fields a newer release added are ignored."""
    try:
        message = json_format.Parse(text, steering_pb2.Policy(), ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise CorruptArtifactError(f"a stored policy cannot be read ({error}); restore it from a backup") from error
    draft: PolicyDraft = draft_from(message)
    return Policy(
        id=message.id,
        name=draft.name,
        model=draft.model,
        operations=draft.operations,
        scope=draft.scope,
        window=draft.window,
        priority=draft.priority,
        state=_STATES_BACK.get(message.state, PolicyState.PAUSED),
        salt=message.salt,
        created_at=seconds(message.created_at),
        updated_at=seconds(message.updated_at),
        created_by=message.created_by,
        state_reason=message.state_reason,
        revision=message.revision,
        dictionary_version=message.dictionary_version,
        outside_safe_range=message.outside_safe_range,
    )
