"""What training reports while it runs: speed, FVU, L0, dead latents, time left."""

from __future__ import annotations

import time
from dataclasses import dataclass

from recsae.sae.step import LossTerms

_REPORT_EVERY_S = 0.5


@dataclass(frozen=True)
class Progress:
    """Where training stands after `step` of `steps`.

    `fvu`, `l0` and `aux` (AuxK, 0 while nothing is dead) are of the rows since the last report, before each step;
    `dead` latents have not fired for `SaeConfig.dead_after` rows; `eta_s` assumes the speed so far.
    """

    step: int
    steps: int
    rows_per_s: float
    fvu: float
    l0: float
    aux: float
    dead: int
    eta_s: float

    @property
    def share(self) -> float:
        """Done share, 0 to 1."""
        return self.step / self.steps


class Meter:
    """Adds up batches between two reports."""

    def __init__(self, steps: int, step: int) -> None:
        """`step` of `steps` are done already."""
        self._steps, self._first, self._step = steps, step, step
        self._began = self._reported = time.monotonic()
        self._dead = 0
        self._clear()

    @property
    def due(self) -> bool:
        """True about twice a second."""
        return time.monotonic() - self._reported >= _REPORT_EVERY_S

    def add(self, terms: LossTerms) -> None:
        """Counts one batch."""
        self._step += 1
        self._batches += 1
        self._rows += terms.rows
        self._squared_error += terms.squared_error
        self._firings += terms.firings
        self._aux += terms.aux
        self._dead = terms.dead

    def report(self) -> Progress:
        """What was added since the last report."""
        now = time.monotonic()
        per_step_s = (now - self._began) / max(1, self._step - self._first)
        report = Progress(
            step=self._step,
            steps=self._steps,
            rows_per_s=self._rows / max(1e-9, now - self._reported),
            fvu=self._squared_error / max(1, self._rows),
            l0=self._firings / max(1, self._rows),
            aux=self._aux / max(1, self._batches),
            dead=self._dead,
            eta_s=per_step_s * (self._steps - self._step),
        )
        self._reported = now
        self._clear()
        return report

    def _clear(self) -> None:
        self._rows = self._batches = self._firings = 0
        self._squared_error = self._aux = 0.0
