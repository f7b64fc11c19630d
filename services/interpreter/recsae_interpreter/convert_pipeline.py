"""Messages of `recsae.v1.Pipeline` to and from the handlers' values. Nothing here computes."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from recsae.pipeline.runs import Run, RunConfig, RunState, Stage
from recsae.pipeline.sweeps import PointResult, SweepGrid
from recsae.steering.wire import timestamp
from recsae.steering.wire_plans import triple_message
from recsae.store.channels import Channel
from recsae.v1 import pipeline_pb2

_STATES = {state: pipeline_pb2.RunState.Value(f"RUN_STATE_{state.name}") for state in RunState}


def run_config(message: pipeline_pb2.RefreshConfig) -> RunConfig:
    """The configuration of a request."""
    return RunConfig(
        model=message.model,
        dataset_version=message.dataset_version,
        width=message.width,
        k=message.k,
        epochs=message.epochs,
        seed=message.seed,
        promote=message.promote,
        control_model=message.control_model,
        variant=message.variant or "topk",
        warm_start=message.warm_start,
        llm_concepts=message.llm_concepts,
    )


def sweep_config(request: pipeline_pb2.StartSweepRequest) -> RunConfig:
    """The configuration of a request for a sweep."""
    grid = request.grid
    return RunConfig(
        model=request.model,
        dataset_version=request.dataset_version,
        epochs=request.epochs,
        sweep=SweepGrid.of(grid.widths, grid.ks, grid.variants, grid.seeds),
    )


def run_message(run: Run, *, points: bool = True) -> pipeline_pb2.Run:
    """The message for a run, with the points of a sweep when asked."""
    config = run.config
    return pipeline_pb2.Run(
        id=run.id,
        config=pipeline_pb2.RefreshConfig(
            model=config.model,
            dataset_version=config.dataset_version,
            width=config.width,
            k=config.k,
            epochs=config.epochs,
            seed=config.seed,
            promote=config.promote,
            control_model=config.control_model,
            variant=config.variant,
            warm_start=config.warm_start,
            llm_concepts=config.llm_concepts,
        ),
        state=_STATES[run.state],
        reason=run.reason,
        stages=[_stage(stage) for stage in run.stages],
        triple=triple_message(run.triple),
        created_at=timestamp(run.created_at),
        updated_at=timestamp(run.updated_at),
        scores=run.scores,
        sweep=_grid(config.sweep) if config.sweep is not None else None,
        points=[_point(result) for result in run.points] if points else (),
    )


def channel_message(channel: Channel) -> pipeline_pb2.Channel:
    """The message for a channel."""
    return pipeline_pb2.Channel(
        name=channel.name,
        triple=triple_message(channel.triple),
        revision=channel.revision,
        updated_at=timestamp(channel.updated_at),
    )


def _stage(stage: Stage) -> pipeline_pb2.Stage:
    return pipeline_pb2.Stage(
        name=stage.name,
        state=_STATES[stage.state],
        progress=stage.progress,
        detail=stage.detail,
        attempts=stage.attempts,
        started_at=_at(stage.started_at),
        finished_at=_at(stage.finished_at),
        measures=stage.measures,
    )


def _grid(grid: SweepGrid) -> pipeline_pb2.SweepGrid:
    """Zeros, which stand for defaults until they are known, are what an empty list says."""
    return pipeline_pb2.SweepGrid(
        widths=filter(None, grid.widths), ks=filter(None, grid.ks), variants=grid.variants, seeds=grid.seeds
    )


def _point(result: PointResult) -> pipeline_pb2.SweepPoint:
    point = result.point
    return pipeline_pb2.SweepPoint(
        name=point.name,
        width=point.width,
        k=point.k,
        variant=point.variant,
        seed=point.seed,
        scores=result.scores,
        failure=result.failure,
    )


def _at(moment: float | None) -> Timestamp | None:
    return None if moment is None else timestamp(moment)
