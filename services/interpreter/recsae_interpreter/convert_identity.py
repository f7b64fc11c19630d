"""Messages about where concepts come from and what people wrote about them. Nothing here computes."""

from __future__ import annotations

from recsae.concepts.origins import Fate, Origin
from recsae.concepts.records import LabelSource
from recsae.steering.wire import timestamp
from recsae.steering.wire_plans import triple_message
from recsae.v1 import interpreter_pb2
from recsae_interpreter.handlers.concepts import FoundLineage
from recsae_interpreter.handlers.edits import EditQuery, ListedEdits, ShownEdit

LABEL_SOURCES = {source: interpreter_pb2.LabelSource.Value(f"LABEL_SOURCE_{source.name}") for source in LabelSource}


def origin_message(origin: Origin) -> interpreter_pb2.Origin:
    """The message for an origin."""
    message = interpreter_pb2.Origin(
        status=origin.status,
        from_ids=origin.from_ids,
        cosine=origin.cosine,
        correlation=origin.correlation,
        unbroken=origin.unbroken,
        doubt=origin.doubt,
        too_few_cases=origin.too_few_cases,
    )
    if origin.kept is not None:
        message.kept = origin.kept
    return message


def edit_query(request: interpreter_pb2.EditConceptRequest) -> EditQuery:
    """The handler's query for a request."""
    return EditQuery(
        model=request.model,
        concept_id=request.concept_id,
        label=request.label,
        note=request.note,
        reason=request.reason,
        expected_revision=request.expected_revision if request.HasField("expected_revision") else None,
    )


def edit_message(shown: ShownEdit) -> interpreter_pb2.LabelEdit:
    """The message for an edit."""
    edit = shown.edit
    return interpreter_pb2.LabelEdit(
        model=edit.model,
        concept_id=edit.concept_id,
        label=edit.label,
        note=edit.note,
        actor=edit.actor,
        reason=edit.reason,
        at=timestamp(edit.at),
        revision=edit.revision,
        dictionary_version=edit.dictionary_version,
        machine_label=edit.machine_label,
        doubt=shown.doubt,
    )


def edits_response(listed: ListedEdits) -> interpreter_pb2.ListLabelEditsResponse:
    """The response for edits."""
    return interpreter_pb2.ListLabelEditsResponse(
        edits=[edit_message(one) for one in listed.edits], triple=triple_message(listed.triple), model=listed.model
    )


def lineage_response(found: FoundLineage) -> interpreter_pb2.GetLineageResponse:
    """The response for a lineage."""
    response = interpreter_pb2.GetLineageResponse(triple=triple_message(found.triple), model=found.model)
    if found.lineage is None:
        return response
    summary = found.lineage.summary()
    response.ancestors.extend(found.lineage.ancestors)
    response.probe_rows = found.lineage.probe_rows
    response.by_chance = found.lineage.by_chance
    if found.lineage.explained is not None:
        response.explained = found.lineage.explained
    for status, counted in summary["live"].items():
        response.counts.add(
            status=status,
            count=int(counted["count"]),
            share_of_mass=counted["share_of_mass"],
            verified=int(summary["verified"][status]["count"]),
        )
    response.verified = sum(fate.verified for fate in found.lineage.fates)
    response.kept, response.judged = summary["kept"], summary["judged"]
    response.fates.extend(_fate(fate) for fate in found.fates)
    return response


def _fate(fate: Fate) -> interpreter_pb2.Fate:
    message = interpreter_pb2.Fate(
        concept_id=fate.id,
        label=fate.label,
        status=fate.status,
        to_ids=fate.to_ids,
        cosine=fate.cosine,
        correlation=fate.correlation,
        mass=fate.mass,
        verified=fate.verified,
        too_few_cases=fate.too_few_cases,
    )
    if fate.kept is not None:
        message.kept = fate.kept
    return message
