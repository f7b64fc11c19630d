"""Use cases of people's words for concepts: write one, list them with what became of their concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recsae.errors import NotFoundError
from recsae.pipeline.triples import Triple
from recsae.rpc.request import RequestInfo
from recsae.steering.policies import validate_reason
from recsae.store.events import change_now
from recsae.store.label_edits import LabelEdit, LabelEditStore, validate_edit
from recsae_interpreter.labelled import doubt_of
from recsae_interpreter.library import Library


@dataclass(frozen=True)
class EditQuery:
    """Words for a concept; both empty take back what was written. `expected_revision` None = whatever is there."""

    model: str
    concept_id: str
    label: str
    note: str
    reason: str
    expected_revision: int | None = None


@dataclass(frozen=True)
class ShownEdit:
    """An edit; `doubt` says why it is not shown now, "" when it is."""

    edit: LabelEdit
    doubt: str


@dataclass(frozen=True)
class ListedEdits:
    """All edits of a model."""

    edits: Sequence[ShownEdit]
    triple: Triple
    model: str = ""


class EditsHandler:
    """Owns people's words for concepts."""

    def __init__(self, edits: LabelEditStore, library: Library) -> None:
        """Keeps its collaborators."""
        self._edits = edits
        self._library = library

    def write(self, query: EditQuery, info: RequestInfo) -> ShownEdit:
        """The edit, once it is stored with its event.

        NotFoundError for a concept the promoted dictionary lacks, unless a stored edit of it is taken back;
        ConflictError when somebody else edited it first.
        """
        validate_reason(query.reason)
        validate_edit(query.label, query.note)
        loaded = self._library.model(query.model)
        stored = self._edits.get(loaded.model, query.concept_id)
        taken_back = not query.label and not query.note
        if taken_back and stored is None:
            raise NotFoundError(f"nobody wrote about concept {query.concept_id!r}; there is nothing to take back")
        label = "" if taken_back else loaded.machine.by_id(query.concept_id).label
        why, asked = query.reason, info.request_id
        change = change_now(actor=info.principal, action="concept.edit", reason=why, request_id=asked)
        edit = LabelEdit(
            model=loaded.model,
            concept_id=query.concept_id,
            label=query.label.strip(),
            note=query.note,
            actor=info.principal,
            reason=query.reason,
            at=change.at,
            dictionary_version=loaded.triple.dictionary_version,
            machine_label=label,
        )
        written = self._edits.write(edit, change, expected_revision=query.expected_revision)
        return ShownEdit(written, "" if written.removed else doubt_of(written, loaded.machine))

    def listed(self, model: str) -> ListedEdits:
        """Edits by concept id, also those of concepts that are gone or in doubt."""
        loaded = self._library.model(model)
        edits = self._edits.snapshot().of(loaded.model).values()
        return ListedEdits(
            [ShownEdit(edit, doubt_of(edit, loaded.machine)) for edit in edits], loaded.triple, loaded.model
        )
