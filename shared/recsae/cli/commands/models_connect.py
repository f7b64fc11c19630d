"""`recsae model connect`: a model that another server serves, entered in the workspace beside our own.

Any server of the `ActivationExporter` contract will do (`recsae conformance` says whether it keeps it); `recsae up`
then reads, explains and steers that model where it is.
"""

from __future__ import annotations

from typing import Annotated

import grpc
import typer

from recsae.cli.context import JsonFlag, context_of
from recsae.cli.output import console, print_json
from recsae.cli.workspace import ModelEntry, check_name
from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.rpc.client import channel
from recsae.rpc.status import error_from
from recsae.v1 import recommender_pb2, recommender_pb2_grpc

_CALL_S = 10.0


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(connect)


def connect(
    ctx: typer.Context,
    address: Annotated[str, typer.Argument(help="HOST:PORT of a server of the ActivationExporter contract")],
    model: Annotated[str, typer.Option("--model", "-m", help="One of its models; default: its first")] = "",
    data: Annotated[str, typer.Option(help="Data set with its interactions; default: the newest one")] = "",
    json: JsonFlag = False,
) -> None:
    """Enter a model that another server serves; `recsae up` works with it where it is.

    Example: [bold]recsae model connect 127.0.0.1:6000 --data ml-100k[/]
    """
    context = context_of(ctx)
    workspace = context.workspace
    if "," in address or "=" in address:
        raise InvalidRequestError(f"{address!r} is no address of one server; write HOST:PORT")
    dataset = workspace.dataset(data)
    with channel(address, context.client) as connection:
        info = _described(connection, address, model)
    taken = {entry.name: entry for entry in workspace.models() if not entry.address}
    if info.name in taken:
        raise InvalidRequestError(
            f"a model {info.name!r} of this workspace is served by its own recommender; rename one of the two"
        )
    entry = ModelEntry(check_name(info.name), info.version, dataset.name, address=address)
    workspace.add_model(entry)
    if json:
        print_json(vars(entry))
        return
    hooks = ", ".join(f"{hook.name} ({hook.dim} numbers)" for hook in info.hooks)
    console.print(f"Entered [bold]{entry.name}[/] {entry.version} at {address}: {info.family or 'a model'}, {hooks}.")
    console.print(f"Next: `recsae conformance {address}`, then `recsae up` and `recsae refresh --model {entry.name}`.")


def _described(connection: grpc.Channel, address: str, model: str) -> recommender_pb2.ModelInfo:
    exporter = recommender_pb2_grpc.ActivationExporterStub(connection)
    try:
        info = exporter.GetModel(recommender_pb2.GetModelRequest(model=model), timeout=_CALL_S).model
    except grpc.RpcError as error:
        raise error_from(error) from error
    if not info.name or not info.hooks:
        raise FailedPreconditionError(f"{address} describes a model without a name or hook; see `recsae conformance`")
    return info
