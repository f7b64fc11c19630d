"""`recsae up | down | status`: the local platform."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Annotated

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from rich.table import Table

from recsae.cli.context import CliContext, JsonFlag, context_of
from recsae.cli.output import console, print_json, table
from recsae.cli.supervisor import Ports, ServingOptions, Supervisor
from recsae.cli.workspace import Addresses, Workspace
from recsae.errors import UnavailableError
from recsae.rpc.client import ClientOptions, channel
from recsae.rpc.status import error_from

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan")
_START_S = 120.0
_STOP_S = 60.0
_PROBE_S = 2.0


def register(app: typer.Typer) -> None:
    """Adds the three commands to the root."""
    app.command()(up)
    app.command()(down)
    app.command()(status)


def up(
    ctx: typer.Context,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when everything is ready.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Keep process logs out of the terminal.")] = False,
    observe_sample: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of live requests observed for drift.")
    ] = 0.1,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error")] = "info",
) -> None:
    """Start Redis, recommender, interpreter, worker, beat and exporter; Ctrl-C stops them.

    Examples: [bold]recsae up[/] · [bold]recsae up --detach[/] · [bold]recsae up --observe-sample 1[/]
    """
    context = context_of(ctx)
    context.workspace.model("")
    options = ServingOptions(observe_sample, log_level)
    if detach:
        _start_detached(context, options)
        return
    supervisor = Supervisor(context.workspace, Ports.choose(), options, None if quiet else _print_line)
    with stop_on_signals(supervisor), supervisor.running(_announce) as addresses:
        console.print(addresses_table(addresses))
        console.print("Ctrl-C stops everything.")
        supervisor.watch(_announce)


def down(ctx: typer.Context) -> None:
    """Stop the platform of this workspace."""
    workspace = context_of(ctx).workspace
    running = workspace.addresses()
    if running is None:
        console.print(f"Nothing runs in {workspace.home}.")
        return
    os.kill(running.supervisor_pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    while workspace.addresses() is not None:
        if time.monotonic() > deadline:
            raise UnavailableError(f"process {running.supervisor_pid} did not stop within {_STOP_S:.0f} s")
        time.sleep(0.1)  # another process's end, which only its parent could wait for
    console.print("Stopped.")


def status(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Say what runs, where, and whether it answers. Exit code 1 when something does not."""
    context = context_of(ctx)
    running = context.workspace.addresses()
    platform = context.platform
    states = {
        "recommender": (platform.recommender_address, _health(platform.recommender_address, context.client)),
        "interpreter": (platform.interpreter_address, _health(platform.interpreter_address, context.client)),
    }
    if running is not None:
        states["worker"] = (running.bus_url, _worker_health(running.bus_url))
    if json:
        print_json({name: {"address": address, "state": state} for name, (address, state) in states.items()})
    else:
        rows = [(name, address, _coloured(state)) for name, (address, state) in states.items()]
        console.print(table(f"Platform in {context.workspace.home}", ["process", "address", "state"], rows))
    if any(state != "serving" for _, state in states.values()):
        raise typer.Exit(1)


@contextlib.contextmanager
def stop_on_signals(supervisor: Supervisor) -> Iterator[None]:
    """Makes SIGINT and SIGTERM end `Supervisor.watch` while the block runs."""

    def stop(number: int, frame: object) -> None:
        supervisor.request_stop()

    old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def addresses_table(addresses: Addresses) -> Table:
    """What listens where."""
    rows = [
        ("recommender", addresses.recommender, addresses.metrics["recommender"]),
        ("interpreter", addresses.interpreter, addresses.metrics["interpreter"]),
        ("worker", "celery on " + addresses.bus_url, addresses.metrics["worker"]),
        ("state", addresses.state_url, ""),
    ]
    return table("Running", ["process", "address", "metrics"], rows)


def _start_detached(context: CliContext, options: ServingOptions) -> None:
    workspace: Workspace = context.workspace
    command = [
        *(sys.executable, "-m", "recsae.cli", "--home", str(workspace.home), "up"),
        *("--observe-sample", str(options.observe_sample), "--log-level", options.log_level),
    ]
    workspace.logs.mkdir(parents=True, exist_ok=True)
    with (workspace.logs / "supervisor.log").open("ab") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + _START_S
    while (running := workspace.addresses()) is None:
        if child.poll() is not None or time.monotonic() > deadline:
            child.terminate()
            raise UnavailableError(f"the platform did not start; see {workspace.logs / 'supervisor.log'}")
        time.sleep(0.1)  # the child writes a file when everything is ready
    console.print(addresses_table(running))
    console.print(f"Logs in {workspace.logs}. Stop with `recsae down`.")


def _health(address: str, options: ClientOptions) -> str:
    connection = channel(address, options)
    try:
        reply = health_pb2_grpc.HealthStub(connection).Check(health_pb2.HealthCheckRequest(), timeout=_PROBE_S)
    except grpc.RpcError as error:
        return error_from(error).code.replace("_", " ")
    finally:
        connection.close()
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)).lower()


def _worker_health(bus_url: str) -> str:
    from celery import Celery

    with Celery(broker=bus_url, set_as_current=False) as app:
        return "serving" if app.control.ping(timeout=_PROBE_S, limit=1) else "no answer"


def _coloured(state: str) -> str:
    return f"[green]{state}[/]" if state == "serving" else f"[red]{state}[/]"


def _announce(name: str, state: str) -> None:
    console.print(f"[bold]{name:>12}[/] {state}")


def _print_line(name: str, line: str) -> None:
    colour = _COLOURS[sum(name.encode()) % len(_COLOURS)]
    console.print(f"[{colour}]{name:>12}[/] ", end="")
    console.print(line, markup=False)
