"""What every command gets: the workspace, and clients for the platform that runs in it or elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

import grpc
import typer

from recsae.cli.workspace import Workspace
from recsae.errors import DeadlineExceededError, UnavailableError
from recsae.rpc.client import ClientOptions, channel
from recsae.rpc.routes import Routes, routed_channel
from recsae.rpc.status import error_from
from recsae.v1 import interpreter_pb2_grpc, pipeline_pb2_grpc, recommender_pb2_grpc, steering_pb2_grpc

DEFAULT_TIMEOUT_S = 20.0
_GRPC_WORDS = "deadline exceeded"  # what gRPC says, where a server of ours would say what it was doing
Reply = TypeVar("Reply")
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
ModelName = Annotated[
    str,
    typer.Option("--model", "-m", help="Model, or NAME@HOOK; default: the only or first one.", show_default=False),
]


@dataclass
class Platform:
    """Stubs of one platform. `call` gives every RPC a deadline and turns its errors into ours."""

    recommender_address: str
    interpreter_address: str
    options: ClientOptions

    @cached_property
    def _recommender_channel(self) -> grpc.Channel:
        return routed_channel(Routes.parse(self.recommender_address), self.options)

    @cached_property
    def _interpreter_channel(self) -> grpc.Channel:
        return channel(self.interpreter_address, self.options)

    @cached_property
    def recommender(self) -> recommender_pb2_grpc.RecommenderStub:
        """Recommender service."""
        return recommender_pb2_grpc.RecommenderStub(self._recommender_channel)

    @cached_property
    def exporter(self) -> recommender_pb2_grpc.ActivationExporterStub:
        """What recommenders say of their models."""
        return recommender_pb2_grpc.ActivationExporterStub(self._recommender_channel)

    @cached_property
    def interpreter(self) -> interpreter_pb2_grpc.InterpreterStub:
        """Interpreter service."""
        return interpreter_pb2_grpc.InterpreterStub(self._interpreter_channel)

    @cached_property
    def steering(self) -> steering_pb2_grpc.SteeringStub:
        """Steering service."""
        return steering_pb2_grpc.SteeringStub(self._interpreter_channel)

    @cached_property
    def pipeline(self) -> pipeline_pb2_grpc.PipelineStub:
        """Pipeline service."""
        return pipeline_pb2_grpc.PipelineStub(self._interpreter_channel)

    def call(self, method: Callable[..., Reply], request: Any, timeout_s: float = DEFAULT_TIMEOUT_S) -> Reply:
        """Calls one RPC; RecsaeError when it fails."""
        try:
            return method(request, timeout=timeout_s)
        except grpc.RpcError as error:
            found = error_from(error)
            if (
                isinstance(found, DeadlineExceededError) and str(found).lower() == "deadline exceeded"
            ):  # gRPC's own words
                found = DeadlineExceededError(
                    f"the platform did not answer within {timeout_s:g} s; look at `recsae status` and its logs"
                )
            raise found from error


@dataclass
class CliContext:
    """Options given before the command."""

    workspace: Workspace
    recommender: str
    interpreter: str
    client: ClientOptions

    @cached_property
    def platform(self) -> Platform:
        """Clients of the platform named by options, environment or workspace; UnavailableError when there is none."""
        running = self.workspace.addresses()
        recommender = self.recommender or (running.recommender if running else "")
        interpreter = self.interpreter or (running.interpreter if running else "")
        if not recommender or not interpreter:
            raise UnavailableError(
                f"no platform runs in {self.workspace.home}; start one with `recsae up`, "
                "or name one with --recommender and --interpreter"
            )
        return Platform(recommender, interpreter, self.client)


def default_home() -> Path:
    """`RECSAE_HOME`, else `.recsae` in the current folder."""
    return Path(os.environ.get("RECSAE_HOME", ".recsae"))


def context_of(ctx: typer.Context) -> CliContext:
    """The options of this call."""
    found = ctx.find_object(CliContext)
    assert found is not None, "the root callback sets it"
    return found
