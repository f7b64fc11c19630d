"""The arena: where a serving process counts live activations before it hands them on as a contribution.

Thread-safe and bounded. `observe` is what `Interpreter.Observe` calls; `flush` is called every few seconds by one
background thread.
"""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.drift.counters import ConceptCounters, Floats, Series
from recsae.drift.panes import PaneStore, pane_start

# Batches remembered so that a repeated send counts once: minutes of traffic at 50 batches a second.
_REMEMBERED_BATCHES = 8_192
# Panes held while the store does not answer; older ones are dropped first.
_MAX_HELD = 64


@dataclass(frozen=True)
class _Contribution:
    series: Series
    start: int
    counters: ConceptCounters
    id: str


class CounterArena:
    """Counters by series and pane, held until the next flush."""

    def __init__(self) -> None:
        """Starts empty."""
        self._held: OrderedDict[tuple[Series, int], ConceptCounters] = OrderedDict()
        self._pending: list[_Contribution] = []
        self._batches: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self.dropped_rows = 0

    def observe(
        self,
        model: str,
        sae_version: str,
        width: int,
        indices: NDArray[np.integer[Any]],
        values: Floats,
        x: Floats,
        x_hat: Floats,
        *,
        mean: Floats,
        at: float,
        steered: NDArray[np.bool_] | None = None,
        segment: str = "",
        batch_id: str = "",
    ) -> int:
        """Counts rows, steered ones ([n] bool) apart; returns the rows counted, 0 for a batch id seen before.

        Arrays as in `ConceptCounters.add`; `at` in seconds since the epoch.
        """
        marks = np.zeros(len(values), np.bool_) if steered is None else steered
        with self._lock:
            if batch_id and not self._remember(batch_id):
                return 0
            for steered_side in (False, True):
                rows = marks if steered_side else ~marks
                if rows.any():
                    series = Series(model, sae_version, segment, steered_side)
                    counters = self._counters(series, pane_start(at), width)
                    counters.add(indices[rows], values[rows], x[rows], x_hat[rows], mean=mean, at=at)
            self._drop_excess()
        return len(values)

    def flush(self, panes: PaneStore) -> int:
        """Hands everything held to the store; returns the rows handed over. One thread calls it.

        What could not be written stays pending and goes out with the next flush under the same contribution id,
        so a write whose answer was lost counts once; the store's error is raised.
        """
        with self._lock:
            held, self._held = self._held, OrderedDict()
        self._pending += [_Contribution(*key, counters, uuid.uuid4().hex) for key, counters in held.items()]
        for excess in self._pending[:-_MAX_HELD]:
            self.dropped_rows += excess.counters.n
        self._pending = self._pending[-_MAX_HELD:]
        written = 0
        while self._pending:
            first = self._pending[0]
            if panes.add(first.series, first.counters, first.start, first.id):
                written += first.counters.n
            else:
                self.dropped_rows += first.counters.n
            self._pending.pop(0)
        return written

    def _counters(self, series: Series, start: int, width: int) -> ConceptCounters:
        key = (series, start)
        if key not in self._held:
            self._held[key] = ConceptCounters(width)
        return self._held[key]

    def _remember(self, batch_id: str) -> bool:
        if batch_id in self._batches:
            return False
        self._batches[batch_id] = None
        while len(self._batches) > _REMEMBERED_BATCHES:
            self._batches.popitem(last=False)
        return True

    def _drop_excess(self) -> None:
        while len(self._held) > _MAX_HELD:
            _, counters = self._held.popitem(last=False)
            self.dropped_rows += counters.n
