"""Trains an SAE on activations of any number: the loop, its checkpoints and what it reports.

One straight line: measure the normalisation -> start or resume -> step through shuffled batches -> fold and export.
The same seed, data, engine and thread count give the same bits, also across an interruption. Not here: the mathematics
(`model`, `loss`, `optimiser`), how it runs (`engine`), the order of rows (`batches`), held-out scores (`evaluation`).
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
from recsae.sae.checkpoint import load_checkpoint, save_checkpoint, training_identity
from recsae.sae.config import SaeConfig
from recsae.sae.engine import open_engine
from recsae.sae.execution import Execution
from recsae.sae.export import TrainingFacts, encoder_graph, export_sae
from recsae.sae.meter import Meter, Progress
from recsae.sae.model import Parameters, initial_parameters
from recsae.sae.ranks import Alone, Ranks
from recsae.sae.runtime import Encoder, decode, relative_error
from recsae.sae.state import TrainingState
from recsae.sae.weights import SaeWeights, fold, unfold

CHECKPOINT_FILE = "checkpoint.safetensors"
_MEDIAN_ROWS = 16_384
_FACT_ROWS = 131_072  # the 99th percentile of more moves in its third digit
_WORTHLESS_FVU = 10.0  # a start of random latents has up to 4; only a diverged training ends above
_ANY_CPU = Execution()
_ALONE = Alone()


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
    execution: Execution = _ANY_CPU,
    ranks: Ranks = _ALONE,
) -> TrainingFacts:
    """Trains on `rows` and writes the files of an `sae` artifact into the folder `out`.

    `start` (input units, same width and d) is a warm start: training goes on from that SAE instead of a random one.
    Goes on from the checkpoint when there is one. `progress` is called about twice a second and at the end;
    `should_stop` before every step, and TrainingStoppedError follows. Sets torch's threads when `execution` names a
    number. Of several `ranks`, which all call this with the
    same arguments, the first one saves and writes. InvalidRequestError when the rows cannot be trained on,
    FailedPreconditionError when training diverged or this machine cannot run what `execution` asks for.
    """
    if execution.threads:
        torch.set_num_threads(execution.threads)
    if rows.d != config.d:
        raise InvalidRequestError(f"activations have length {rows.d}, the configuration says d = {config.d}")
    normalisation = measure_normalisation(rows)
    identity = training_identity(config, rows, start)
    state = load_checkpoint(checkpoints.file, identity) if checkpoints else None
    state = state or start_state(rows, config, normalisation, start)
    training = _Training(rows, config, normalisation, state, execution, ranks)

    def save() -> None:
        if checkpoints and ranks.rank == 0:
            save_checkpoint(checkpoints.file, training.state, identity)

    try:
        training.run(progress, should_stop, save, checkpoints.every_s if checkpoints else float("inf"))
    finally:
        training.close()
    weights = fold(training.state.parameters.weights(normalisation.mean), normalisation.scale)
    return _finish(weights, config, rows, normalisation, out if ranks.rank == 0 else None)


def start_state(
    rows: Rows, config: SaeConfig, normalisation: Normalisation, start: SaeWeights | None = None
) -> TrainingState:
    """Before the first step: random, or the SAE to go on from."""
    if start is None:
        sample = normalisation.apply(evenly_spaced(rows, _MEDIAN_ROWS))
        return TrainingState.start(initial_parameters(config, torch.from_numpy(sample)))
    if start.width != config.width:
        raise InvalidRequestError(
            f"the SAE to start from has {start.width} latents, the configuration says {config.width}; use the same"
        )
    return TrainingState.start(Parameters.of(unfold(start, normalisation.mean, normalisation.scale)))


class _Training:
    """One run, from wherever its state stands to the last step."""

    def __init__(
        self,
        rows: Rows,
        config: SaeConfig,
        normalisation: Normalisation,
        state: TrainingState,
        execution: Execution,
        ranks: Ranks,
    ) -> None:
        self._config, self._normalisation, self._ranks = config, normalisation, ranks
        self._engine = open_engine(state, config, execution, ranks)
        self._batches = ShuffledBatches(rows, config.batch_size, config.buffer_rows, config.seed)
        self._steps = config.epochs * self._batches.per_epoch

    @property
    def state(self) -> TrainingState:
        return self._engine.state

    def close(self) -> None:
        self._engine.close()

    def run(
        self,
        progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        save: Callable[[], None],
        save_every_s: float,
    ) -> None:
        """Steps to the end; saves now and then, when told to stop, and at the end."""
        meter, saved_at = Meter(self._steps, self.state.step), time.monotonic()
        for batch in self._batches.from_step(self.state.step, self._steps):
            if should_stop():
                save()
                raise TrainingStoppedError(f"stopped after {self.state.step} of {self._steps} steps")
            self._step(batch, meter)
            if meter.due or self.state.step == self._steps:
                progress(self._checked(meter.report()))
            if time.monotonic() - saved_at >= save_every_s:
                save()
                saved_at = time.monotonic()
        save()

    def _step(self, batch: NDArray[np.float32], meter: Meter) -> None:
        x = self._normalisation.apply(self._ranks.part(batch))
        step = self._engine.gradient(x)
        self._engine.follow(step, self._config.learning_rate_at(self.state.step, self._steps))
        meter.add(step.terms)

    def _checked(self, report: Progress) -> Progress:
        # A latent whose encoder is NaN only falls silent, so that the loss alone would not tell.
        parameters = self.state.parameters.tensors().values()
        if not np.isfinite(report.fvu) or not all(bool(tensor.isfinite().all()) for tensor in parameters):
            raise FailedPreconditionError(
                f"training diverged before step {report.step}; lower learning_rate (it is {self._config.learning_rate})"
            )
        return report


def _finish(
    weights: SaeWeights, config: SaeConfig, rows: Rows, normalisation: Normalisation, out: Path | None
) -> TrainingFacts:
    """Measures what using the SAE takes to know, and writes it to `out` when there is one."""
    x = evenly_spaced(rows, _FACT_ROWS)
    threshold = _threshold(weights, config, x) if config.variant == "batchtopk" else 0.0
    graph = encoder_graph(weights, config.slots, threshold)
    codes = Encoder(graph, d=config.d, width=config.width, slots=config.slots).encode(x)
    x_hat = decode(codes, weights.w_dec, weights.b_dec)
    error, spread = np.square(x - x_hat, dtype=np.float64), np.square(x - weights.mean, dtype=np.float64)
    fvu = float(error.sum() / spread.sum())
    if fvu > _WORTHLESS_FVU:
        raise FailedPreconditionError(
            f"training ended with FVU {fvu:.3g}, far worse than the mean alone (1); lower learning_rate (it is "
            f"{config.learning_rate})"
        )
    facts = TrainingFacts(
        error_p99=float(np.percentile(relative_error(x, x_hat, weights.mean), 99)),
        mean_norm=normalisation.mean_norm,
        scores={
            "train_fvu": fvu,
            "train_dead": float((codes.firing_counts(config.width) == 0).mean()),
            "train_rows": float(rows.n),
        },
        config=config.as_dict(),
    )
    if out is not None:
        export_sae(weights, config.k, facts, out, slots=config.slots, threshold=threshold)
    return facts


def _threshold(weights: SaeWeights, config: SaeConfig, x: NDArray[np.float32]) -> float:
    """The value above which k latents of a row fire on average: what stands for the batch at inference."""
    encoder = Encoder(encoder_graph(weights, config.slots), d=config.d, width=config.width, slots=config.slots)
    values = encoder.encode(x).values.reshape(-1)
    beyond = values.size - config.k * len(x)
    return float(np.partition(values, beyond - 1)[beyond - 1]) if beyond > 0 else 0.0
