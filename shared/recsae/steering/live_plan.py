"""The plan in force applied inside a live model: matched first, rows read only where a policy holds, never raising.

What the model's own code has to give is a function that reads some of its rows. Not here: following plans
(`follower`) and what a plan does to a row (`delta`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.pipeline.triples import Triple
from recsae.steering.delta import Steerer
from recsae.steering.matching import SteerContext
from recsae.steering.plans import Floats
from recsae.steering.receipts import Receipt, UnsteeredReason

Read = Callable[[list[int]], Floats]
"""Activations float32 [m, d] of the rows named."""


@dataclass(frozen=True)
class Change:
    """`values` float32 [m, d] for the rows `rows`, a receipt per context; `error` says what went wrong, for the log."""

    rows: tuple[int, ...]
    values: Floats
    receipts: tuple[Receipt, ...]
    error: Exception | None = None


_NOTHING = np.zeros((0, 0), np.float32)


class LivePlan:
    """Applies what `current` holds to rows of one hook of one model version. Safe to call from several threads."""

    def __init__(
        self,
        current: Callable[[], Steerer | UnsteeredReason],
        model_version: str,
        hook: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`current` is `PlanFollower.current` or stands for it, and so is `now`: the time windows are judged by."""
        self._current = current
        self._now = now
        self._bare = Triple(model_version=model_version)
        self._hook = hook

    def change(self, contexts: Sequence[SteerContext], read: Read, *, rows_each: int = 1) -> Change:
        """What to change for contexts whose rows follow each other, `rows_each` per context.

        `read` is called only for rows that a policy holds for: without one the model's tensors are not looked at.
        """
        try:
            found = self._change(contexts, read, rows_each)
        except Exception as error:
            found = self._unsteered(UnsteeredReason.ERROR, len(contexts), error)
        receipts = tuple(
            receipt if receipt.triple.model_version else replace(receipt, triple=self._bare)
            for receipt in found.receipts
        )
        return replace(found, receipts=receipts)

    def _change(self, contexts: Sequence[SteerContext], read: Read, rows_each: int) -> Change:
        plan = self._current()
        if isinstance(plan, UnsteeredReason):
            return self._unsteered(plan, len(contexts))
        if plan.plan.kill_switch or not plan.plan.policies:
            reason = UnsteeredReason.KILL_SWITCH if plan.plan.kill_switch else UnsteeredReason.NONE_MATCHED
            return Change((), _NOTHING, (self._of_plan(plan, reason),) * len(contexts))
        now = self._now()
        found = [plan.matcher.find(context, now) for context in contexts]
        receipts = [plan.untouched(match) for match in found]
        matched = {place: match for place, match in enumerate(found) if match.together and rows_each}
        if not matched:
            return Change((), _NOTHING, tuple(receipts))
        if plan.plan.hook and plan.plan.hook != self._hook:
            wrong = FailedPreconditionError(
                f"the plan is for hook {plan.plan.hook!r}, this is hook {self._hook!r}; attach where the SAE learnt"
            )
            return self._unsteered(UnsteeredReason.VERSION_MISMATCH, len(contexts), wrong)
        rows = [place * rows_each + row for place in matched for row in range(rows_each)]
        x = read(rows)
        steered = plan.apply(x, [match for match in matched.values() for _ in range(rows_each)])
        for order, place in enumerate(matched):
            receipts[place] = _of_subject(steered.receipts[order * rows_each : (order + 1) * rows_each])
        changed = [
            order
            for order, receipt in enumerate(steered.receipts)
            if receipt.reason is UnsteeredReason.STEERED and receipt.delta_norm > 0
        ]
        values = steered.activation[changed] if changed else _NOTHING
        return Change(tuple(rows[order] for order in changed), values, tuple(receipts), steered.error)

    def _unsteered(self, reason: UnsteeredReason, contexts: int, error: Exception | None = None) -> Change:
        return Change((), _NOTHING, (Receipt(reason, triple=self._bare),) * contexts, error)

    def _of_plan(self, plan: Steerer, reason: UnsteeredReason) -> Receipt:
        return Receipt(reason, plan_revision=plan.plan.revision, triple=plan.plan.triple)


def _of_subject(receipts: Sequence[Receipt]) -> Receipt:
    """Of a subject's rows the one changed most, else the first: what was refused for all says why.

    Beside it stands what shadow policies would have made of the row that they would have changed most.
    """
    steered = [receipt for receipt in receipts if receipt.reason is UnsteeredReason.STEERED]
    receipt = max(steered, key=lambda one: one.delta_norm) if steered else receipts[0]
    shadows = [one.shadow for one in receipts if one.shadow is not None]
    if len(receipts) == 1 or not shadows:
        return receipt
    return replace(
        receipt, shadow=max(shadows, key=lambda one: (one.reason is UnsteeredReason.STEERED, one.delta_norm))
    )


def check_rows(contexts: int, rows: int) -> None:
    """InvalidRequestError when there is not one context per row."""
    if contexts != rows:
        raise InvalidRequestError(f"{contexts} steering contexts came for {rows} rows of the batch; give one per row")
