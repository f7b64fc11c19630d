"""What every contender is asked for, and the schedule all of them follow. No library is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Rows without a firing after which a latent counts as dead and AuxK begins: the default of dictionary-learning and of
# eai-sparsify. It is never reached here, so every contender is timed and scored on the same loss, without AuxK.
DEAD_AFTER = 10_000_000
WARM_UP_SHARE = 0.1


@dataclass(frozen=True)
class Task:
    """One SAE to train: shape, `steps` of `batch` rows, and the peak learning `rate`.

    The rate rises linearly over the first tenth of the steps and falls linearly to 0 at the last one. Every library
    has this schedule; each contender uses its own implementation of it.
    """

    d: int
    width: int
    k: int
    batch: int
    steps: int
    rate: float
    seed: int = 0

    @property
    def warm_up(self) -> int:
        """Steps the rate rises for."""
        return max(1, round(WARM_UP_SHARE * self.steps))

    def rate_at(self, step: int) -> float:
        """The rate of step `step`, counted from 0, for contenders that bring no scheduler."""
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        return self.rate * max(0, self.steps - step) / max(1, self.steps - self.warm_up)


class Contender(Protocol):
    """An SAE in training. A module makes one with a function `Task -> Contender`."""

    @property
    def flags(self) -> str:
        """What the arithmetic is, and the CPU features it relies on, such as "int8 nomination, avx512_vnni"."""

    def step(self, x: Floats) -> None:
        """One training step on rows `x` [batch, d] of mean square norm 1; everything a user pays for is in it."""

    def reconstruct(self, x: Floats) -> Floats:
        """x_hat [n, d], in the units of `x`, with k latents per row."""

    def fired(self, x: Floats) -> NDArray[np.bool_]:
        """Which latents fire on any of the rows: [width]."""
