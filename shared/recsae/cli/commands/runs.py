"""`recsae refresh | runs | promote | rollback`: refresh runs and the channels their results go to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from recsae.cli.context import CliContext, JsonFlag, ModelName, Platform, context_of
from recsae.cli.output import bar, console, print_json, table
from recsae.cli.quality import sparsity_note
from recsae.cli.run_bars import fail_unless_succeeded, follow, measures_text, state_word
from recsae.errors import FailedPreconditionError
from recsae.recommenders.address import split_address
from recsae.v1 import pipeline_pb2

_COLOURS = {
    pipeline_pb2.RUN_STATE_SUCCEEDED: "green",
    pipeline_pb2.RUN_STATE_FAILED: "red",
    pipeline_pb2.RUN_STATE_RUNNING: "cyan",
}
Reason = Annotated[str, typer.Option(help="Why, for the audit trail")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the root."""
    for command in (refresh, runs, cancel, promote, rollback):
        app.command()(command)


def refresh(
    ctx: typer.Context,
    model: ModelName = "",
    data: Annotated[str, typer.Option(help="Data set to collect over; default: the model's own")] = "",
    width: Annotated[int, typer.Option(min=0, help="Latents; 0 = 4 x d")] = 0,
    k: Annotated[int, typer.Option(min=0, help="Firing latents per vector; 0 = d / 8")] = 0,
    variant: Annotated[str, typer.Option(help="topk, batchtopk or matryoshka")] = "topk",
    epochs: Annotated[int, typer.Option(min=0, help="Passes over the activations; 0 = chosen")] = 0,
    seed: Annotated[int, typer.Option(help="Seed")] = 0,
    control: Annotated[str, typer.Option(help="Untrained model to compare with, at the same hook; empty = none")] = "",
    warm_start: Annotated[bool, typer.Option(help="Train from the SAE in production when it fits")] = False,
    llm: Annotated[int, typer.Option(min=0, help="Concepts a language model describes too; 0 = none")] = 0,
    promote: Annotated[bool, typer.Option(help="Promote to production when the gates pass")] = True,
    wait: Annotated[bool, typer.Option(help="Follow it to its end")] = True,
    json: JsonFlag = False,
) -> None:
    """Collect activations, train an SAE, build and verify the dictionary, publish, promote.

    Examples: [bold]recsae refresh[/] · [bold]recsae refresh --width 2048 --k 16 --no-promote[/] ·
    [bold]recsae refresh --llm 100[/] · [bold]recsae refresh --model sasrec@block_0[/]
    """
    context = context_of(ctx)
    entry = context.workspace.model(model)
    if not data and not entry.dataset:
        raise FailedPreconditionError(f"model {entry.name} came without a data set; name one, e.g. --data ml-100k")
    config = pipeline_pb2.RefreshConfig(
        model=model or entry.name,
        dataset_version=context.workspace.dataset(data or entry.dataset).version,
        width=width,
        k=k,
        epochs=epochs,
        seed=seed,
        promote=promote,
        control_model=_at_hook_of(model, control),
        variant=variant,
        warm_start=warm_start,
        llm_concepts=llm,
    )
    run = start_refresh(context.platform, config)
    if wait:
        run = follow(context.platform, run.id, quiet=json)
    print_json(run) if json else console.print(_runs_table([run]))
    if wait:
        fail_unless_succeeded(run)


def runs(
    ctx: typer.Context,
    run_id: Annotated[str, typer.Argument(help="Run to show in full; default: list the newest")] = "",
    model: ModelName = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="Most runs to list")] = 20,
    json: JsonFlag = False,
) -> None:
    """List runs, or show one with its stages and scores.

    Examples: [bold]recsae runs[/] · [bold]recsae runs r-20261123-2041-7f3a --json[/]
    """
    platform = context_of(ctx).platform
    if run_id:
        run = platform.call(platform.pipeline.GetRun, pipeline_pb2.GetRunRequest(run_id=run_id)).run
        print_json(run) if json else _show_run(run)
        return
    request = pipeline_pb2.ListRunsRequest(model=model, limit=limit)
    reply = platform.call(platform.pipeline.ListRuns, request)
    print_json(reply) if json else console.print(_runs_table(reply.runs))


def cancel(
    ctx: typer.Context,
    run_id: Annotated[str, typer.Argument(help="Run to end")],
    reason: Reason = "cancelled on the command line",
    json: JsonFlag = False,
) -> None:
    """End a run that is queued or running.

    Example: [bold]recsae cancel r-20261123-2041-7f3a --reason "wrong data"[/]
    """
    platform = context_of(ctx).platform
    request = pipeline_pb2.CancelRunRequest(run_id=run_id, reason=reason)
    run = platform.call(platform.pipeline.CancelRun, request).run
    print_json(run) if json else console.print(_runs_table([run]))


def promote(
    ctx: typer.Context,
    model: ModelName = "",
    reason: Reason = "promoted on the command line",
    json: JsonFlag = False,
) -> None:
    """Point production at the candidate; every interpreter swaps live.

    Example: [bold]recsae promote --model sasrec --reason "looked right"[/]
    """
    context = context_of(ctx)
    request = pipeline_pb2.PromoteRequest(model=_model_name(context, model), reason=reason)
    _print_channel(context.platform.call(context.platform.pipeline.Promote, request).channel, json)


def rollback(
    ctx: typer.Context,
    model: ModelName = "",
    reason: Reason = "rolled back on the command line",
    json: JsonFlag = False,
) -> None:
    """Point production back at what it was before.

    Example: [bold]recsae rollback --reason "FVU rose"[/]
    """
    context = context_of(ctx)
    request = pipeline_pb2.RollbackRequest(model=_model_name(context, model), reason=reason)
    _print_channel(context.platform.call(context.platform.pipeline.Rollback, request).channel, json)


def start_refresh(platform: Platform, config: pipeline_pb2.RefreshConfig) -> pipeline_pb2.Run:
    """Starts a run."""
    return platform.call(platform.pipeline.StartRefresh, pipeline_pb2.StartRefreshRequest(config=config)).run


def _at_hook_of(model: str, control: str) -> str:
    """The control's address at the hook of the model, unless it names one itself."""
    named = split_address(control)
    return str(named if named.hook or not control else named._replace(hook=split_address(model).hook))


def _model_name(context: CliContext, model: str) -> str:
    return model or context.workspace.model("").name


def _coloured(state: pipeline_pb2.RunState.ValueType) -> str:
    return f"[{_COLOURS.get(state, 'default')}]{state_word(state)}[/]"


def _runs_table(found: Iterable[pipeline_pb2.Run]) -> Table:
    rows = [
        (run.id, run.config.model, _coloured(run.state), _current_stage(run), _when(run), escape(run.reason))
        for run in found
    ]
    return table("Runs", ["run", "model", "state", "stage", "started (UTC)", "reason"], rows)


def _current_stage(run: pipeline_pb2.Run) -> str:
    begun = [stage for stage in run.stages if stage.attempts]
    return f"{begun[-1].name} {bar(begun[-1].progress)}" if begun else ""


def _when(run: pipeline_pb2.Run) -> str:
    return run.created_at.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")


def _show_run(run: pipeline_pb2.Run) -> None:
    console.print(_runs_table([run]))
    stages = [
        (
            stage.name,
            _coloured(stage.state),
            bar(stage.progress),
            str(stage.attempts),
            _seconds(stage),
            escape(" · ".join(filter(None, (stage.detail, measures_text(stage.measures))))),
        )
        for stage in run.stages
    ]
    console.print(table("Stages", ["stage", "state", "progress", ">attempts", ">seconds", "detail"], stages))
    if note := sparsity_note(run.scores):
        console.print(note, style="yellow")
    scores = [(name, f"{value:.4f}") for name, value in sorted(run.scores.items())]
    console.print(table("Scores", ["score", ">value"], scores))


def _seconds(stage: pipeline_pb2.Stage) -> str:
    if not stage.HasField("started_at") or not stage.HasField("finished_at"):
        return ""
    return f"{(stage.finished_at.ToDatetime() - stage.started_at.ToDatetime()).total_seconds():.1f}"


def _print_channel(channel: pipeline_pb2.Channel, json: bool) -> None:
    if json:
        print_json(channel)
        return
    triple = channel.triple
    console.print(
        f"[bold]{channel.name}[/] revision {channel.revision}: model {triple.model_version}, "
        f"SAE {triple.sae_version}, dictionary {triple.dictionary_version}"
    )
