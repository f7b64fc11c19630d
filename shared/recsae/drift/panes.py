"""Panes: counters cut by time, one sum per pane over all replicas that contributed to it.

A replica adds a contribution under an id of its own, so a repeated write counts once and contributions of several
replicas never overwrite each other. Panes expire, and each holds a bounded number of contributions. Not here: the
Redis store (`panes_redis`).
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import Protocol

from recsae.drift.counters import ConceptCounters, Series, merged

PANE_S = 30
RETENTION_S = 2 * 3600
# 20 replicas that flush every 5 s; what comes beyond is refused and counted by the sender.
MAX_CONTRIBUTIONS = 128


@dataclass(frozen=True)
class Pane:
    """What was seen in one span: from `start_s`, seconds since the epoch, for `PANE_S`."""

    start_s: int
    counters: ConceptCounters


class PaneStore(Protocol):
    """Where panes live."""

    def add(self, series: Series, counters: ConceptCounters, at: float, contribution: str) -> bool:
        """Adds to the pane of time `at` (seconds since the epoch); the same contribution id counts once.

        False when that pane is full and the contribution was dropped.
        """

    def read(self, series: Series, since: float, until: float) -> list[Pane]:
        """Panes that start in [since, until), oldest first; panes nobody contributed to are absent."""

    def series(self, model: str) -> list[Series]:
        """Every series of a model seen within the retention, in a fixed order."""


class InMemoryPaneStore:
    """A store for tests and single-process use; forgets panes older than the newest by `RETENTION_S`."""

    def __init__(self) -> None:
        """Starts empty."""
        self._panes: dict[tuple[Series, int], dict[str, bytes]] = defaultdict(dict)
        self._lock = threading.Lock()

    def add(self, series: Series, counters: ConceptCounters, at: float, contribution: str) -> bool:
        """See `PaneStore`."""
        start = pane_start(at)
        with self._lock:
            pane = self._panes[series, start]
            if contribution not in pane and len(pane) >= MAX_CONTRIBUTIONS:
                return False
            pane.setdefault(contribution, counters.to_bytes())
            for key in [key for key in self._panes if key[1] < start - RETENTION_S]:
                del self._panes[key]
        return True

    def read(self, series: Series, since: float, until: float) -> list[Pane]:
        """See `PaneStore`."""
        with self._lock:
            found = {
                start: list(pane.values())
                for (owner, start), pane in self._panes.items()
                if owner == series and since <= start < until and pane
            }
        return [pane_of(start, found[start]) for start in sorted(found)]

    def series(self, model: str) -> list[Series]:
        """See `PaneStore`."""
        with self._lock:
            return in_order({series for series, _ in self._panes if series.model == model})


def pane_start(at: float) -> int:
    """Start, in whole seconds since the epoch, of the pane that holds time `at`."""
    return int(at // PANE_S) * PANE_S


def pane_of(start_s: int, contributions: list[bytes]) -> Pane:
    """The pane that is the sum of its contributions, at least one."""
    parts = [ConceptCounters.from_bytes(data) for data in contributions]
    return Pane(start_s, merged(parts, parts[0].width))


def in_order(series: set[Series]) -> list[Series]:
    """Series sorted by their fields."""
    return sorted(series, key=lambda one: (one.sae_version, one.segment, one.steered))
