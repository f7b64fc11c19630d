"""Hands the drift counters on to the pane store from a background thread, every few seconds and once at the end."""

from __future__ import annotations

import threading

import structlog

from recsae.drift.arena import CounterArena
from recsae.drift.panes import PaneStore
from recsae_interpreter.metrics import InterpreterMetrics

_log = structlog.get_logger(__name__)


class PaneFlusher:
    """Flushes one arena until closed."""

    def __init__(self, arena: CounterArena, panes: PaneStore, metrics: InterpreterMetrics, *, period_s: float) -> None:
        """`period_s` is the time between two flushes."""
        self._arena = arena
        self._panes = panes
        self._metrics = metrics
        self._period_s = period_s
        self._lost = 0
        self._failing = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recsae-pane-flusher", daemon=True)

    def start(self) -> PaneFlusher:
        """Starts flushing; returns itself."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Flushes once more and ends the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        try:
            self._arena.flush(self._panes)
            self._failing = False
        except Exception as error:  # what could not be written stays held in the arena, which is bounded
            if not self._failing:
                _log.warning("panes_not_written", exc_info=error)
            self._failing = True
        lost = self._arena.dropped_rows
        self._metrics.observe_lost.inc(lost - self._lost)
        self._lost = lost
