"""What happens to the activation of a live forward: steered where a policy holds, sampled for drift, else left alone.

Nothing here raises: a forward goes on with the very value it had, and the receipt says why. Not here: hooks and their
context (`torch_tap`), and what a plan does to a row (`recsae.steering`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from recsae.pipeline.triples import Triple
from recsae.sdk.torch_place import Place, Rows, rows_in, tensor_in, with_tensor
from recsae.sdk.torch_scope import Forward, Steering
from recsae.steering.delta import Steerer
from recsae.steering.live_plan import Change, LivePlan, check_rows
from recsae.steering.plans import Floats
from recsae.steering.receipts import Receipt, UnsteeredReason
from recsae.telemetry.event_log import event_log
from recsae.telemetry.observing import ActivationSampler, Sample

_log = event_log(__name__)
_REPORT_PERIOD_S = 10.0


class ServedPlace:
    """The place that is steered, and the plan and the sampler in force for it. Safe to use from several threads."""

    def __init__(self, place: Place, padding: int) -> None:
        """Steers nothing until `start`."""
        self._place, self._padding = place, padding
        self._name, self._version = "", ""
        self._reported_at = -_REPORT_PERIOD_S
        self.sampler: ActivationSampler | None = None
        self.stop()

    def start(
        self,
        name: str,
        version: str,
        current: Callable[[], Steerer | UnsteeredReason],
        now: Callable[[], float] = time.time,
    ) -> None:
        """Steers by `current` from now on; `now` is the time by which policies begin and end."""
        self._name, self._version = name, version
        self._live = LivePlan(current, version, self._place.name, now)

    def stop(self) -> None:
        """Steers nothing any more."""
        self._live = LivePlan(lambda: UnsteeredReason.NO_PLAN, self._version, self._place.name)

    def passed(self, value: Any, scope: Steering | None, forward: Forward) -> Any:
        """The value to go on with in place of `value`, or None to leave it."""
        try:
            return self._passed(value, scope, forward)
        except Exception as error:
            self._report(error)
            if scope is not None:
                scope.error = error
                bare = Receipt(UnsteeredReason.ERROR, triple=Triple(self._version))
                scope.receipts = (bare,) * max(1, len(scope.contexts))
            return None

    def _passed(self, value: Any, scope: Steering | None, forward: Forward) -> Any:
        if scope is not None:
            scope.forwards += 1
        rows = _LazyRows(tensor_in(value, self._place.part), self._place, forward, self._padding)
        changed = None
        if scope is not None:
            change = self._change(rows, scope)
            changed = self._put(rows, change, scope)
        if self.sampler is not None:
            self._sample(self.sampler, rows, scope)
        return None if changed is None else with_tensor(value, self._place.part, changed)

    def _change(self, rows: _LazyRows, scope: Steering) -> Change:
        each = rows.each
        if scope.shared:
            each *= rows.subjects
        else:
            check_rows(len(scope.contexts), rows.subjects)
        change = self._live.change(scope.contexts, rows.read, rows_each=each)
        scope.receipts, scope.error = change.receipts, change.error
        if change.error is not None:
            self._report(change.error)
        return change

    def _put(self, rows: _LazyRows, change: Change, scope: Steering) -> Tensor | None:
        if not change.rows:
            return None
        try:
            return rows.found.changed(change.rows, change.values)
        except Exception as error:
            self._report(error)
            scope.error = error
            scope.receipts = tuple(_taken_back(receipt) for receipt in scope.receipts)
            return None

    def _sample(self, sampler: ActivationSampler, rows: _LazyRows, scope: Steering | None) -> None:
        """Offers some rows as they were before steering. A failure says nothing about the steering before it."""
        drawn = sampler.drawn(rows.subjects * rows.each)
        if not drawn:
            return
        receipts = scope.receipts if scope is not None else ()
        each = rows.each * rows.subjects if scope is not None and scope.shared else rows.each
        try:
            for row, x in zip(drawn, rows.read(drawn), strict=True):
                subject = row // each
                steered = subject < len(receipts) and receipts[subject].reason is UnsteeredReason.STEERED
                sampler.offer(Sample(self._name, self._version, self._place.name, x, steered))
        except Exception as error:
            self._report(error)

    def _report(self, error: Exception) -> None:
        """Logs at most one failure a period: a server that fails at each request has a log to keep readable."""
        now = time.monotonic()
        if now - self._reported_at >= _REPORT_PERIOD_S:
            self._reported_at = now
            _log.error("steering_failed", model=self._name, hook=self._place.name, exc_info=error)


def _taken_back(receipt: Receipt) -> Receipt:
    """The receipt of a change that could not be put into the model's tensor."""
    if receipt.reason is not UnsteeredReason.STEERED:
        return receipt
    return replace(receipt, reason=UnsteeredReason.INVALID_CHANGE, applied=(), delta_norm=0.0, delta_share=0.0)


class _LazyRows:
    """The rows of a tensor, located when somebody reads one."""

    def __init__(self, tensor: Tensor, place: Place, forward: Forward, padding: int) -> None:
        self.subjects = int(tensor.shape[0])
        self.each = int(tensor.shape[1]) if place.row == "interest" else 1
        self._tensor, self._place, self._forward, self._padding = tensor, place, forward, padding
        self._found: Rows | None = None

    @property
    def found(self) -> Rows:
        if self._found is None:
            self._found = rows_in(
                self._tensor, self._place.row, lambda tensor: self._forward.newest(tensor, self._padding)
            )
        return self._found

    def read(self, rows: list[int]) -> Floats:
        return self.found.read(rows)
