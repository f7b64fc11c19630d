"""Stage train: the SAE on the rows of its own users, in a subprocess that this step owns.

The subprocess checkpoints into the run's scratch folder, so the next attempt goes on where the last one died.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recsae.pipeline.advance import StepResult
from recsae.pipeline.lanes import Lane, lane_of
from recsae.pipeline.owned_process import run_owned
from recsae.pipeline.stages.material import Part, Plan, read_plan, shard_file
from recsae.pipeline.steps import StepContext
from recsae.store.files import write_json_atomic


def sae_folder(lane: Lane) -> str:
    """Where the trained SAE lies in the work folder."""
    return f"{lane.stage('train')}/sae"


def train(context: StepContext) -> StepResult:
    """The whole stage."""
    lane = lane_of(context.step.stage, context.run.config)
    plan = read_plan(context.workspace, lane)
    out = context.workspace.scratch(f"{context.step.stage}/out")
    job = context.workspace.scratch(f"{context.step.stage}/job.json")
    write_json_atomic(job, _job(context, lane, plan, str(out)))

    def on_event(event: Mapping[str, Any]) -> None:
        if event.get("event") == "progress":
            context.report(str(event["detail"]), float(event["done"]))

    done = run_owned([*context.platform.train_command, str(job)], context.lease, on_event, {})
    context.workspace.put_folder(sae_folder(lane), out / "sae")
    scores = {str(name): float(value) for name, value in done["scores"].items()}
    named = {f"{lane.prefix}sae.{name}": value for name, value in scores.items()}
    return StepResult(named, {"config": done["config"], "resumed_from": done["resumed_from"]}, str(done["detail"]))


def _job(context: StepContext, lane: Lane, plan: Plan, out: str) -> dict[str, Any]:
    config = context.run.config.completed(plan.model.dim)
    # Items too: an SAE that never saw single-item histories leaves latents dead over items (docs/method.md, section 1).
    shards = [shard for shard in plan.shards if shard.part in (Part.SAE, Part.ITEMS)]
    return {
        "shards": [str(context.workspace.fetch(shard_file(lane, shard.name))) for shard in shards],
        "dim": plan.model.dim,
        "width": config.width,
        "k": config.k,
        "epochs": config.epochs,
        "seed": config.seed,
        "hook": plan.model.hook,
        "model": plan.model.name,
        "model_version": plan.model.version,
        "threads": context.platform.train_threads,
        "checkpoint_every_s": context.platform.checkpoint_every_s,
        "out": out,
    }
