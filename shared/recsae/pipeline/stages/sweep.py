"""Stages sweep and report: one step per point of the grid trains and scores an SAE; the report lays them side by side.

A point trains and is judged as a refresh does it, on the same activations, and its SAE is dropped: what a sweep is for
is the comparison. A point that can never be trained is a result, not the end of the sweep.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from recsae.errors import FailedPreconditionError
from recsae.pipeline.advance import StepResult, read_facts
from recsae.pipeline.lanes import lane_of
from recsae.pipeline.run_store import update
from recsae.pipeline.runs import Run
from recsae.pipeline.stages.evaluate import judge, sentence
from recsae.pipeline.stages.material import read_plan
from recsae.pipeline.stages.training import SaeRequest, train_owned
from recsae.pipeline.steps import StepContext
from recsae.pipeline.sweeps import (
    RECORDED,
    PointResult,
    SweepGrid,
    SweepPoint,
    best_per_k,
    by_configuration,
    with_result,
)
from recsae.sae.runtime import SparseAutoencoder

REPORT_FILE = "report/sweep.json"


def sweep(context: StepContext) -> StepResult:
    """One point."""
    _drop_finished(context)
    point = grid_of(context.run).point(context.step.shard)
    try:
        done, failure = _train_and_judge(context, point), ""
    except _NeverTrainedError as error:
        done, failure = _Done({}, 0), str(error)
    _record(context, [PointResult(point, _recorded(done.scores), failure)])
    facts = {"scores": done.scores, "failure": failure, "resumed_from": done.resumed_from}
    return StepResult({}, facts, f"{point.name}: {failure or sentence(done.scores, done.not_ranked)}")


def report(context: StepContext) -> StepResult:
    """One table of every point, with the mean and the spread over seeds; FailedPreconditionError when none is done."""
    grid = grid_of(context.run)
    facts = {point: read_facts(context.workspace, "sweep", point.name) for point in grid.points()}
    results = [PointResult(point, found["scores"], found["failure"]) for point, found in facts.items()]
    done = [result for result in results if not result.failure]
    if not done:
        raise FailedPreconditionError(f"no point of the grid could be trained; the first says: {results[0].failure}")
    configurations = by_configuration(results)
    context.workspace.write_json(
        REPORT_FILE,
        {
            "schema_version": 1,
            "model": asdict(read_plan(context.workspace, lane_of(context.step.stage, context.run.config)).model),
            "dataset_version": context.run.config.dataset_version,
            "points": [
                {**asdict(result.point), "name": result.point.name, "scores": result.scores, "failure": result.failure}
                for result in results
            ],
            "configurations": [
                {
                    **{"width": one.width, "k": one.k, "variant": one.variant},
                    "scores": {name: asdict(spread) for name, spread in one.scores.items()},
                }
                for one in configurations
            ],
        },
    )
    _record(context, [replace(result, scores=_recorded(result.scores)) for result in results])
    best = [f"k {k}: width {one.width} {one.variant}" for k, one in sorted(best_per_k(configurations).items())]
    failed = f", {len(results) - len(done)} could not be trained" if len(done) < len(results) else ""
    counts = {"sweep.points": float(len(results)), "sweep.failed": float(len(results) - len(done))}
    return StepResult(counts, {"file": REPORT_FILE}, f"{len(done)} points{failed}; best at {'; '.join(best)}")


def grid_of(run: Run) -> SweepGrid:
    """The grid of a run whose collect stage has planned; FailedPreconditionError when it is no sweep."""
    if run.config.sweep is None:
        raise FailedPreconditionError(f"run {run.id} is no sweep; start one with `recsae sae sweep`")
    return run.config.sweep


class _NeverTrainedError(Exception):
    """Training this point can never work; says why."""


@dataclass(frozen=True)
class _Done:
    """Scores by name; `resumed_from`: the training step this attempt went on from; `not_ranked`: see `sentence`."""

    scores: dict[str, float]
    resumed_from: int
    not_ranked: str = ""


def _train_and_judge(context: StepContext, point: SweepPoint) -> _Done:
    lane = lane_of(context.step.stage, context.run.config)
    plan = read_plan(context.workspace, lane)
    names = [one.name for one in grid_of(context.run).points()]
    place = f"{point.name} ({names.index(point.name) + 1} of {len(names)})"
    finished = len(_finished(context))

    def say(detail: str, done: float, measures: Mapping[str, float] | None = None) -> None:
        context.report(f"{place}: {detail}", (finished + done) / len(names), measures)

    request = SaeRequest(point.width, point.k, point.variant, context.run.config.epochs, point.seed)
    scratch = f"{context.step.stage}/{point.name}"
    try:
        trained = train_owned(
            context, lane, plan, request, scratch=scratch,
            report=lambda detail, done, measures: say(detail, 0.9 * done, measures),
        )  # fmt: skip
    except FailedPreconditionError as error:
        raise _NeverTrainedError(str(error)) from error
    sae = SparseAutoencoder.load(trained.folder, point.name)
    judged = judge(context, lane, sae, plan.model, lambda detail, done: say(detail, 0.9 + 0.1 * done))
    scores = {f"sae.{name}": value for name, value in trained.scores.items()} | judged.scores
    scores |= {name: value for name, value in trained.measures.items() if name == "activations_per_s"}
    return _Done(scores, trained.resumed_from, judged.rankability.not_ranked)


def _recorded(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: scores[name] for name in RECORDED if name in scores}


def _record(context: StepContext, results: list[PointResult]) -> None:
    """Shows points in the run record as soon as they are done; the steps' manifests stay the truth."""
    grid = grid_of(context.run)

    def change(run: Run) -> Run:
        points = run.points
        for result in results:
            points = with_result(points, grid, result)
        return run if run.state.ended or points == run.points else replace(run, points=points)

    context.lease.check()
    update(context.platform.runs, context.run.id, change, context.platform.clock)


def _finished(context: StepContext) -> set[str]:
    return {name.removesuffix(".json") for name in context.workspace.names("steps/sweep")}


def _drop_finished(context: StepContext) -> None:
    """Checkpoints and SAEs of points whose manifest is written: nobody reads them again."""
    for name in _finished(context) - {context.step.shard}:
        shutil.rmtree(context.workspace.scratch(f"sweep/{name}/out").parent, ignore_errors=True)
