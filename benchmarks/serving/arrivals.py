"""When the calls of an open-loop load are due: independent of how fast the server answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def poisson_arrivals(rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Times in seconds from the start, rising, of a Poisson process: what independent users look like."""
    random = np.random.default_rng(seed)
    # More gaps than will be needed, for all but one seed in millions.
    expected = rate * seconds
    gaps = random.exponential(1 / rate, int(expected + 6 * np.sqrt(expected) + 10))
    times = np.cumsum(gaps)
    return times[times < seconds]
