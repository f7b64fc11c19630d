"""Use case: activations of many subjects or of one, row by row as the contract orders them.

Rows come by subject, then position, then interest or candidate. The model is run on pieces of bounded size, and the
caller's deadline is looked at between two of them. Not here: who the subjects are (`subjects`), messages (`messages`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.recommenders.description import Hook
from recsae.rpc.deadline import Deadline
from recsae.rpc.limits import MOST_ITEM_IDS, at_most, check_time
from recsae.sdk.model import Batch, DotProduct, Floats, ServedModel
from recsae.sdk.subjects import Case
from recsae.sdk.vocabulary import Indices

# Rows per run of the model: larger ones gain little on a processor and hold memory.
_RUN_ROWS = 64


@dataclass(frozen=True, slots=True)
class ExportRow:
    """The subject of one row; `position` counts the items of the whole history consumed, from 1, 0 = no history."""

    user_id: str = ""
    item_id: str = ""
    interest: int = 0
    position: int = 0
    history_index: int = 0


@dataclass(frozen=True)
class Exported:
    """Activations float32 [n, d] and whom each row is of."""

    hook: str
    activations: Floats
    rows: list[ExportRow]


@dataclass(frozen=True, slots=True)
class _Ask:
    """One row to compute, before interests: a case, what it reads of the history, and the candidate of a pair."""

    case: Case
    history: Indices
    position: int
    candidate: int = 0
    item_id: str = ""


class ActivationReader:
    """Reads activations of cases out of one model."""

    def __init__(self, model: ServedModel) -> None:
        """The model says itself what it can give."""
        self._model = model
        self._card = model.card

    def read(
        self,
        hook: Hook,
        cases: Sequence[Case],
        *,
        every_position: bool = False,
        candidates: Sequence[str] = (),
        deadline: Deadline | None = None,
    ) -> Exported:
        """Rows of the cases; `candidates` (item ids) pair every case with each of them, for pair hooks alone.

        FailedPreconditionError where the hook cannot give it, InvalidRequestError for more rows than fit an answer,
        DeadlineExceededError once the caller's time is over.
        """
        deadline = deadline or Deadline()
        at_most(len(candidates), MOST_ITEM_IDS, "candidates")
        if candidates and hook.rows != "pair":
            raise InvalidRequestError(f"hook {hook.name!r} has no row per candidate; leave candidate_item_ids out")
        if every_position and not hook.all_positions:
            raise FailedPreconditionError(
                f"hook {hook.name!r} of model {self._card.name} exports the last position only; ask for POSITIONS_LAST"
            )
        if every_position and candidates:
            raise InvalidRequestError("every item of a history is its own candidate with POSITIONS_ALL; send no others")
        per_case = [self._rows_of(case, hook, every_position, len(candidates)) for case in cases]
        at_most(sum(per_case), self._card.most_rows(hook), "rows would come back; send fewer subjects: rows")
        if every_position and hook.rows != "pair" and cases:
            exported = self._positions(hook, cases, deadline)
            if exported is not None:
                return exported
        return self._asked(hook, self._asks(hook, cases, every_position, candidates), deadline)

    def items(self, hook: Hook, cases: Sequence[Case], deadline: Deadline | None = None) -> Exported:
        """One row per item (per interest): a one-item history; the head's vector where the model reads none."""
        if self._card.reads_history:
            return self.read(hook, cases, deadline=deadline)
        head = self._model.head
        if not isinstance(head, DotProduct) or hook.rows != "subject" or hook != self._card.hooks[0]:
            raise FailedPreconditionError(
                f"model {self._card.name} reads no history and hook {hook.name!r} has no item vectors beside it; "
                "export users, or give the exporter `item_vectors=`"
            )
        places = self._card.items.places_of([case.item_id for case in cases])
        rows = [ExportRow(item_id=case.item_id, history_index=case.history_index) for case in cases]
        return Exported(hook.name, head.vectors[places], rows)

    def _rows_of(self, case: Case, hook: Hook, every_position: bool, candidates: int) -> int:
        positions = min(len(case.history), self._card.max_history) if every_position else 1
        return positions * (candidates or 1) * hook.interests

    def _asks(self, hook: Hook, cases: Sequence[Case], every: bool, candidates: Sequence[str]) -> Iterator[_Ask]:
        items, most = self._card.items, self._card.max_history
        places = items.places_of(candidates)
        for case in cases:
            length = len(case.history)
            if hook.rows == "pair" and candidates:
                for place, item_id in zip(places.tolist(), candidates, strict=True):
                    yield _Ask(case, case.history[-most:], length, int(items.indices[place]), item_id)
                continue
            if hook.rows == "pair" and not length:
                raise InvalidRequestError(
                    f"history {case.history_index} has no known item to be the candidate; send candidate_item_ids"
                )
            first = max(length - most, 0)
            for position in range(first + 1, length + 1) if every else (length,):
                if hook.rows == "pair":
                    index = int(case.history[position - 1])
                    history = case.history[max(first if every else 0, position - 1 - most) : position - 1]
                    yield _Ask(case, history, position, index, items.id_of_index(index))
                else:
                    yield _Ask(case, case.history[max(first, position - most) : position], position)

    def _asked(self, hook: Hook, asks: Iterator[_Ask], deadline: Deadline) -> Exported:
        parts = [np.zeros((0, hook.dim), np.float32)]
        rows: list[ExportRow] = []
        while run := list(islice(asks, _RUN_ROWS)):
            check_time(deadline)
            x = self._model.embed(_batch(run, pairs=hook.rows == "pair"), hook.name)
            parts.append(_checked(x, hook, len(run), self._card.name))
            rows.extend(
                ExportRow(
                    ask.case.user_id, ask.item_id or ask.case.item_id, interest, ask.position, ask.case.history_index
                )
                for ask in run
                for interest in range(hook.interests)
            )
        return Exported(hook.name, np.concatenate(parts), rows)

    def _positions(self, hook: Hook, cases: Sequence[Case], deadline: Deadline) -> Exported | None:
        """Every position by one run per piece; None when the model cannot."""
        parts = [np.zeros((0, hook.dim), np.float32)]
        rows: list[ExportRow] = []
        most = self._card.max_history
        for start in range(0, len(cases), _RUN_ROWS):
            check_time(deadline)
            run = [_Ask(case, case.history[-most:], len(case.history)) for case in cases[start : start + _RUN_ROWS]]
            every = self._model.embed_positions(_batch(run, pairs=False), hook.name)
            if every is None:
                return None
            for ask, of_case in zip(run, every, strict=True):
                length = len(ask.history)
                parts.append(_checked(of_case[:length], hook, length, self._card.name))
                rows.extend(
                    ExportRow(ask.case.user_id, ask.case.item_id, interest, position, ask.case.history_index)
                    for position in range(ask.position - length + 1, ask.position + 1)
                    for interest in range(hook.interests)
                )
        return Exported(hook.name, np.concatenate(parts), rows)


def _batch(run: Sequence[_Ask], *, pairs: bool) -> Batch:
    return Batch(
        histories=tuple(ask.history for ask in run),
        users=np.array([ask.case.user for ask in run], dtype=np.int64),
        user_ids=tuple(ask.case.own_id for ask in run),
        attributes=tuple(ask.case.attributes for ask in run),
        candidates=np.array([ask.candidate for ask in run], dtype=np.int64) if pairs else None,
    )


def _checked(x: Floats, hook: Hook, rows: int, model: str) -> Floats:
    """The activations as float32 [rows * interests, d], rows of a subject together."""
    wanted = (rows, hook.interests, hook.dim) if hook.rows == "interest" else (rows, hook.dim)
    if x.shape != wanted:
        raise FailedPreconditionError(
            f"hook {hook.name!r} of model {model} gave an array {list(x.shape)} where {list(wanted)} was due; attach "
            "to a place that has one row per row of the batch"
        )
    if not np.isfinite(x).all():
        raise FailedPreconditionError(
            f"hook {hook.name!r} of model {model} gave NaN or infinite values; repair the model"
        )
    return np.ascontiguousarray(x, dtype=np.float32).reshape(rows * hook.interests, hook.dim)
