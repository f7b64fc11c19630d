"""`recsae up | down | status`: the local platform."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, BinaryIO

import typer
from rich.table import Table
from rich.text import Text

from recsae.cli.context import CliContext, JsonFlag, context_of
from recsae.cli.health import NO_HEALTH, service_state, worker_answers
from recsae.cli.output import console, print_json, table
from recsae.cli.servers import server_pid
from recsae.cli.supervisor import Ports, ServingOptions, Supervisor
from recsae.cli.workspace import Addresses, Workspace
from recsae.errors import FailedPreconditionError, UnavailableError
from recsae.rpc.routes import Routes
from recsae.store.urls import without_password

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan")
_START_S = 120.0
_OWN = "recommender"
_STOP_S = 60.0
_PAUSE_S = 0.1
_TAIL_BYTES = 4000


class LogLevel(StrEnum):
    """How much the processes write."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


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
    exposure_sample: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of responses written to the workspace's exposure log.")
    ] = 0.0,
    recommender_processes: Annotated[
        int, typer.Option(min=1, max=256, help="Processes that serve recommendations on one port.")
    ] = 1,
    log_level: Annotated[LogLevel, typer.Option(help="Least level that is logged.")] = LogLevel.INFO,
    json: Annotated[bool, typer.Option("--json", help="With --detach: print the addresses as JSON.")] = False,
) -> None:
    """Start Redis, recommender, interpreter, worker, beat and exporter; Ctrl-C stops them.

    Examples: [bold]recsae up[/] · [bold]recsae up --detach --json[/] · [bold]recsae up --observe-sample 1[/]
    """
    if json and not detach:
        raise typer.BadParameter("goes with --detach; without it the processes write to this terminal")
    context = context_of(ctx)
    context.workspace.model("")
    options = ServingOptions(observe_sample, log_level.value, exposure_sample, recommender_processes)
    if detach:
        addresses = _start_detached(context.workspace, options)
        print_json(vars(addresses)) if json else _print_detached(context.workspace, addresses)
        return
    supervisor = Supervisor(context.workspace, Ports.choose(), options, None if quiet else _print_line)
    with stop_on_signals(supervisor), supervisor.running(_announce) as addresses:
        console.print(addresses_table(addresses))
        console.print("Ctrl-C stops everything.")
        supervisor.watch(_announce)


def down(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Stop the platform of this workspace, also one that is still starting. Fine when none runs.

    Examples: [bold]recsae down[/] · [bold]recsae --home trial down[/]
    """
    workspace = context_of(ctx).workspace
    supervisor = workspace.claim.holder()
    if supervisor is not None:
        _stop(workspace, supervisor)
    if json:
        print_json({"stopped": supervisor is not None})
    else:
        console.print("Stopped." if supervisor is not None else f"Nothing runs in {workspace.home}.")


def status(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Say what runs, where, and whether it answers. Exit code 1 when something does not.

    Examples: [bold]recsae status[/] · [bold]recsae status --json[/]
    """
    context = context_of(ctx)
    states = _states(context)
    if json:
        print_json({name: {"address": address, "state": state} for name, (address, state) in states.items()})
    else:
        rows = [(name, address, _coloured(state)) for name, (address, state) in states.items()]
        console.print(table(f"Platform in {context.workspace.home}", ["process", "address", "state"], rows))
    if any(state not in ("serving", NO_HEALTH) for _, state in states.values()):
        raise typer.Exit(1)


@contextlib.contextmanager
def stop_on_signals(supervisor: Supervisor) -> Iterator[None]:
    """SIGINT and SIGTERM end what the supervisor does while the block runs, or else the block itself."""

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
        *(
            (name, at, addresses.metrics["recommender"] if name == _OWN else "")
            for name, at in _recommenders(addresses.recommender).items()
        ),
        ("interpreter", addresses.interpreter, addresses.metrics["interpreter"]),
        ("worker", "celery on " + without_password(addresses.bus_url), addresses.metrics["worker"]),
        ("state", without_password(addresses.state_url), ""),
    ]
    return table("Running", ["process", "address", "metrics"], rows)


def _start_detached(workspace: Workspace, options: ServingOptions) -> Addresses:
    if (holder := workspace.claim.holder()) is not None:
        raise FailedPreconditionError(
            f"a platform already runs in {workspace.home} (process {holder}); stop it with `recsae down`"
        )
    command = [
        *(sys.executable, "-m", "recsae.cli", "--home", str(workspace.home), "up", "--quiet"),
        *("--observe-sample", str(options.observe_sample), "--exposure-sample", str(options.exposure_sample)),
        *("--recommender-processes", str(options.recommender_processes), "--log-level", options.log_level),
    ]
    workspace.logs.mkdir(parents=True, exist_ok=True)
    with (workspace.logs / "supervisor.log").open("a+b") as log:
        begin = log.tell()
        child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            return _wait_until_up(workspace, child)
        except BaseException as error:  # Ctrl-C too: nothing half started stays behind
            child.terminate()
            child.wait(_STOP_S)
            if not isinstance(error, UnavailableError):
                raise
            raise UnavailableError(f"{error}; it said (all in {log.name}):\n{_said_since(log, begin)}") from None


def _wait_until_up(workspace: Workspace, child: subprocess.Popen[bytes]) -> Addresses:
    deadline = time.monotonic() + _START_S
    while (running := workspace.addresses()) is None or workspace.claim.holder() != child.pid:
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise UnavailableError(f"the platform did not start (exit code {child.wait(_PAUSE_S)})")
        if time.monotonic() > deadline:
            raise UnavailableError(f"the platform did not start within {_START_S:.0f} s")
    return running


def _said_since(log: BinaryIO, begin: int) -> str:
    log.seek(max(begin, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
    return log.read().decode(errors="replace").strip()


def _print_detached(workspace: Workspace, addresses: Addresses) -> None:
    console.print(addresses_table(addresses))
    console.print(f"Logs in {workspace.logs}. Stop with `recsae down`.")


def _stop(workspace: Workspace, supervisor: int) -> None:
    try:
        os.kill(supervisor, signal.SIGTERM)
    except ProcessLookupError:
        return  # it ended by itself just now
    except PermissionError as error:
        raise FailedPreconditionError(f"process {supervisor} belongs to another user, who can stop it") from error
    deadline = time.monotonic() + _STOP_S
    while workspace.claim.holder() == supervisor:
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"process {supervisor} did not stop within {_STOP_S:.0f} s; see {workspace.logs}, "
                f"or end it with `kill -9 {supervisor}`"
            )
        time.sleep(_PAUSE_S)  # another process's end, which only its parent could wait for


def _states(context: CliContext) -> dict[str, tuple[str, str]]:
    """Address and state by process; those of a platform elsewhere are the two services it shows the world."""
    platform, running = context.platform, context.workspace.addresses()
    states = {
        **{
            name: (address, service_state(address, context.client))
            for name, address in _recommenders(platform.recommender_address).items()
        },
        "interpreter": (platform.interpreter_address, service_state(platform.interpreter_address, context.client)),
    }
    if running is not None and running.interpreter == platform.interpreter_address:
        for name, url in (("state", running.state_url), ("bus", running.bus_url)):
            states[name] = (without_password(url), _in_words(server_pid(url) is not None))
        # Celery would wait long for a bus that is down.
        states["worker"] = (
            without_password(running.bus_url),
            _in_words(states["bus"][1] == "serving" and worker_answers(running.bus_url)),
        )
    return states


def _recommenders(routes: str) -> dict[str, str]:
    """Addresses of the recommender and of the servers of others, by what a row of a table calls them."""
    parsed = Routes.parse(routes)
    elsewhere = {f"{model} (served elsewhere)": address for model, address in parsed.of_model.items()}
    return {**({_OWN: parsed.default} if parsed.default else {}), **elsewhere}


def _in_words(answers: bool) -> str:
    return "serving" if answers else "no answer"


def _coloured(state: str) -> str:
    return f"[green]{state}[/]" if state in ("serving", NO_HEALTH) else f"[red]{state}[/]"


def _announce(name: str, state: str) -> None:
    console.print(f"[bold]{name:>12}[/] {state}")


def _print_line(name: str, line: str) -> None:
    colour = _COLOURS[sum(name.encode()) % len(_COLOURS)]
    # One call, for every process has a thread of its own that comes here.
    console.print(Text.assemble((f"{name:>12} ", colour), line), soft_wrap=True)
