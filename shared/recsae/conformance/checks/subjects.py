"""Subjects: histories with a user id, attributes and, for rankers of pairs, candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsae.conformance.asking import RefusedError
from recsae.conformance.expecting import INVALID, NOT_FOUND, refused
from recsae.conformance.outcomes import BrokenError, Check, DoubtfulError, NotApplicableError
from recsae.conformance.probe import Probe
from recsae.conformance.reading import Floats, alike
from recsae.conformance.row_order import check_subjects
from recsae.v1 import common_pb2, recommender_pb2
from recsae.v1.recommender_pb2 import Subject

_NOBODY = "recsae-conformance-no-such-user"
_NO_ATTRIBUTE = "recsae-conformance-no-such-attribute"


def same(probe: Probe) -> str:
    """Subjects that are bare histories are answered like histories."""
    if probe.info.ignores_history:
        raise NotApplicableError("the model reads no history")
    asked = f"{len(probe.cases)} histories as `subjects` and as `histories`"
    try:
        answer = _listed(probe, probe.cases)
    except RefusedError as refusal:
        if probe.info.reads_user_id or probe.info.attributes or refusal.code not in (*INVALID, "UNIMPLEMENTED"):
            raise
        came = f"subjects are refused: {refusal.code}"
        raise DoubtfulError(asked, came, "answer `subjects` too: callers use it for every model") from refusal
    check_subjects(probe, answer.batch.subjects, probe.cases, [[None]] * len(probe.cases))
    rows = probe.matrix(answer, len(probe.last_rows))
    return alike(rows, probe.last_rows, asked, "rows", "read the history of a subject as a bare history is read")


def stranger(probe: Probe) -> str:
    """A user id nobody knows is a user the model never saw."""
    case = probe.cases[0] if not probe.info.ignores_history else _item_alone(probe)
    known_by_nobody = Subject(user_id=_NOBODY, history=case.history)
    bare = Subject(history=case.history)
    asked = f'a subject with the user id "{_NOBODY}" and one without'
    try:
        named, unnamed = _rows(probe, [known_by_nobody]), _rows(probe, [bare])
    except RefusedError as refusal:
        if not probe.info.ignores_history or refusal.code not in (*INVALID, *NOT_FOUND):
            raise
        return f"refused with {refusal.code}"
    return alike(named, unnamed, asked, "rows", "treat an unknown user id as none")


def ignored_attributes(probe: Probe) -> str:
    """Attributes that the model does not read change nothing."""
    value = common_pb2.AttributeValue(text="x")
    given = [_with(case, {_NO_ATTRIBUTE: value}) for case in probe.cases]
    asked = f"the same subjects with the attribute {_NO_ATTRIBUTE!r}"
    remedy = "ignore attributes that ModelInfo.attributes does not list"
    return alike(_rows(probe, given), probe.last_rows, asked, "rows with and without it", remedy)


def read_attributes(probe: Probe) -> str:
    """Attributes that the model reads are taken, values it never saw too."""
    names = list(probe.info.attributes)
    if not names:
        raise NotApplicableError("the model reads no attributes")
    values = {name: _value(probe, name) for name in names}
    given = [_with(case, values) for case in probe.cases]
    asked = f"subjects with the attributes {', '.join(names)}"
    first = _rows(probe, given)
    if not np.isfinite(first).all():
        raise BrokenError(asked, "NaN or infinite values", "read values the model never saw as unknown")
    again = _rows(probe, given)
    if first.tobytes() != again.tobytes():
        raise BrokenError(f"{asked}, twice", "different rows", "compute a row the same way each time")
    return ", ".join(names)


def candidates(probe: Probe) -> str:
    """Rows per pair, in the order of the candidates; other hooks refuse candidates."""
    if not probe.pairs:
        asked = f"ExportActivations at the hook {probe.hook.name!r} with candidate_item_ids"
        why = "only hooks with a row per pair take candidates"
        return refused(
            lambda: probe.of(probe.cases[:1], candidates=probe.candidates), asked, ("INVALID_ARGUMENT",), why
        )
    wanted = probe.candidates
    cases = probe.cases[: max(1, probe.most_rows // len(wanted))]
    asked = f"{len(cases)} subjects with {len(wanted)} candidates each"
    answer = probe.of(cases, candidates=wanted)
    probe.matrix(answer, len(cases) * len(wanted))
    pairs = [(row.history_index, row.item_id) for row in answer.batch.subjects]
    if pairs != [(place, item) for place in range(len(cases)) for item in wanted]:
        remedy = "send the rows of a subject in the candidates' order"
        raise BrokenError(asked, f"rows {pairs[: len(wanted)]} ...", remedy)
    return f"{len(pairs)} pairs"


def _listed(probe: Probe, subjects: Sequence[Subject]) -> recommender_pb2.ExportActivationsResponse:
    return probe.export(subjects=recommender_pb2.SubjectList(subjects=subjects))


def _rows(probe: Probe, subjects: Sequence[Subject]) -> Floats:
    return probe.matrix(_listed(probe, subjects), len(subjects) * probe.rows_per_subject)


def _with(subject: Subject, attributes: dict[str, common_pb2.AttributeValue]) -> Subject:
    made = Subject(user_id=subject.user_id, attributes=attributes)
    if subject.HasField("history"):
        made.history.CopyFrom(subject.history)
    return made


def _value(probe: Probe, name: str) -> common_pb2.AttributeValue:
    """A value of the attribute's kind, which the contract does not tell: a category, or else a number."""
    text = common_pb2.AttributeValue(text="recsae-conformance")
    try:
        _listed(probe, [_with(probe.cases[0], {name: text})])
    except RefusedError as refusal:
        if refusal.code not in INVALID:
            raise
        return common_pb2.AttributeValue(number=1.0)
    return text


def _item_alone(probe: Probe) -> Subject:
    return Subject(history=common_pb2.History(item_ids=probe.item_ids[:1]))


_NEEDS = ("activations.finite", "activations.order", "activations.repeatable")
CHECKS = (
    Check("subjects.same", "subjects that are histories are answered like them", same, _NEEDS),
    Check("subjects.stranger", "an unknown user id is a user the model never saw", stranger, _NEEDS),
    Check("subjects.ignored", "attributes the model does not read change nothing", ignored_attributes, _NEEDS),
    Check("subjects.attributes", "attributes the model reads are taken, unknown values too", read_attributes, _NEEDS),
    Check("subjects.candidates", "candidates make a row per pair; other hooks refuse them", candidates, _NEEDS),
)
