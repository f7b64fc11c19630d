"""The root of the `recsae` command: global options, commands, and how errors reach people."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.text import Text

from recsae import __version__
from recsae.cli.commands import (
    backup,
    concepts,
    concepts_identity,
    data,
    models,
    models_connect,
    platform,
    policy_files,
    runs,
    sae,
    steering,
    steering_change,
    steering_kill,
    steering_look,
)
from recsae.cli.commands.conformance import conformance
from recsae.cli.commands.demo import demo
from recsae.cli.commands.doctor import doctor
from recsae.cli.commands.experiment import experiment
from recsae.cli.commands.preview import preview
from recsae.cli.context import CliContext, default_home
from recsae.cli.output import console, errors
from recsae.cli.workspace import Workspace
from recsae.errors import RecsaeError
from recsae.rpc.client import ClientOptions

app = typer.Typer(
    name="recsae",
    help="Opens up recommendation models in production with sparse autoencoders.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
platform.register(app)
app.command()(doctor)
app.command()(demo)
app.command()(conformance)
app.add_typer(data.app, name="data")
models_connect.register(models.app)
app.add_typer(models.app, name="model")
runs.register(app)
app.add_typer(sae.app, name="sae")
app.add_typer(concepts.app, name="concepts")
concepts_identity.register(concepts.app)
concepts.register(app)
for part in (steering_look, steering_change, steering_kill, policy_files):
    part.register(steering.app)
app.add_typer(steering.app, name="steer")
app.command()(preview)
app.command()(experiment)
backup.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"recsae {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    home: Annotated[
        Path | None, typer.Option(help="Workspace folder; default: $RECSAE_HOME, else ./.recsae", show_default=False)
    ] = None,
    recommender: Annotated[
        str, typer.Option(envvar="RECSAE_RECOMMENDER", help="HOST:PORT of a recommender elsewhere")
    ] = "",
    interpreter: Annotated[
        str, typer.Option(envvar="RECSAE_INTERPRETER", help="HOST:PORT of an interpreter elsewhere")
    ] = "",
    token: Annotated[str, typer.Option(envvar="RECSAE_TOKEN", help="Bearer token", show_default=False)] = "",
    ca: Annotated[
        Path | None, typer.Option(envvar="RECSAE_CA", help="CA of the services' certificates (PEM)", exists=True)
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(envvar="RECSAE_CERT", help="Client certificate (PEM)", exists=True)
    ] = None,
    key: Annotated[Path | None, typer.Option(envvar="RECSAE_KEY", help="Its private key (PEM)", exists=True)] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Opens up recommendation models in production with sparse autoencoders."""
    ctx.obj = CliContext(
        Workspace(home or default_home()),
        recommender,
        interpreter,
        ClientOptions(ca=ca, certificate=cert, key=key, token=token or None),
    )


def main() -> None:
    """Entry point: errors become one sentence on standard error and exit code 1."""
    try:
        app()
    except RecsaeError as error:
        _fail(error.code.replace("_", " "), str(error))
    except ModuleNotFoundError as error:
        if (error.name or "recsae").partition(".")[0].startswith("recsae"):
            raise
        _fail("failed precondition", f"this needs the package {error.name}; run `pip install 'recsae[worker]'`")
    except OSError as error:
        if error.filename is None:  # no file of anybody's, but a fault of ours
            raise
        _fail("failed precondition", f"{error.filename}: {error.strerror}; name a path this user may read and write")


def _fail(what: str, why: str) -> NoReturn:
    errors.print(Text.assemble((f"{what}: ", "bold red"), why), soft_wrap=True)
    sys.exit(1)
