"""Training one SAE in a subprocess that the step owns: the job it gets, and what it reports.

The subprocess checkpoints into the run's scratch folder, so the next attempt goes on where the last one died. Used by
the stages `train` and `sweep`. Not here: what is done with the SAE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from recsae.pipeline.lanes import Lane
from recsae.pipeline.owned_process import run_owned
from recsae.pipeline.stages.material import Plan, fetch_shard
from recsae.pipeline.stages.run_data import Part
from recsae.pipeline.steps import StepContext
from recsae.store.files import write_json_atomic

# What a progress event measures, in base units: activations a second, FVU, latents per row, latents, seconds.
MEASURES = ("activations_per_s", "fvu", "l0", "dead", "eta_s")


@dataclass(frozen=True)
class SaeRequest:
    """Which SAE to train; 0 stands for the default. `start`: folder of an SAE to go on from, None = a cold start."""

    width: int
    k: int
    variant: str
    epochs: int
    seed: int
    start: Path | None = None


@dataclass(frozen=True)
class Trained:
    """A trained SAE: its folder, which is scratch, and what the subprocess said at the end."""

    folder: Path
    scores: Mapping[str, float]
    config: Mapping[str, Any]
    resumed_from: int
    measures: Mapping[str, float]
    detail: str


def train_owned(
    context: StepContext,
    lane: Lane,
    plan: Plan,
    request: SaeRequest,
    *,
    scratch: str,
    report: Callable[[str, float, Mapping[str, float]], None],
) -> Trained:
    """Trains in the scratch folder `scratch`; `report` hears detail, done share and measures about twice a second.

    FailedPreconditionError when training this can never work, SubprocessFailedError when it may work again.
    """
    out = context.workspace.scratch(f"{scratch}/out")
    job = context.workspace.scratch(f"{scratch}/job.json")
    write_json_atomic(job, training_job(context, lane, plan, request, out))

    def on_event(event: Mapping[str, Any]) -> None:
        if event.get("event") == "progress":
            report(str(event["detail"]), float(event["done"]), measures_of(event))

    done = run_owned([*context.platform.train_command, str(job)], context.lease, on_event, {})
    measures = measures_of(done)
    context.change_stage(lambda stage: replace(stage, measures=measures))  # the last report may be a second old
    return Trained(
        folder=out / "sae",
        scores={str(name): float(value) for name, value in done["scores"].items()},
        config=done["config"],
        resumed_from=int(done["resumed_from"]),
        measures=measures,
        detail=str(done["detail"]),
    )


def training_job(context: StepContext, lane: Lane, plan: Plan, request: SaeRequest, out: Path) -> dict[str, Any]:
    """What the subprocess reads, as JSON types."""
    # Items too: an SAE that never saw single-item histories leaves latents dead over items (docs/method.md, section 1).
    shards = [shard for shard in plan.shards if shard.part in (Part.SAE, Part.ITEMS)]
    return {
        "shards": [str(fetch_shard(context.workspace, lane, shard.name)) for shard in shards],
        "width": request.width,
        "k": request.k,
        "variant": request.variant,
        "epochs": request.epochs,
        "seed": request.seed,
        "start": str(request.start or ""),
        "execution": asdict(context.platform.execution),
        "processes": context.platform.train_processes,
        "checkpoint_every_s": context.platform.checkpoint_every_s,
        "out": str(out),
    }


def measures_of(event: Mapping[str, Any]) -> dict[str, float]:
    """The measures of an event; those it does not know are left out."""
    return {name: float(event[name]) for name in MEASURES if event.get(name) is not None}
