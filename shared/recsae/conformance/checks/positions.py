"""POSITIONS_ALL: one row per position, each as if the history had ended there."""

from __future__ import annotations

import numpy as np

from recsae.conformance.outcomes import Check, NotApplicableError
from recsae.conformance.probe import ALL, Probe, cut
from recsae.conformance.reading import Floats, alike
from recsae.conformance.row_order import check_subjects
from recsae.v1 import common_pb2
from recsae.v1.recommender_pb2 import Subject

_REMEDY = (
    "the row of position t reads the first t items alone: no later item, nothing normalised over the whole history"
)


def order(probe: Probe) -> str:
    """Positions run from 1 to the history's length."""
    _require(probe)
    every = [list(range(1, len(case.history.item_ids) + 1)) for case in probe.cases]
    check_subjects(probe, probe.all.batch.subjects, probe.cases, every)
    rows = sum(map(len, every)) * probe.rows_per_subject
    probe.matrix(probe.all, rows)
    return f"{rows} rows"


def last(probe: Probe) -> str:
    """The last position is what POSITIONS_LAST gives."""
    _require(probe)
    parts = [part[-probe.rows_per_subject :] for part in _by_case(probe)]
    asked = "the last row of POSITIONS_ALL and POSITIONS_LAST"
    return alike(np.concatenate(parts), probe.last_rows, asked, "rows", _REMEDY)


def prefix(probe: Probe) -> str:
    """Every position is what the history cut there gives."""
    _require(probe)
    place = len(probe.cases) - 1
    case = probe.cases[place]
    lengths = range(1, len(case.history.item_ids) + 1)
    cuts = [cut(case, length) for length in lengths]
    answered = [probe.matrix(probe.of([one]), probe.rows_per_subject) for one in cuts]
    asked = f"positions of a history of {len(lengths)} items, and the history cut at each"
    return alike(_by_case(probe)[place], np.concatenate(answered), asked, "rows", _REMEDY)


def long(probe: Probe) -> str:
    """Of a history longer than the model reads, the newest positions come."""
    _require(probe)
    if probe.pairs:
        raise NotApplicableError("of a pair the newest item is the candidate: what it leaves room for is the model's")
    items = probe.long_history()
    if len(items) > 10_000 or probe.info.max_history * probe.rows_per_subject > probe.most_rows:
        raise NotApplicableError(f"max_history {probe.info.max_history} fits no answer")
    history = Subject(history=common_pb2.History(item_ids=items))
    rows = probe.matrix(probe.of([history], ALL))
    per = probe.rows_per_subject
    final = probe.matrix(probe.of([history]), per)
    return alike(rows[-per:], final, f"POSITIONS_ALL of a history of {len(items)} items", "last rows", _REMEDY)


def _by_case(probe: Probe) -> list[Floats]:
    rows = probe.matrix(probe.all)
    ends = np.cumsum([len(case.history.item_ids) * probe.rows_per_subject for case in probe.cases])
    return np.split(rows, ends[:-1])


def _require(probe: Probe) -> None:
    if not probe.hook.all_positions:
        raise NotApplicableError(f"hook {probe.hook.name!r} exports the last position only")
    if probe.info.ignores_history:
        raise NotApplicableError("the model reads no history")


_NEEDS = ("activations.finite", "activations.order", "activations.alone")
CHECKS = (
    Check("positions.order", "one row per item of the history, positions from 1", order, _NEEDS),
    Check("positions.last", "the last position is what POSITIONS_LAST gives", last, (*_NEEDS, "positions.order")),
    Check(
        "positions.prefix",
        "position t is the history cut at t",
        prefix,
        (*_NEEDS, "positions.order", "positions.last"),
    ),
    Check(
        "positions.long",
        "of a long history the newest positions come",
        long,
        (*_NEEDS, "positions.last", "activations.newest"),
    ),
)
