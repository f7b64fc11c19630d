"""`recsae conformance`: whether a service, written in any language, keeps the contract, and where not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Annotated

import typer

from recsae.cli.conformance_views import Tally, group_table, outcome_json
from recsae.cli.context import JsonFlag, context_of
from recsae.cli.output import console, print_json
from recsae.conformance.outcomes import Outcome
from recsae.conformance.over_grpc import GrpcService
from recsae.conformance.suite import run
from recsae.rpc.client import channel


def conformance(
    ctx: typer.Context,
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="The recommender to test")],
    model: Annotated[str, typer.Option("--model", "-m", help="Model name; default: the server's own")] = "",
    steer: Annotated[str, typer.Option(metavar="HOST:PORT", help="An interpreter to steer its activations with")] = "",
    timeout: Annotated[float, typer.Option(min=0.1, max=300, help="Deadline of every call in seconds")] = 10.0,
    strict: Annotated[bool, typer.Option("--strict", help="Doubtful counts as failed")] = False,
    json: JsonFlag = False,
) -> None:
    """Test any implementation of ActivationExporter and Recommender against the contract. Exit code 1 when it fails.

    It only reads. Credentials go before the command: recsae --token ... --ca ... conformance ...

    Examples: [bold]recsae conformance localhost:50051[/] ·
    [bold]recsae conformance localhost:50051 --steer localhost:50052 --strict[/]
    """
    options = context_of(ctx).client
    with ExitStack() as stack:
        tested = stack.enter_context(channel(address, options))
        interpreter = stack.enter_context(channel(steer, options)) if steer else None
        outcomes = run(GrpcService(tested, interpreter, timeout), model)
        found = list(outcomes) if json else _shown(address, outcomes)
    tally = Tally.of(found)
    if json:
        print_json(
            {
                "address": address,
                "checks": [outcome_json(outcome) for outcome in found],
                "passed": tally.passed,
                "doubtful": tally.doubtful,
                "failed": tally.failed,
                "skipped": tally.skipped,
            }
        )
    else:
        console.print(f"\n{tally}", style="bold red" if tally.fails(strict) else "bold green")
    if tally.fails(strict):
        raise typer.Exit(1)


def _shown(address: str, outcomes: Iterator[Outcome]) -> list[Outcome]:
    """All outcomes; each group of them is printed when it is complete."""
    console.print(f"[bold]Conformance of {address}[/]")
    found: list[Outcome] = []
    group: list[Outcome] = []
    for outcome in outcomes:
        if group and group[0].check.group != outcome.check.group:
            console.print(group_table(group))
            group = []
        group.append(outcome)
        found.append(outcome)
    console.print(group_table(group))
    return found
