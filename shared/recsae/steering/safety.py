"""Whether operations stay within what was measured to be safe (docs/method.md, section 7).

An operation is safe inside the range measured for its concept; several together are held by a budget: the upper bounds
of what each costs may add up to no more than one alone may cost. Losses add up to less than their sum as long as the
concepts do not pull the same items the same way, and a bound is a bound for all of them at once, so the sum is a
cautious one; what a combination really costs is not measured. A handle was measured as a whole and counts as one.
Not here: measuring (`recsae.concepts.causal`), and who may ask for more (`CreatePolicy`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recsae.concepts.effects import MEASURED, MOST_NDCG_LOSS, MOST_OFF_TARGET, NDCG, CausalRecord, SafeRange, Spent
from recsae.concepts.handles import Handle
from recsae.errors import InvalidRequestError, NotFoundError
from recsae.steering.policies import Operation, OperationKind

REMEDY = "or set allow_outside_safe_range, which the audit trail keeps"
_BROKEN = {
    NDCG: f"may cost more than {MOST_NDCG_LOSS:.0%} of NDCG@10",
    MEASURED: "was not measured",
}
_OFF_TARGET = f"may change more than {MOST_OFF_TARGET:.0%} of the lists beyond its facet"

_ROUNDING = 1e-5
_HANDLE = "handle "

# The effects of a concept by its id; None where they were not measured.
Effects = Callable[[str], CausalRecord | None]


@dataclass(frozen=True)
class HandleUse:
    """A handle at a dose."""

    handle: Handle
    dose: float

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations it stands for."""
        strengths = self.handle.strengths(self.dose)
        # In float32, as operations travel and are stored.
        return tuple(
            Operation(concept, OperationKind.ADD, float(np.float32(value))) for concept, value in strengths.items()
        )


def find_handle(handles: Sequence[Handle], facet: str, dose: float) -> HandleUse:
    """The handle of a facet; NotFoundError names those there are."""
    found = next((one for one in handles if one.facet == facet), None)
    if found is None:
        known = ", ".join(one.facet for one in handles) or "none"
        raise NotFoundError(f"no handle for {facet!r} in the promoted dictionary (there are: {known})")
    return HandleUse(found, dose)


def expanded(operations: tuple[Operation, ...], uses: Sequence[HandleUse]) -> tuple[Operation, ...]:
    """Operations with those of the handles after them; InvalidRequestError when a concept is turned twice."""
    every = (*operations, *(one for use in uses for one in use.operations))
    seen: set[str] = set()
    for one in every:
        if uses and one.concept_id in seen:
            raise InvalidRequestError(
                f"concept {one.concept_id!r} is part of a handle and turned another time; give each concept one change"
            )
        seen.add(one.concept_id)
    return every


def judged(operations: Sequence[Operation], handles: Sequence[Handle], effects: Effects) -> str:
    """As `outside_safe_range`, of operations in which those of a handle are not told apart from the others."""
    rest, uses = told_apart(operations, handles)
    return outside_safe_range(rest, uses, effects)


def told_apart(
    operations: Sequence[Operation], handles: Sequence[Handle]
) -> tuple[tuple[Operation, ...], tuple[HandleUse, ...]]:
    """The handles that stand written out among operations, at their doses, and the operations that belong to none.

    A handle is there where all its concepts get an ADD in the proportion of its weights: what was measured as a whole.
    """
    left = {one.concept_id: one for one in operations}
    uses: list[HandleUse] = []
    # The larger first: one may hold another.
    for handle in sorted(handles, key=lambda one: -len(one.concept_ids)):
        dose = _dose_in(left, handle)
        if dose is not None:
            uses.append(HandleUse(handle, dose))
            for concept in handle.concept_ids:
                del left[concept]
    return tuple(left.values()), tuple(uses)


def _dose_in(operations: Mapping[str, Operation], handle: Handle) -> float | None:
    found = [operations.get(concept) for concept in handle.concept_ids]
    # One concept alone is judged by its own range.
    if len(found) < 2 or any(one is None or one.kind is not OperationKind.ADD for one in found):
        return None
    values = np.array([one.value for one in found if one is not None])
    weights = np.array(handle.weights)
    largest = int(np.abs(weights).argmax())
    if weights[largest] == 0:
        return None
    dose = float(values[largest] / weights[largest])
    return dose if np.allclose(values, dose * weights, rtol=_ROUNDING, atol=0) else None


def outside_safe_range(operations: Sequence[Operation], uses: Sequence[HandleUse], effects: Effects) -> str:
    """Why this is not known to be safe, in a sentence with the value, the range, its limit and the remedy; "" if it is.

    `operations` are those asked for one by one, without what the handles in `uses` expand to.
    """
    spent: list[Spent] = []
    for operation in operations:
        record = effects(operation.concept_id)
        if record is None:
            return (
                f"what turning {operation.concept_id} does was not measured, so no dose of it is known to be safe; "
                f"choose a measured concept, {REMEDY}"
            )
        subject = f"{operation.concept_id}:{_words(operation)}"
        problem = _problem(subject, operation.kind.value, operation.value, record.safe_range(operation.kind.value))
        if problem:
            return problem
        spent.append(record.spent(operation.kind.value, operation.value))
    for use in uses:
        subject = f"{_HANDLE}{use.handle.facet}={use.dose:g}"
        problem = _problem(subject, "add", use.dose, use.handle.safe_range)
        if problem:
            return problem
        spent.append(use.handle.spent(use.dose))
    return _over_budget(spent) if len(spent) > 1 else ""


def range_words(safe: SafeRange) -> str:
    """A range in words: "-0.1 to 0.2", "allowed" for an ablation, "none"."""
    if safe.empty:
        return "none"
    return "allowed" if safe.operation == "ablate" else f"{safe.low:g} to {safe.high:g}"


def _words(operation: Operation) -> str:
    return operation.kind.value if operation.kind is OperationKind.ABLATE else f"{operation.kind}={operation.value:g}"


def _problem(subject: str, kind: str, value: float, safe: SafeRange | None) -> str:
    if safe is None:
        return f"{subject} was not measured, so no dose of it is known to be safe; choose another operation, {REMEDY}"
    if safe.empty:
        why = _why(safe.limited_by if value >= safe.high else safe.limited_below)
        other = "handle" if subject.startswith(_HANDLE) else "concept"
        return f"{subject} has no safe dose: the least one measured {why}; choose another {other}, {REMEDY}"
    # Doses travel in float32: .1 arrives as .1000000015.
    if safe.low - _ROUNDING <= value <= safe.high + _ROUNDING:
        return ""
    above = value > safe.high
    edge = "above" if above else "below"
    why = _why(safe.limited_by if above else safe.limited_below)
    return (
        f"{subject} lies outside the safe range {safe.low:g} to {safe.high:g} of {kind}: the next dose {edge} {why}; "
        f"choose a value in the range, {REMEDY}"
    )


def _why(limit: str) -> str:
    return _BROKEN.get(limit, _OFF_TARGET)


def _over_budget(spent: Sequence[Spent]) -> str:
    loss, off_target = sum(one.loss for one in spent), sum(one.off_target for one in spent)
    if loss <= MOST_NDCG_LOSS and off_target <= MOST_OFF_TARGET:
        return ""
    return (
        f"these {len(spent)} changes are safe one by one, but their bounds add up to {loss:.1%} of NDCG@10 (at most "
        f"{MOST_NDCG_LOSS:.0%}) and {off_target:.1%} of the lists off target (at most {MOST_OFF_TARGET:.0%}); "
        f"lower the doses, {REMEDY}"
    )
