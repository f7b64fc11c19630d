"""People's own words for concepts: every edit is checked against a revision and is one step with its audit event.

Keyed by model and stable concept id, so that edits survive refreshes; each says for which dictionary it was written, so
that it is not laid over what the id no longer means. Not here: laying edits over a dictionary
(`recsae_interpreter.labelled`), the Redis store (`label_edits_redis`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Protocol

from recsae.errors import ConflictError, CorruptArtifactError, InvalidRequestError
from recsae.store.events import Change, InMemoryTrail

MAX_LABEL = 120
MAX_NOTE = 2_000


@dataclass(frozen=True)
class LabelEdit:
    """An edit of one concept. `revision` counts its changes, from 1.

    `label` replaces the machine's ("" = it stays); `note` stands beside it. Both empty: the edit was taken back.
    `dictionary_version` is what the author saw, `machine_label` the machine's label in it. `at` in seconds since the
    epoch.
    """

    model: str
    concept_id: str
    label: str
    note: str
    actor: str
    reason: str
    at: float
    dictionary_version: str
    machine_label: str = ""
    revision: int = 1

    @property
    def removed(self) -> bool:
        """True when it says nothing any more; its revision goes on counting."""
        return not self.label and not self.note


@dataclass(frozen=True)
class EditSnapshot:
    """All edits in force, by model and concept id, and those stored in a form this release cannot read."""

    edits: tuple[LabelEdit, ...]
    unreadable: tuple[str, ...] = ()

    def of(self, model: str) -> dict[str, LabelEdit]:
        """Those of one model, by concept id."""
        return {edit.concept_id: edit for edit in self.edits if edit.model == model}


class LabelEditStore(Protocol):
    """Where edits live."""

    def write(self, edit: LabelEdit, change: Change, *, expected_revision: int | None) -> LabelEdit:
        """Stores an edit over the one before and returns it with its revision, once it is durable.

        ConflictError when `expected_revision` is given (0 = there is none yet) and no longer the stored one.
        """

    def get(self, model: str, concept_id: str) -> LabelEdit | None:
        """The edit of a concept, also one taken back; None when there never was one."""

    def snapshot(self) -> EditSnapshot:
        """All edits that were not taken back."""


class InMemoryLabelEditStore:
    """A store for tests and single-process use."""

    def __init__(self, trail: InMemoryTrail | None = None) -> None:
        """Records into `trail`."""
        self.trail = trail or InMemoryTrail()
        self._edits: dict[tuple[str, str], LabelEdit] = {}

    def write(self, edit: LabelEdit, change: Change, *, expected_revision: int | None) -> LabelEdit:
        """See `LabelEditStore`."""
        with self.trail.lock:
            before = self._edits.get((edit.model, edit.concept_id))
            stored = before.revision if before else 0
            if expected_revision not in (None, stored):
                raise edited_meanwhile(edit, stored, expected_revision)
            text = edit_to_json(edit, stored + 1)
            self._edits[edit.model, edit.concept_id] = edit_from_json(text)
            self.trail.record(change, subject_of(edit), edit_to_json(before, stored) if before else "", text)
            return self._edits[edit.model, edit.concept_id]

    def get(self, model: str, concept_id: str) -> LabelEdit | None:
        """See `LabelEditStore`."""
        with self.trail.lock:
            return self._edits.get((model, concept_id))

    def snapshot(self) -> EditSnapshot:
        """See `LabelEditStore`."""
        with self.trail.lock:
            return EditSnapshot(in_order(edit for edit in self._edits.values() if not edit.removed))


def validate_edit(label: str, note: str) -> None:
    """InvalidRequestError when the words are too long or the label is only blanks."""
    if len(label) > MAX_LABEL or (label and not label.strip()):
        raise InvalidRequestError(f"label has {len(label)} characters; give 1 to {MAX_LABEL}, not only blanks")
    if len(note) > MAX_NOTE:
        raise InvalidRequestError(f"note has {len(note)} characters; give at most {MAX_NOTE}")


def in_order(edits: Iterable[LabelEdit]) -> tuple[LabelEdit, ...]:
    """Edits by model, then concept id."""
    return tuple(sorted(edits, key=lambda edit: (edit.model, edit.concept_id)))


def subject_of(edit: LabelEdit) -> str:
    """Whom the audit event is about."""
    return f"{edit.model}/{edit.concept_id}"


def edited_meanwhile(edit: LabelEdit, stored: int, expected: int | None) -> ConflictError:
    """The error of an edit made from an old revision."""
    return ConflictError(
        f"the edit of {edit.concept_id} is at revision {stored}, not {expected}; read it again and decide again"
    )


def edit_to_json(edit: LabelEdit, revision: int) -> str:
    """One line of JSON."""
    return json.dumps({**asdict(edit), "revision": revision}, sort_keys=True)


def edit_from_json(text: str) -> LabelEdit:
    """The edit `edit_to_json` was made from; fields a newer release added are ignored."""
    try:
        stored = json.loads(text)
        return LabelEdit(**{name: stored[name] for name in LabelEdit.__dataclass_fields__ if name in stored})
    except (ValueError, TypeError) as error:
        raise CorruptArtifactError(f"a stored edit cannot be read ({error}); restore it from a backup") from error
