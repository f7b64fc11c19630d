"""The sampled log of exposures, written from a thread of its own: it drops and counts, it never blocks a request.

What is offered is a function that makes the record, so that pseudonyms and the lists of shadow policies are computed
off the request's path. Not here: files (`segments`).
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

from recsae.exposures.record import Exposure, to_line
from recsae.exposures.segments import SegmentWriter
from recsae.telemetry.event_log import event_log

_log = event_log(__name__)

_GATHERED_S = 0.5
_SWEEP_S = 600.0
_REPORT_S = 10.0
_CLOSE_S = 10.0
# What held requests may weigh together: a slate of 10,000 pairs has 10 MB of rows.
_MOST_BYTES = 64 << 20

Make = Callable[[], Exposure]


class ExposureLog:
    """A bounded queue of exposures and the thread that writes them."""

    def __init__(
        self,
        segments: SegmentWriter,
        *,
        share: float,
        capacity: int = 1_024,
        most_bytes: int = _MOST_BYTES,
        chance: Callable[[], float] = random.random,
        on_written: Callable[[int], None] = lambda records: None,
        on_dropped: Callable[[str, int], None] = lambda reason, records: None,
    ) -> None:
        """Samples `share` of responses; holds `capacity` of them and `most_bytes` of what they carry, and drops beyond.

        `on_written` and `on_dropped` hear what the counts of this object count.
        """
        self._segments, self._share, self._chance = segments, share, chance
        self._capacity, self._most_bytes = capacity, most_bytes
        self._on_written, self._on_dropped = on_written, on_dropped
        self._queue: deque[tuple[Make, int]] = deque()
        self._held_bytes = 0
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._full = threading.Event()
        self._closed = False
        self._reported_at = -_REPORT_S
        self.written = 0
        """Records on disk."""
        self.dropped: Counter[str] = Counter()
        """Records dropped: `buffer_full`, `write_failed` (the disk did not take them), `error` (it was not made)."""
        self._thread = threading.Thread(target=self._run, name="recsae-exposures", daemon=True)
        self._thread.start()

    def drawn(self) -> bool:
        """Whether to offer this response: true with probability `share`. Costs some 50 ns."""
        return self._chance() < self._share

    def offer(self, make: Make, size: int = 0) -> None:
        """Takes a record to be made and written, which holds `size` bytes until then; never blocks or raises."""
        with self._lock:
            if self._closed or len(self._queue) >= self._capacity or self._held_bytes + size > self._most_bytes:
                self._drop("buffer_full", 1)
                return
            self._queue.append((make, size))
            self._held_bytes += size
            held = len(self._queue)
        if held == 1:
            self._wanted.set()
        if held * 2 >= self._capacity:
            self._full.set()

    def close(self) -> None:
        """Writes what is held and ends the thread."""
        with self._lock:
            self._closed = True
        self._full.set()
        self._wanted.set()
        self._thread.join(timeout=_CLOSE_S)

    def _run(self) -> None:
        self._sweep()
        swept_at = time.monotonic()
        while not self._closed:
            if self._wanted.wait(_SWEEP_S):
                self._full.wait(_GATHERED_S)  # one sync for all that came meanwhile
            self._flush()
            if time.monotonic() - swept_at >= _SWEEP_S:
                self._sweep()
                swept_at = time.monotonic()
        self._flush()
        self._segments.close()

    def _flush(self) -> None:
        with self._lock:
            taken = list(self._queue)
            self._wanted.clear()
            if not self._closed:
                self._full.clear()
            self._queue.clear()
            self._held_bytes = 0
        lines = [line for make, _ in taken if (line := self._line(make))]
        if not lines:
            return
        try:
            self._segments.append(lines)
        except OSError as error:
            self._drop("write_failed", len(lines))
            self._report("exposures_not_written", error)
        else:
            self.written += len(lines)
            self._on_written(len(lines))

    def _line(self, make: Make) -> bytes:
        """The line of a record; b"" when it could not be made."""
        try:
            return to_line(make())
        except Exception as error:
            self._drop("error", 1)
            self._report("exposure_not_made", error)
            return b""

    def _sweep(self) -> None:
        try:
            self._segments.delete_old()
        except OSError as error:
            self._report("exposures_not_deleted", error)

    def _drop(self, reason: str, records: int) -> None:
        self.dropped[reason] += records
        self._on_dropped(reason, records)

    def _report(self, event: str, error: Exception) -> None:
        """Logs at most one failure a period; the counts have each."""
        now = time.monotonic()
        if now - self._reported_at >= _REPORT_S:
            self._reported_at = now
            _log.warning(event, exc_info=error)
