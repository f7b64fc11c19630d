"""Whose row is whose: what a RowSubject has to say of each row of an export."""

from __future__ import annotations

from collections.abc import Sequence

from recsae.conformance.outcomes import BrokenError
from recsae.conformance.probe import Probe
from recsae.v1.common_pb2 import RowSubject
from recsae.v1.recommender_pb2 import Subject


def check_subjects(
    probe: Probe,
    came: Sequence[RowSubject],
    subjects: Sequence[Subject],
    positions: Sequence[Sequence[int | None]],
) -> None:
    """`BrokenError` unless rows come by subject, position (None = the last) and interest, each named so."""
    asked = f"RowSubjects of {len(subjects)} subjects"
    wanted = [
        (place, len(subject.history.item_ids) if position is None else position, interest)
        for place, subject in enumerate(subjects)
        for position in positions[place]
        for interest in range(probe.rows_per_subject)
    ]
    if len(came) != len(wanted):
        raise BrokenError(
            asked, f"{len(came)} of them for {len(wanted)} rows", "send one RowSubject per row, in row order"
        )
    for row, (one, (index, position, interest)) in enumerate(zip(came, wanted, strict=True)):
        expected = {"history_index": index, "interest": interest}
        if not probe.info.ignores_history:
            expected["position"] = position
        wrong = {name: value for name, value in expected.items() if getattr(one, name) != value}
        if wrong:
            says = ", ".join(f"{name} {getattr(one, name)} instead of {value}" for name, value in wrong.items())
            remedy = "keep the order of the subjects; position = items consumed, from 1; interest from 0"
            raise BrokenError(asked, f"row {row} has {says}", remedy)
        history = subjects[index].history.item_ids
        if probe.pairs and history and one.item_id != history[position - 1]:
            says = f"row {row} names item {one.item_id!r} instead of {history[position - 1]!r}"
            raise BrokenError(asked, says, "name the candidate of a pair: without candidates, the newest item")
