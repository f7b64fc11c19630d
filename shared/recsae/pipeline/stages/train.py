"""Stage train: the SAE on the rows of its own users, in a subprocess that this step owns (`training`)."""

from __future__ import annotations

from collections.abc import Mapping

from recsae.pipeline.advance import StepResult
from recsae.pipeline.lanes import Lane, lane_of
from recsae.pipeline.stages.material import read_plan
from recsae.pipeline.stages.training import SaeRequest, train_owned
from recsae.pipeline.stages.warm_start import start_folder, start_of
from recsae.pipeline.steps import StepContext


def sae_folder(lane: Lane) -> str:
    """Where the trained SAE lies in the work folder."""
    return f"{lane.stage('train')}/sae"


def train(context: StepContext) -> StepResult:
    """The whole stage."""
    lane = lane_of(context.step.stage, context.run.config)
    plan = read_plan(context.workspace, lane)
    config = context.run.config.completed(plan.model.dim)
    start = start_of(context, lane, plan.model, config.width)
    folder = start_folder(context, lane, start)

    def report(detail: str, done: float, measures: Mapping[str, float]) -> None:
        context.report("; ".join(filter(None, (detail, start.words))), done, measures)

    request = SaeRequest(config.width, config.k, config.variant, config.epochs, config.seed, folder)
    trained = train_owned(context, lane, plan, request, scratch=context.step.stage, report=report)
    context.workspace.put_folder(sae_folder(lane), trained.folder)
    scores = {f"{lane.prefix}sae.{name}": value for name, value in trained.scores.items()}
    facts = {"config": trained.config, "resumed_from": trained.resumed_from, "start": start.sae_version}
    return StepResult(scores, facts, "; ".join(filter(None, (trained.detail, start.words))))
