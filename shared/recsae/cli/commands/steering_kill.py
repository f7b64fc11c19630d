"""`recsae steer kill | unkill | switches`: all steering off in a second, and on again."""

from __future__ import annotations

from typing import Annotated

import typer

from recsae.cli.commands.steering import Reason
from recsae.cli.commands.steering_look import switches_of
from recsae.cli.context import JsonFlag, context_of
from recsae.cli.output import console, print_json
from recsae.cli.policy_views import kill_switches
from recsae.v1 import steering_pb2

OneModel = Annotated[
    str, typer.Option("--model", "-m", help="Only this model, or NAME@HOOK; default: every model", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Adds the commands to `recsae steer`."""
    for command in (kill, unkill, switches):
        app.command()(command)


def kill(ctx: typer.Context, reason: Reason, model: OneModel = "", json: JsonFlag = False) -> None:
    """Switch all steering off; policies stay as they are, and recommendations are the models' own.

    Examples: [bold]recsae steer kill --reason "lists look wrong"[/] ·
    [bold]recsae steer kill --model sasrec --reason "lists look wrong"[/]
    """
    _set(ctx, model, on=True, reason=reason, json=json)


def unkill(ctx: typer.Context, reason: Reason, model: OneModel = "", json: JsonFlag = False) -> None:
    """Switch steering on again, as it was switched off: with the same --model, or without.

    Example: [bold]recsae steer unkill --reason "found the policy"[/]
    """
    _set(ctx, model, on=False, reason=reason, json=json)


def switches(ctx: typer.Context, json: JsonFlag = False) -> None:
    """List the kill switches that were ever set.

    Example: [bold]recsae steer switches[/]
    """
    platform = context_of(ctx).platform
    if json:
        print_json(platform.call(platform.steering.ListKillSwitches, steering_pb2.ListKillSwitchesRequest()))
        return
    console.print(kill_switches(switches_of(platform)))


def _set(ctx: typer.Context, model: str, *, on: bool, reason: str, json: bool) -> None:
    platform = context_of(ctx).platform
    request = steering_pb2.SetKillSwitchRequest(model=model, on=on, reason=reason)
    reply = platform.call(platform.steering.SetKillSwitch, request)
    if json:
        print_json(reply)
        return
    console.print(kill_switches(switches_of(platform)))
    console.print(f"Counts from plan revision {reply.plan_revision}.")
    others = [one for one in switches_of(platform) if one.on and one.model == "" and model]
    if not on and others:
        console.print("Steering of every model is still switched off: recsae steer unkill --reason ...", style="red")
