"""One dictionary, one batch: codes, reconstruction and gradients, with buffers used again from batch to batch.

The dictionary is the whole SAE, or, for AuxK, its dead latents alone, made anew as they change. Here rows and latents
are shared among threads; what is computed stands in `selecting` and `reconstructing`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.sae.execution import nominated
from recsae.sae.fast.reconstructing import accumulate_latents, make_fired, make_turned, reconstruct_rows, stretch_of
from recsae.sae.fast.scoring import Floats, make_panels, make_scratch, pack
from recsae.sae.fast.selecting import select_rows
from recsae.sae.fast.team import Team


@dataclass(frozen=True)
class LatentRows:
    """Parameters of latents, or their gradients: `w_enc`, `w_dec` [w, d], `b_enc` [w]."""

    w_enc: Floats
    b_enc: Floats
    w_dec: Floats

    def take(self, latents: NDArray[np.int64]) -> LatentRows:
        """Copies of some."""
        return LatentRows(self.w_enc[latents], self.b_enc[latents], self.w_dec[latents])


class BatchPass:
    """Call `pack` when the encoder changed, then `select`, `reconstruct` and `accumulate` for each batch.

    `rows` [n, 1 + g, d] and `squared_errors` float64 [n] are as in `reconstructing`, `indices` and `values` [n, slots]
    the codes, `gradient` and `firings` int64 [w] what the batch adds up to.
    """

    def __init__(self, team: Team, latents: LatentRows, slots: int, prefixes: NDArray[np.int64], *, int8: bool) -> None:
        """`prefixes` int64 [g], rising to the number of latents."""
        width, d = latents.w_enc.shape
        self._team, self._latents, self._prefixes, self._slots = team, latents, prefixes, slots
        self._wanted = nominated(slots) if int8 else slots
        self._panels = make_panels(width, d, int8=int8)
        self._scratch = [make_scratch(width, d) for _ in range(team.threads)]
        self._fired = [make_fired(slots, len(prefixes), d) for _ in range(team.threads)]
        self.gradient = LatentRows(*(np.empty_like(array) for array in (latents.w_enc, latents.b_enc, latents.w_dec)))
        self.firings = np.zeros(width, np.int64)
        self._buffers = _Buffers(0, len(prefixes), latents.w_enc, slots, team.threads)

    def pack(self, begin: int, end: int) -> None:
        """Takes over latents begin..end-1 of the encoder."""
        pack(self._panels, self._latents.w_enc, self._latents.b_enc, begin, end)

    def select(self, source: Floats, b_dec: Floats) -> None:
        """Centres slot 0 of `source` [n, s, d] around `b_dec` [d] and finds the codes of its rows."""
        n = len(source)
        if n > self._buffers.n:
            self._buffers = _Buffers(n, len(self._prefixes), self._latents.w_enc, self._slots, self._team.threads)
        held = self._buffers
        self.rows, self.indices, self.values = held.rows[:n], held.indices[:n], held.values[:n]
        self._slopes, self.squared_errors = held.slopes[:n], held.squared_errors[:n]

        def work(worker: int, begin: int, end: int) -> None:
            select_rows(
                source, 0, b_dec, begin, end, self._panels, self._latents.w_enc, self._latents.b_enc, self._wanted,
                self._scratch[worker], self.rows, self.indices, self.values,
            )  # fmt: skip

        self._team.share(n, work)

    def reconstruct(self, target: Floats, slot: int, factor: float, scale: float) -> None:
        """Decodes, with `factor` times `slot` of `target` [n, s, d] as what is to be reconstructed.

        `scale` is the gradient of the loss by an output over its error.
        """

        def work(worker: int, begin: int, end: int) -> None:
            reconstruct_rows(
                target, slot, np.float32(factor), begin, end, self.indices, self.values, self._latents.w_dec,
                self._prefixes, np.float32(scale), self._fired[worker], self.rows, self._slopes, self.squared_errors,
            )  # fmt: skip

        self._team.share(len(self.rows), work)

    def accumulate(self) -> None:
        """Adds up the gradients of every latent over the batch."""
        stretch = self._buffers.stretch

        def work(worker: int, begin: int, end: int) -> None:
            accumulate_latents(
                self.rows, self.indices, self.values, self._slopes, self._prefixes, begin, end, stretch,
                self._buffers.turned[worker], self.gradient.w_enc, self.gradient.b_enc, self.gradient.w_dec,
                self.firings,
            )  # fmt: skip

        self._team.share(len(self.firings), work)


class _Buffers:
    """For up to `n` rows. Made once: fresh memory costs a page fault per 4 KiB, as much as the arithmetic on it."""

    def __init__(self, n: int, groups: int, w_enc: Floats, slots: int, threads: int) -> None:
        self.n = n
        width, d = w_enc.shape
        self.rows = np.empty((n, 1 + groups, d), np.float32)
        self.indices = np.empty((n, slots), np.int32)
        self.values = np.empty((n, slots), np.float32)
        self.slopes = np.empty((n, slots), np.float32)
        self.squared_errors = np.empty(n, np.float64)
        self.stretch = stretch_of(width, slots, 4 * (1 + groups) * d)
        self.turned = [make_turned(min(n, self.stretch), slots, width) for _ in range(threads)]
