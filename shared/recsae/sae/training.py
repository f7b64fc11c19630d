"""Trains a TopK SAE on activations of any number: the loop, its checkpoints and what it reports.

One straight line: measure the normalisation -> start or resume -> step through shuffled batches -> fold and export.
The same seed, data and thread count give the same bits, also across an interruption. Not here: the mathematics
(`model`, `loss`, `optimiser`), the order of rows (`batches`), held-out scores (`evaluation`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.sae.batches import Normalisation, Rows, ShuffledBatches, evenly_spaced, measure_normalisation
from recsae.sae.checkpoint import TrainingState, load_checkpoint, save_checkpoint, training_identity
from recsae.sae.config import SaeConfig
from recsae.sae.export import TrainingFacts, encoder_graph, export_sae
from recsae.sae.loss import Objective, loss_and_gradient
from recsae.sae.meter import Meter, Progress
from recsae.sae.model import initial_parameters
from recsae.sae.optimiser import Adam
from recsae.sae.runtime import Encoder, decode, relative_error
from recsae.sae.weights import SaeWeights, fold

CHECKPOINT_FILE = "checkpoint.safetensors"
_MEDIAN_ROWS = 16_384
_FACT_ROWS = 131_072  # the 99th percentile of more moves in its third digit


class TrainingStoppedError(Exception):
    """`should_stop` said so; the checkpoint holds everything done so far."""


@dataclass(frozen=True)
class Checkpoints:
    """Where to save the state of training, and how often; one is also saved at the end and when stopped."""

    folder: Path
    every_s: float = 30.0

    @property
    def file(self) -> Path:
        """The one file, replaced each time."""
        return self.folder / CHECKPOINT_FILE


def _silent(progress: Progress) -> None: ...


def _never() -> bool:
    return False


def train_sae(
    rows: Rows,
    config: SaeConfig,
    out: Path,
    *,
    progress: Callable[[Progress], None] = _silent,
    should_stop: Callable[[], bool] = _never,
    checkpoints: Checkpoints | None = None,
    start: SaeWeights | None = None,
) -> TrainingFacts:
    """Trains on `rows` and writes the files of an `sae` artifact into the folder `out`.

    `start` (input units, same width and d) is a warm start: training goes on from that SAE instead of a random one.

    Goes on from the checkpoint when there is one. `progress` is called about twice a second and at the end;
    `should_stop` before every step, and TrainingStoppedError follows. Runs on torch's own thread setting.
    InvalidRequestError when the rows cannot be trained on, FailedPreconditionError when training diverged.
    """
    if rows.d != config.d:
        raise InvalidRequestError(f"activations have length {rows.d}, the configuration says d = {config.d}")
    normalisation = measure_normalisation(rows)
    training = _Training(rows, config, normalisation, checkpoints)
    training.run(progress, should_stop)
    weights = fold(training.state.parameters.weights(normalisation.mean), normalisation.scale)
    facts = _measure_facts(weights, config, rows, normalisation)
    export_sae(weights, config.k, facts, out)
    return facts


def start_state(rows: Rows, config: SaeConfig, normalisation: Normalisation) -> TrainingState:
    """Before the first step."""
    sample = normalisation.apply(evenly_spaced(rows, _MEDIAN_ROWS))
    parameters = initial_parameters(config, torch.from_numpy(sample))
    return TrainingState(parameters, Adam.for_parameters(parameters), torch.zeros(config.width, dtype=torch.int64))


class _Training:
    """One run, from wherever its state stands to the last step."""

    def __init__(self, rows: Rows, config: SaeConfig, normalisation: Normalisation, checkpoints: Checkpoints | None):
        self._config, self._normalisation, self._checkpoints = config, normalisation, checkpoints
        self._identity = training_identity(config, rows)
        saved = load_checkpoint(checkpoints.file, self._identity) if checkpoints else None
        self.state = saved or start_state(rows, config, normalisation)
        self._batches = ShuffledBatches(rows, config.batch_size, config.buffer_rows, config.seed)
        self._steps = config.epochs * self._batches.per_epoch
        self._objective = Objective(config.k, config.aux_k, config.aux_alpha, config.batch_size)
        self._scratch = torch.empty(config.batch_size, config.width)

    def run(self, progress: Callable[[Progress], None], should_stop: Callable[[], bool]) -> None:
        """Steps to the end; saves now and then, when told to stop, and at the end."""
        meter, saved_at = Meter(self._steps, self.state.step), time.monotonic()
        for batch in self._batches.from_step(self.state.step, self._steps):
            if should_stop():
                self._save()
                raise TrainingStoppedError(f"stopped after {self.state.step} of {self._steps} steps")
            self._step(batch, meter)
            if meter.due or self.state.step == self._steps:
                progress(self._checked(meter.report()))
            if self._checkpoints and time.monotonic() - saved_at >= self._checkpoints.every_s:
                self._save()
                saved_at = time.monotonic()
        self._save()

    def _step(self, batch: NDArray[np.float32], meter: Meter) -> None:
        state, config = self.state, self._config
        x = torch.from_numpy(self._normalisation.apply(batch))
        dead = state.idle_rows >= config.dead_after
        result = loss_and_gradient(state.parameters, x, dead, self._objective, self._scratch[: len(x)])
        state.adam.step(state.parameters, result.gradient, config.learning_rate_at(state.step, self._steps))
        state.idle_rows.add_(len(x)).masked_fill_(result.fired, 0)
        state.step += 1
        meter.add(result.terms, int(dead.sum()))

    def _checked(self, report: Progress) -> Progress:
        if not np.isfinite(report.fvu):
            raise FailedPreconditionError(
                f"training diverged before step {report.step}; lower learning_rate (it is {self._config.learning_rate})"
            )
        return report

    def _save(self) -> None:
        if self._checkpoints:
            save_checkpoint(self._checkpoints.file, self.state, self._identity)


def _measure_facts(weights: SaeWeights, config: SaeConfig, rows: Rows, normalisation: Normalisation) -> TrainingFacts:
    encoder = Encoder(encoder_graph(weights, config.k), d=config.d, width=config.width, k=config.k)
    x = evenly_spaced(rows, _FACT_ROWS)
    codes = encoder.encode(x)
    x_hat = decode(codes, weights.w_dec, weights.b_dec)
    error, spread = np.square(x - x_hat, dtype=np.float64), np.square(x - weights.mean, dtype=np.float64)
    return TrainingFacts(
        error_p99=float(np.percentile(relative_error(x, x_hat, weights.mean), 99)),
        mean_norm=normalisation.mean_norm,
        scores={
            "train_fvu": float(error.sum() / spread.sum()),
            "train_dead": float((codes.firing_counts(config.width) == 0).mean()),
            "train_rows": float(rows.n),
        },
        config=config.as_dict(),
    )
