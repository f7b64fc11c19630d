"""`recsae doctor`: what is missing on this machine, and how to get it."""

from __future__ import annotations

import importlib.util
import platform as machine
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum

import typer
from rich.markup import escape

from recsae.cli.context import JsonFlag, context_of
from recsae.cli.output import console, print_json, table
from recsae.cli.ports import Ports
from recsae.cli.servers import find_server_binary
from recsae.cli.workspace import Workspace
from recsae.errors import FailedPreconditionError

_FREE_GIB_NEEDED = 2.0
_ROLES = {
    "recommender": ("onnxruntime", "grpc", "safetensors"),
    "interpreter": ("onnxruntime", "grpc", "redis", "celery"),
    "worker": ("torch", "scipy", "onnx", "pyarrow", "celery"),
}


class State(StrEnum):
    """Whether a check needs action."""

    FINE = "fine"
    OPTIONAL = "optional"
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    state: State
    found: str
    remedy: str = ""


def doctor(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Check this machine: Python, packages per role, servers, ports, disk. Exit code 1 when something is missing.

    Examples: [bold]recsae doctor[/] · [bold]recsae doctor --json[/]
    """
    workspace = context_of(ctx).workspace
    findings = [finding for check in _checks() for finding in check(workspace)]
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        colours = {State.FINE: "green", State.OPTIONAL: "yellow", State.MISSING: "red"}
        rows = [(f.what, f"[{colours[f.state]}]{f.state}[/]", escape(f.found), escape(f.remedy)) for f in findings]
        console.print(table("This machine", ["what", "state", "found", "how to get it"], rows))
    if any(finding.state == State.MISSING for finding in findings):
        raise typer.Exit(1)


def _checks() -> list[Callable[[Workspace], Iterator[Finding]]]:
    return [_python, _packages, _server, _tools, _ports, _disk, _contents]


def _python(workspace: Workspace) -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    remedy = "" if good else "install Python 3.11 or newer"
    yield Finding("Python", State.FINE if good else State.MISSING, machine.python_version(), remedy)


def _packages(workspace: Workspace) -> Iterator[Finding]:
    for role, names in _ROLES.items():
        absent = [name for name in names if importlib.util.find_spec(name) is None]
        if absent:
            yield Finding(
                f"role {role}", State.OPTIONAL, f"without {', '.join(absent)}", f"pip install 'recsae[{role}]'"
            )
        else:
            yield Finding(f"role {role}", State.FINE, "all packages")


def _server(workspace: Workspace) -> Iterator[Finding]:
    try:
        yield Finding("Redis or Valkey", State.FINE, str(find_server_binary()))
    except FailedPreconditionError as error:
        yield Finding("Redis or Valkey", State.MISSING, "none", str(error))


def _tools(workspace: Workspace) -> Iterator[Finding]:
    for name, purpose, remedy in (
        ("prometheus", "metrics and alerts; some tests", "Debian: apt-get install prometheus"),
        ("promtool", "checks alert rules; some tests", "comes with Debian's prometheus"),
        ("docker", "docker compose up", "docs.docker.com/engine/install"),
    ):
        found = shutil.which(name)
        yield Finding(
            name, State.FINE if found else State.OPTIONAL, found or f"none ({purpose})", "" if found else remedy
        )


def _ports(workspace: Workspace) -> Iterator[Finding]:
    if workspace.addresses() is not None:
        yield Finding("ports", State.FINE, "a platform of this workspace is running")
        return
    taken = [f"{name} {port}" for name, port in Ports().taken().items()]
    found = f"taken: {', '.join(taken)}" if taken else "all default ports are free"
    yield Finding(
        "ports", State.OPTIONAL if taken else State.FINE, found, "others are chosen by `recsae up`" if taken else ""
    )


def _disk(workspace: Workspace) -> Iterator[Finding]:
    folder = next(path for path in (workspace.home, *workspace.home.parents) if path.exists())
    free = shutil.disk_usage(folder).free / 2**30
    good = free >= _FREE_GIB_NEEDED
    remedy = "" if good else f"free {_FREE_GIB_NEEDED:.0f} GiB, or point --home elsewhere"
    yield Finding("disk", State.FINE if good else State.MISSING, f"{free:.1f} GiB free at {folder}", remedy)


def _contents(workspace: Workspace) -> Iterator[Finding]:
    for what, entries, remedy in (
        ("data sets", workspace.datasets(), "recsae data fetch"),
        ("models", workspace.models(), "recsae model train"),
    ):
        names = ", ".join(entry.name for entry in entries)
        yield Finding(what, State.FINE if names else State.OPTIONAL, names or "none yet", "" if names else remedy)
