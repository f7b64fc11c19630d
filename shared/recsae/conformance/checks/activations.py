"""ExportActivations of given histories: the tensor, the order of rows, and that each depends on its subject alone."""

from __future__ import annotations

import math
from contextlib import suppress

import numpy as np

from recsae.conformance.asking import RefusedError
from recsae.conformance.expecting import INVALID, NOT_FOUND, refused
from recsae.conformance.outcomes import BrokenError, Check, DoubtfulError, NotApplicableError
from recsae.conformance.probe import UNKNOWN_ITEM, Probe
from recsae.conformance.reading import alike, matrix
from recsae.conformance.row_order import check_subjects
from recsae.v1 import common_pb2
from recsae.v1.recommender_pb2 import Subject

# Of float32 values read in the wrong byte order at most a quarter falls in here, of real activations nearly all.
_PLAUSIBLE = (1e-8, 1e8)


def tensor(probe: Probe) -> str:
    """float32 [rows, d] whose bytes are as many as the shape says, and in little-endian order."""
    answer = probe.last
    sent = answer.batch.activations
    asked = f"ExportActivations of {len(probe.cases)} subjects"
    rows = len(probe.cases) * probe.rows_per_subject
    remedy = f"send float32 [{rows}, {probe.hook.dim}], row-major, little-endian"
    if sent.element_type != common_pb2.ELEMENT_TYPE_FLOAT32:
        name = common_pb2.ElementType.Name(sent.element_type) if sent.element_type in range(6) else sent.element_type
        raise BrokenError(asked, f"element_type {name}", remedy)
    shape = list(sent.shape)
    if len(sent.data) != 4 * math.prod(shape):
        each = len(sent.data) / max(math.prod(shape), 1)
        raise BrokenError(asked, f"{len(sent.data)} bytes for shape {shape}: {each:g} per number", remedy)
    if shape != [rows, probe.hook.dim]:
        raise BrokenError(asked, f"shape {shape}", remedy)
    little, big = (_plausible(np.frombuffer(sent.data, dtype=order)) for order in ("<f4", ">f4"))
    if little < 0.5 < 0.9 < big:
        came = f"{1 - little:.0%} of the numbers are absurd, {big:.0%} are plausible read as big-endian"
        raise BrokenError(asked, came, remedy)
    return f"float32 {shape}"


def finite(probe: Probe) -> str:
    """No NaN, no infinity."""
    bad = np.argwhere(~np.isfinite(probe.last_rows))
    if len(bad):
        row, column = bad[0]
        came = f"{len(bad)} values are NaN or infinite, the first in row {row}, column {column}"
        raise BrokenError(f"ExportActivations of {len(probe.cases)} subjects", came, "send finite numbers only")
    return ""


def order(probe: Probe) -> str:
    """A RowSubject per row: by subject, then by interest; position = items consumed; of a pair its candidate."""
    check_subjects(probe, probe.last.batch.subjects, probe.cases, [[None]] * len(probe.cases))
    return f"{len(probe.last.batch.subjects)} rows"


def named(probe: Probe) -> str:
    """Every answer carries the names and the version it belongs to."""
    wanted = (probe.info.name, probe.info.version, probe.hook.name, probe.hook.side)
    batches = [("ExportActivations", probe.last.batch)]
    with suppress(RefusedError):  # activations.embed says so
        batches.append(("Embed", probe.embed(probe.cases[0]).batch))
    for method, batch in batches:
        came = (batch.model, batch.model_version, batch.hook, batch.side)
        if came != wanted:
            raise BrokenError(
                f"{method}'s model, version, hook and side",
                ", ".join(map(str, came)),
                f"name what the rows were computed by: {', '.join(map(str, wanted))}",
            )
    return ""


def repeatable(probe: Probe) -> str:
    """The same request gives the same bits."""
    again = probe.matrix(probe.of(probe.cases), len(probe.last_rows))
    if again.tobytes() != probe.last_rows.tobytes():
        off = float(np.nanmax(np.abs(again - probe.last_rows)))
        raise BrokenError(
            "the same ExportActivations twice",
            f"answers that differ by up to {off:.2g}",
            "switch dropout and sampling off; compute a row the same way each time",
        )
    return "bit-identical"


def alone(probe: Probe) -> str:
    """A row does not depend on what else is in the batch."""
    per = probe.rows_per_subject
    rows = [probe.matrix(probe.of([case]), per) for case in probe.cases]
    remedy = "pad every history to one length, and see that no row reads another; rows follow the order of the subjects"
    return alike(np.concatenate(rows), probe.last_rows, "each subject alone and in a batch", "rows", remedy)


def distinct(probe: Probe) -> str:
    """Different subjects have different activations."""
    if len(probe.cases) < 2:
        raise NotApplicableError("one row fits an answer")
    if probe.info.ignores_history and not probe.user_ids:
        raise NotApplicableError("the model reads no history, and no users are listed")
    first = probe.last_rows[: probe.rows_per_subject]
    if all(np.array_equal(first, part) for part in np.split(probe.last_rows, len(probe.cases))):
        raise DoubtfulError(
            f"ExportActivations of {len(probe.cases)} different subjects",
            "the same activation for all",
            "see that the history, or the user id, reaches the model",
        )
    return ""


def embedded(probe: Probe) -> str:
    """Embed gives what ExportActivations gives."""
    ids = probe.candidates if probe.pairs else ()
    per = len(ids) or probe.rows_per_subject
    cases = probe.cases[:4]
    expected = probe.matrix(probe.of(cases, candidates=ids), per * len(cases))
    rows = [matrix(probe.embed(case, ids).batch.activations, "Embed", rows=per, dim=probe.hook.dim) for case in cases]
    remedy = "compute Embed and ExportActivations by one function"
    return alike(np.concatenate(rows), expected, "Embed and ExportActivations of the same subjects", "rows", remedy)


def newest(probe: Probe) -> str:
    """Of a long history the newest part counts."""
    if probe.info.ignores_history:
        raise NotApplicableError("the model reads no history")
    long = probe.long_history()
    if len(long) > 10_000:
        raise NotApplicableError(f"max_history {probe.info.max_history} is as long as a history may be")
    history = common_pb2.History(item_ids=long)
    part = common_pb2.History(item_ids=long[-probe.info.max_history - probe.pairs :])
    per = probe.rows_per_subject
    whole, cut = (probe.matrix(probe.of([Subject(history=one)]), per) for one in (history, part))
    asked = f"a history of {len(long)} items and its newest {probe.info.max_history}"
    return alike(whole, cut, asked, "activations", "read the newest max_history items, the list is oldest first")


def unknown_items(probe: Probe) -> str:
    """Items the model does not know are left out, or the request is refused by name."""
    if probe.info.ignores_history:
        raise NotApplicableError("the model reads no history")
    # Shorter than what is read, so that an unknown item does not push a known one out of sight.
    known = max(
        probe.cases, key=lambda case: (len(case.history.item_ids) < probe.info.max_history, len(case.history.item_ids))
    )
    *before, newest_item = known.history.item_ids
    mixed = Subject(history=common_pb2.History(item_ids=[*before, UNKNOWN_ITEM, newest_item]))
    per = probe.rows_per_subject
    place = probe.cases.index(known) * per
    asked = f'a history with the unknown item "{UNKNOWN_ITEM}"'
    try:
        rows = probe.matrix(probe.of([mixed]), per)
    except RefusedError as refusal:
        if refusal.code not in (*INVALID, *NOT_FOUND):
            raise
        return f"refused with {refusal.code}"
    remedy = "leave unknown items out of the history, or refuse them with INVALID_ARGUMENT and the id"
    alike(rows, probe.last_rows[place : place + per], asked, "activations with and without it", remedy)
    return "ignored"


def empty(probe: Probe) -> str:
    """A subject without history is refused, or answered by a model that can: nothing announces which."""
    if probe.info.ignores_history:
        raise NotApplicableError("the model reads no history")
    asked = "ExportActivations of an empty history"
    try:
        rows = probe.matrix(probe.of([Subject()]), probe.rows_per_subject)
    except RefusedError as refusal:
        if refusal.code not in INVALID:
            raise
        return "refused"
    if not np.isfinite(rows).all():
        raise BrokenError(asked, "a row that is not finite", "refuse it with INVALID_ARGUMENT and say why")
    return "answered as a cold start"


def unknown_hook(probe: Probe) -> str:
    """A hook that is not there is NOT_FOUND."""
    asked = 'ExportActivations at the hook "recsae-no-such-hook"'
    why = "GetModel lists no such hook"
    return refused(lambda: probe.of(probe.cases[:1], hook="recsae-no-such-hook"), asked, NOT_FOUND, why)


def other_hooks(probe: Probe) -> str:
    """Every further hook answers with its own length."""
    if len(probe.info.hooks) < 2:
        raise NotApplicableError("the model has one hook")
    for hook in probe.info.hooks[1:]:
        asked = f"ExportActivations at the hook {hook.name!r}"
        batch = probe.of(probe.cases, hook=hook.name).batch
        if batch.hook != hook.name:
            raise BrokenError(asked, f"rows of {batch.hook!r}", "answer from the hook asked for")
        rows = matrix(batch.activations, asked, rows=len(probe.cases) * max(hook.interests, 1), dim=hook.dim)
        if not np.isfinite(rows).all():
            raise BrokenError(asked, "NaN or infinite values", "send finite numbers only")
    return f"{len(probe.info.hooks) - 1} more"


def _plausible(values: np.ndarray[tuple[int], np.dtype[np.float32]]) -> float:
    """Share of values that activations may have: 0, or of a magnitude that is not absurd."""
    size = np.abs(values)
    with np.errstate(invalid="ignore"):
        return float(np.mean((size == 0) | ((size > _PLAUSIBLE[0]) & (size < _PLAUSIBLE[1])))) if size.size else 1.0


_TENSOR = ("activations.tensor",)
_VALUES = ("activations.tensor", "activations.finite")
_STEADY = (*_VALUES, "activations.repeatable", "activations.alone")
CHECKS = (
    Check("activations.tensor", "float32 [rows, d], row-major, little-endian", tensor, ("model.hooks", "model.items")),
    Check("activations.finite", "values are finite", finite, _TENSOR),
    Check("activations.order", "one RowSubject per row, by subject, position, interest", order, _TENSOR),
    Check("activations.named", "answers name model, version, hook and side of their rows", named, _TENSOR),
    Check("activations.repeatable", "the same request gives the same bits", repeatable, _VALUES),
    Check(
        "activations.alone",
        "a row is the same alone and in a batch",
        alone,
        (*_VALUES, "activations.repeatable", "activations.order"),
    ),
    Check("activations.distinct", "different subjects have different activations", distinct, _VALUES),
    Check(
        "activations.embed",
        "Embed gives what ExportActivations gives",
        embedded,
        _STEADY,
    ),
    Check("activations.newest", "of a long history the newest max_history items count", newest, _STEADY),
    Check("activations.unknown-items", "unknown items are ignored, or refused by name", unknown_items, _STEADY),
    Check("activations.empty", "an empty history is refused, or is all right as it is", empty, _TENSOR),
    Check(
        "activations.unknown-hook", "a hook that is not there is refused with NOT_FOUND", unknown_hook, ("model.items",)
    ),
    Check("activations.other-hooks", "every further hook answers with vectors of its own dim", other_hooks, _TENSOR),
)
