"""SplitMix64: a number that looks random, made of another one, the same on every machine. Pure numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def splitmix64(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step for each entry, any shape (Steele, Lea and Flood 2014, OOPSLA); overflow is meant."""
    z = value + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed
