"""Label edits in Redis: one hash, and one script that checks the revision, writes the edit and records the event."""

from __future__ import annotations

import json
from typing import Any

import redis

from recsae.errors import RecsaeError
from recsae.store.acknowledging import AcknowledgedWrites
from recsae.store.events import EVENTS, RECORD_LUA, REVISION, Change, change_arguments
from recsae.store.label_edits import (
    EditSnapshot,
    LabelEdit,
    edit_from_json,
    edit_to_json,
    edited_meanwhile,
    in_order,
    subject_of,
)
from recsae.store.redis import translated

_EDITS = "recsae:label-edits"

# KEYS: events, revision, edits. ARGV 7..9: field, JSON without a revision and without its closing brace, revision it
# must be stored at ("" = any). The revision is appended as text: encoding the JSON again could round its time.
_WRITE = (
    RECORD_LUA
    + """
local before = redis.call('HGET', KEYS[3], ARGV[7])
local stored = before and cjson.decode(before).revision or 0
if ARGV[9] ~= '' and tonumber(ARGV[9]) ~= stored then return {'conflict', tostring(stored)} end
local after = ARGV[8] .. ', "revision": ' .. string.format('%d', stored + 1) .. '}'
redis.call('HSET', KEYS[3], ARGV[7], after)
record(before, after)
return {'written', after}
"""
)


class RedisLabelEditStore:
    """A `LabelEditStore` on the `state` server."""

    def __init__(self, client: redis.Redis, replicas: int | None = None) -> None:
        """`client` decodes responses; `replicas` must have a write, as in `AcknowledgedWrites`."""
        self._client: Any = client
        self._writes = AcknowledgedWrites(client, replicas)
        self._script = client.register_script(_WRITE)

    def write(self, edit: LabelEdit, change: Change, *, expected_revision: int | None) -> LabelEdit:
        """See `LabelEditStore`."""
        stored = json.loads(edit_to_json(edit, 0))
        del stored["revision"]
        arguments: list[str | int] = [
            *change_arguments(change, subject_of(edit)),
            *(_field(edit.model, edit.concept_id), json.dumps(stored, sort_keys=True)[:-1]),
            "" if expected_revision is None else expected_revision,
        ]
        outcome, fact = self._writes.run(
            lambda one: self._script(keys=[EVENTS, REVISION, _EDITS], args=arguments, client=one),
            f"writing the edit of {edit.concept_id}",
        )
        if outcome == "conflict":
            raise edited_meanwhile(edit, int(fact), expected_revision)
        return edit_from_json(fact)

    def get(self, model: str, concept_id: str) -> LabelEdit | None:
        """See `LabelEditStore`."""
        with translated("reading an edit"):
            text = self._client.hget(_EDITS, _field(model, concept_id))
        return None if text is None else edit_from_json(text)

    def snapshot(self) -> EditSnapshot:
        """See `LabelEditStore`."""
        with translated("reading the edits"):
            texts = self._client.hgetall(_EDITS)
        edits: list[LabelEdit] = []
        unreadable: list[str] = []
        for field, text in texts.items():
            try:
                edits.append(edit_from_json(text))
            except RecsaeError:
                unreadable.append(field)
        return EditSnapshot(in_order(edit for edit in edits if not edit.removed), tuple(sorted(unreadable)))


def _field(model: str, concept_id: str) -> str:
    # Model names hold no "/".
    return f"{model}/{concept_id}"
