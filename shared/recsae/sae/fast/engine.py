"""The fast engine: one step of training by compiled functions, over rows and then over latents.

Rows: centre -> score -> keep k -> decode -> error, gradients of the values. Latents: add up each one's gradients over
the rows it fires in -> (all ranks) -> Adam, unit norm -> panels of the next step. AuxK goes the same way with the dead
latents as the dictionary and the error as the target. Threads share rows and latents, and their parts do not meet:
the bits do not depend on their number.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError
from recsae.sae.config import SaeConfig
from recsae.sae.fast.batch import BatchPass, LatentRows
from recsae.sae.fast.scoring import Floats
from recsae.sae.fast.team import Team
from recsae.sae.fast.updating import update_latents
from recsae.sae.fast.vectors import INT8
from recsae.sae.model import Parameters, drop_beyond_batch
from recsae.sae.optimiser import BETA1, BETA2, EPSILON, adam_tensor, step_sizes
from recsae.sae.ranks import Ranks
from recsae.sae.state import TrainingState
from recsae.sae.step import LossTerms, Step

_LATENT_FIELDS = ("w_enc", "b_enc", "w_dec")


class FastEngine:
    """See `recsae.sae.engine.Engine`. Changes the tensors of `state` in place."""

    def __init__(self, state: TrainingState, config: SaeConfig, ranks: Ranks, *, int8: bool, threads: int) -> None:
        """FailedPreconditionError when `int8` is asked of a CPU without the instruction."""
        if int8 and not INT8:
            raise FailedPreconditionError("int8 nomination needs a CPU with AVX-512 VNNI; choose exact nomination")
        self.state, self._config, self._ranks = state, config, ranks
        self._team = Team(threads)
        self._latents = LatentRows(*(getattr(state.parameters, name).numpy() for name in _LATENT_FIELDS))
        self._live = BatchPass(self._team, self._latents, config.slots, np.array(config.prefixes), int8=int8)
        self._live.pack(0, config.width)

    def close(self) -> None:
        """See `Engine`."""
        self._team.close()

    def gradient(self, x: Floats) -> Step:
        """See `Engine`."""
        config, state, live = self._config, self.state, self._live
        dead = np.flatnonzero(state.dead(config.dead_after).numpy())
        scale = -2.0 / (config.batch_size * len(config.prefixes))
        live.select(x[:, None], state.parameters.b_dec.numpy())
        if config.variant == "batchtopk":
            drop_beyond_batch(torch.from_numpy(live.values), config.k)
        live.reconstruct(live.rows, 0, 1.0, scale)
        live.accumulate()
        sums = torch.tensor([len(x), live.squared_errors.sum(), live.firings.sum()], dtype=torch.float64)
        self._ranks.add(sums)
        rows, squared_error, firings = sums.tolist()
        aux = self._aux(dead, squared_error, 1.0 / scale) if len(dead) and config.aux_alpha > 0 else 0.0
        gradient = Parameters(
            **{name: torch.from_numpy(getattr(live.gradient, name)) for name in _LATENT_FIELDS},
            b_dec=torch.from_numpy(live.rows[:, 1].sum(axis=0)),
        )
        gradient.b_dec.sub_(gradient.b_enc @ state.parameters.w_enc)  # every preactivation reads x - b_dec
        fired = torch.from_numpy(live.firings)
        self._ranks.add(*gradient.tensors().values(), fired)
        return Step(LossTerms(int(rows), squared_error, int(firings), aux, len(dead)), gradient, fired)

    def follow(self, step: Step, learning_rate: float) -> None:
        """See `Engine`."""
        state, gradient = self.state, step.gradient
        state.adam.steps += 1
        rate, correction = step_sizes(learning_rate, state.adam.steps)
        first, second = state.adam.first, state.adam.second
        adam_tensor(state.parameters.b_dec, gradient.b_dec, first.b_dec, second.b_dec, rate, correction)
        groups = (state.parameters, gradient, first, second)
        arrays = [getattr(group, name).numpy() for group in groups for name in _LATENT_FIELDS]
        numbers = [np.float32(value) for value in (BETA1, BETA2, rate, correction, EPSILON)]

        def work(_: int, begin: int, end: int) -> None:
            update_latents(begin, end, *arrays, *numbers)
            self._live.pack(begin, end)

        self._team.share(self._config.width, work)
        state.count(step)

    def _aux(self, dead: NDArray[np.int64], squared_error: float, unscale: float) -> float:
        """Adds alpha times AuxK's gradient (see `recsae.sae.loss`) to the batch's; returns AuxK."""
        config, live = self._config, self._live
        some = self._latents.take(dead)
        aux = BatchPass(self._team, some, min(config.aux_k, len(dead)), np.array([len(dead)]), int8=False)
        aux.pack(0, len(dead))
        aux.select(live.rows, np.zeros(config.d, np.float32))
        total = max(squared_error, float(np.finfo(np.float32).tiny))
        # The last slot of `rows` is the error of the whole width, scaled.
        aux.reconstruct(live.rows, len(config.prefixes), unscale, -2.0 * config.aux_alpha / total)
        aux.accumulate()
        for name in _LATENT_FIELDS:
            getattr(live.gradient, name)[dead] += getattr(aux.gradient, name)
        missed = torch.tensor([aux.squared_errors.sum()], dtype=torch.float64)
        self._ranks.add(missed)
        return float(missed) / total
