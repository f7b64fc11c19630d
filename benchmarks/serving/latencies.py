"""A histogram of latencies in logarithmic buckets, as HdrHistogram keeps them: bounded memory, relative error known."""

from __future__ import annotations

import math

import numpy as np

_LEAST_S, _MOST_S = 1e-6, 1_000.0
_GROWTH = 1.02  # every value is known to 1 %
_LOG_GROWTH = math.log(_GROWTH)
_BUCKETS = int(math.log(_MOST_S / _LEAST_S) / _LOG_GROWTH) + 2


class LatencyHistogram:
    """Counts of latencies from 1 us to 1,000 s; what lies outside counts as the nearest end. One thread records."""

    def __init__(self) -> None:
        """Empty."""
        self._counts = np.zeros(_BUCKETS, np.int64)

    def __len__(self) -> int:
        """Latencies recorded."""
        return int(self._counts.sum())

    def record(self, seconds: float) -> None:
        """Counts one."""
        place = int(math.log(max(seconds, _LEAST_S) / _LEAST_S) / _LOG_GROWTH)
        self._counts[min(place, _BUCKETS - 1)] += 1

    def quantile(self, share: float) -> float:
        """The latency in seconds that `share` of those recorded do not exceed, to 1 %; NaN when there are none."""
        if not len(self):
            return math.nan
        rank = max(1, math.ceil(share * len(self)))
        place = int(np.searchsorted(np.cumsum(self._counts), rank))
        return _LEAST_S * math.exp((place + 0.5) * _LOG_GROWTH)
