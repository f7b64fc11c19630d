"""The record of a run, a refresh or a sweep: the one truth about what was asked, where it stands and why it ended.

Pure values and their transitions. Not here: where records are kept (`run_store`, `runs_redis`) and what the
stages do (`stages`).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from recsae.errors import InvalidRequestError
from recsae.pipeline.sweeps import MAX_K, MAX_WIDTH, PointResult, SweepGrid
from recsae.pipeline.triples import Triple
from recsae.recommenders.address import Address, split_address
from recsae.sae.config import VARIANTS

MAX_REASON = 500
_LEAST_WIDTH = 16
# A verdict takes 100 strong firings (`recsae.concepts.thresholds`, which is numeric), about a third of a latent's
# firings are strong, and many latents fire less than the mean one. Tried on MovieLens-1M's BPR-MF, k = 8, with its
# verification users in view: widths 151, 48 and 32 verify 4, 6 and 7 concepts.
_FIRINGS = 300
MAX_LLM_CONCEPTS = 10_000
_VERSION = re.compile(r"[0-9a-f]{16}")
# A model, or one of its further hooks: NAME@HOOK (`recsae.recommenders.address`).
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}(@[A-Za-z0-9][A-Za-z0-9._-]{0,63})?")


class RunState(StrEnum):
    """State of a run or of a stage."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """True when nothing changes any more."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


@dataclass(frozen=True)
class RunConfig:
    """What to train and on what. Zeros stand for defaults until `completed` fills them in.

    `llm_concepts` are described by a language model too, most activation mass first. With a `sweep` the run trains
    every point of that grid instead, and publishes nothing.
    """

    model: str
    dataset_version: str
    width: int = 0
    k: int = 0
    epochs: int = 0
    seed: int = 0
    promote: bool = False
    control_model: str = ""
    variant: str = "topk"
    warm_start: bool = False
    llm_concepts: int = 0
    sweep: SweepGrid | None = None

    def validate(self) -> None:
        """InvalidRequestError names the first field that can never work, with its range."""
        if not _MODEL.fullmatch(self.model):
            raise InvalidRequestError(
                f"model {self.model!r} is not a model name; use letters, digits, '.', '_', '-', and name a hook other "
                "than its first behind an '@'"
            )
        if self.control_model and not _MODEL.fullmatch(self.control_model):
            raise InvalidRequestError(f"control_model {self.control_model!r} is not a model name; leave it empty")
        if self.control_model == self.model:
            raise InvalidRequestError(f"control_model is {self.model!r} too; name the untrained model or none")
        hook, control = split_address(self.model).hook, split_address(self.control_model)
        if self.control_model and control.hook != hook:
            raise InvalidRequestError(
                f"control_model {self.control_model!r} is read at another hook than {self.model!r}; name "
                f"{str(Address(control.model, hook))!r}"
            )
        if not _VERSION.fullmatch(self.dataset_version):
            raise InvalidRequestError(
                f"dataset_version {self.dataset_version!r} is not a version; give the 16 hex digits of a data set"
            )
        for name, low, high in (("width", 16, MAX_WIDTH), ("k", 1, MAX_K), ("epochs", 1, 1_000)):
            value = getattr(self, name)
            if value and not low <= value <= high:
                raise InvalidRequestError(f"{name} {value} is out of range; give {low} to {high}, or 0 for the default")
        if self.width and self.k > self.width:
            raise InvalidRequestError(f"k {self.k} is larger than width {self.width}; choose k <= width")
        if not 0 <= self.seed < 1 << 63:
            raise InvalidRequestError(f"seed {self.seed} is out of range; give 0 to 2^63 - 1")
        if self.variant not in VARIANTS:
            raise InvalidRequestError(f"variant {self.variant!r} is unknown; choose one of {', '.join(VARIANTS)}")
        if not 0 <= self.llm_concepts <= MAX_LLM_CONCEPTS:
            raise InvalidRequestError(
                f"llm_concepts {self.llm_concepts} is out of range; give 1 to {MAX_LLM_CONCEPTS:,}, or 0 for none"
            )
        if self.sweep is not None:
            if self.promote or self.control_model or self.warm_start or self.llm_concepts:
                raise InvalidRequestError(
                    "a sweep promotes nothing, has no control, starts cold and describes nothing; leave those out"
                )
            self.sweep.validate()

    def completed(self, dim: int, judged_rows: int | None = None) -> RunConfig:
        """The configuration for activations of length `dim`: width 4 x d and k = d / 8 where they were left 0.

        With `judged_rows`, rows of verification users, the width is no larger than leaves a latent of mean density 300
        firings, or 4 k. `epochs` stays 0 until the number of rows is known; the train stage chooses
        it.
        """
        if self.sweep is not None:
            return replace(self, sweep=self.sweep.completed(dim))
        k = self.k or min(MAX_K, max(1, dim // 8))
        most = MAX_WIDTH if judged_rows is None else max(_LEAST_WIDTH, 4 * k, k * judged_rows // _FIRINGS)
        width = self.width or min(MAX_WIDTH, most, max(_LEAST_WIDTH, 4 * dim))
        return replace(self, width=width, k=self.k or min(width, k))


@dataclass(frozen=True)
class Stage:
    """Where one stage stands. Times are seconds since the epoch, None until they happened.

    `error` is that of the newest attempt, empty while it runs and when its worker died. `measures` are what the work
    reported last, e.g. of training "activations_per_s", "fvu", "l0", "dead" (latents) and "eta_s".
    """

    name: str
    state: RunState = RunState.QUEUED
    progress: float = 0.0
    detail: str = ""
    started_at: float | None = None
    finished_at: float | None = None
    attempts_by_shard: Mapping[str, int] = field(default_factory=dict)
    error: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)

    @property
    def attempts(self) -> int:
        """Times it was begun: of its shards, the one begun most often."""
        return max(self.attempts_by_shard.values(), default=0)


@dataclass(frozen=True)
class Run:
    """One refresh or sweep. `revision` counts its changes, from 1, and guards every write.

    `points` are those of a sweep that are done, in the grid's order.
    """

    id: str
    config: RunConfig
    stages: tuple[Stage, ...]
    created_at: float
    updated_at: float
    state: RunState = RunState.QUEUED
    reason: str = ""
    triple: Triple = field(default_factory=Triple)
    scores: Mapping[str, float] = field(default_factory=dict)
    revision: int = 0
    points: tuple[PointResult, ...] = ()

    def stage(self, name: str) -> Stage:
        """The stage of that name; KeyError when this run has none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    def with_stage(self, changed: Stage) -> Run:
        """The run with that stage in place of the one of the same name."""
        return replace(self, stages=tuple(changed if stage.name == changed.name else stage for stage in self.stages))


def stage_names(config: RunConfig) -> tuple[str, ...]:
    """Stages of a run in order; the control's stages only when a control model is named."""
    if config.sweep is not None:
        return ("collect", "sweep", "report")
    control = ("control_collect", "control_train", "control_verify") if config.control_model else ()
    llm = ("llm",) if config.llm_concepts else ()
    promote = ("promote",) if config.promote else ()
    # The control comes first: the dictionary's summary states its distance to it.
    return (
        "collect",
        "train",
        "evaluate",
        "evidence",
        *control,
        "describe",
        "verify",
        "causal",
        *llm,
        "publish",
        *promote,
    )


def new_run(config: RunConfig, now: float) -> Run:
    """A queued run with a fresh id, e.g. "r-20261123-2041-7f3a1c"; `now` in seconds since the epoch."""
    config.validate()
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d-%H%M")
    stages = tuple(Stage(name) for name in stage_names(config))
    return Run(f"r-{stamp}-{secrets.token_hex(3)}", config, stages, created_at=now, updated_at=now)


def ended(run: Run, state: RunState, reason: str, now: float) -> Run:
    """The run in a final state; stages at work take that state too. A run already ended comes back unchanged."""
    if run.state.ended:
        return run
    stages = tuple(
        replace(stage, state=state, finished_at=now) if stage.state is RunState.RUNNING else stage
        for stage in run.stages
    )
    return replace(run, state=state, reason=reason[:MAX_REASON], stages=stages)
