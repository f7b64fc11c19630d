"""`recsae model connect`: a model of another server beside our own, or without any of our own."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest

from recsae.cli import app as cli
from recsae.cli.health import NO_HEALTH
from recsae.cli.local_processes import ServingOptions, local_addresses, local_processes
from recsae.cli.output import errors
from recsae.cli.ports import Ports
from recsae.cli.processes import ProcessSpec
from recsae.cli.workspace import ModelEntry, Workspace
from recsae.errors import FailedPreconditionError
from recsae.rpc.routes import Routes
from recsae.sdk.exporter import Exporter
from recsae.sdk.serving import add_services

_EXAMPLE = Path(__file__).parents[2] / "examples" / "python" / "exporter.py"
_NAME, _OWN = "fading-sums", "tiny"


class Outcome(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


Recsae = Callable[..., Outcome]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def recsae(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Recsae:
    """The command through its entry point, in a workspace with one small data set."""
    monkeypatch.setattr(errors, "width", 40)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["recsae", "--home", str(workspace.home), *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return Outcome(end.value.code if isinstance(end.value.code, int) else 0, *capsys.readouterr())

    assert run("data", "planted", "--users", "50", "--items", "24", "--concepts", "3").code == 0
    return run


@pytest.fixture(scope="module")
def exporter() -> Exporter:
    """The numpy example of examples/python, as its readers start it."""
    spec = importlib.util.spec_from_file_location("example_exporter", _EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    vectors = np.random.default_rng(0).normal(size=(24, 8)).astype(np.float32)
    return Exporter(example.FadingSums([f"i{number}" for number in range(1, 25)], vectors))


@pytest.fixture(scope="module")
def elsewhere(exporter: Exporter) -> Iterator[str]:
    """Address of a server of somebody else's, with a health service."""
    serving = exporter.serve()
    yield f"127.0.0.1:{serving.port}"
    serving.stop()


@pytest.fixture
def without_health(exporter: Exporter) -> Iterator[str]:
    """Address of one that has the contract's services alone."""
    server = grpc.server(ThreadPoolExecutor(2))
    add_services([exporter], server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def processes(workspace: Workspace) -> dict[str, ProcessSpec]:
    return {spec.name: spec for stage in local_processes(workspace, Ports(), ServingOptions()) for spec in stage}


def own_model(workspace: Workspace) -> None:
    workspace.add_model(ModelEntry(_OWN, "0123456789abcdef", workspace.dataset("").name))


def test_a_connected_model_is_entered_with_its_version_and_address(
    recsae: Recsae, workspace: Workspace, elsewhere: str, exporter: Exporter
) -> None:
    outcome = recsae("model", "connect", elsewhere, "--json")
    assert outcome.code == 0, outcome.err
    (entry,) = workspace.models()
    assert json.loads(outcome.out) == vars(entry)
    assert entry == ModelEntry(_NAME, exporter.version, workspace.dataset("").name, address=elsewhere)
    assert recsae("model", "connect", elsewhere).code == 0
    assert workspace.models() == [entry], "connecting again enters it once"


def test_a_workspace_whose_models_are_all_served_elsewhere_starts_no_recommender(
    recsae: Recsae, workspace: Workspace, elsewhere: str
) -> None:
    recsae("model", "connect", elsewhere)
    found = processes(workspace)
    assert "recommender" not in found
    assert {"interpreter", "worker"} <= set(found)
    assert found["interpreter"].environment["RECSAE_INTERPRETER_RECOMMENDERS"] == f"{_NAME}={elsewhere}"
    assert found["worker"].environment["RECSAE_WORKER_RECOMMENDER"] == f"{_NAME}={elsewhere}"


def test_beside_a_model_of_our_own_each_is_asked_where_it_is(
    recsae: Recsae, workspace: Workspace, elsewhere: str
) -> None:
    recsae("model", "connect", elsewhere)
    own_model(workspace)
    ports, found = Ports(), processes(workspace)
    assert found["recommender"].environment["RECSAE_RECOMMENDER_MODELS"] == f"{_OWN}=0123456789abcdef"
    for name, setting in (("interpreter", "RECSAE_INTERPRETER_RECOMMENDERS"), ("worker", "RECSAE_WORKER_RECOMMENDER")):
        routes = Routes.parse(found[name].environment[setting])
        assert routes.address(_NAME) == elsewhere
        assert routes.address(_OWN) == f"127.0.0.1:{ports.recommender}"


def test_names_that_our_own_recommender_serves_are_not_taken_over(
    recsae: Recsae, workspace: Workspace, elsewhere: str
) -> None:
    entry = ModelEntry(_NAME, "0123456789abcdef")
    workspace.add_model(entry)
    outcome = recsae("model", "connect", elsewhere)
    assert outcome.code == 1
    assert f"a model '{_NAME}' of this workspace is served by its own recommender" in outcome.err
    assert workspace.models() == [entry]


@pytest.mark.parametrize("address", ["a=127.0.0.1:1", "127.0.0.1:1,127.0.0.1:2"])
def test_what_would_read_as_routes_is_no_address(recsae: Recsae, workspace: Workspace, address: str) -> None:
    outcome = recsae("model", "connect", address)
    assert outcome.code == 1
    assert "is no address of one server" in outcome.err
    assert workspace.models() == []


def test_a_model_the_server_does_not_have_is_refused_in_its_words(
    recsae: Recsae, workspace: Workspace, elsewhere: str
) -> None:
    outcome = recsae("model", "connect", elsewhere, "--model", "other")
    assert outcome.code == 1
    assert "other" in outcome.err
    assert workspace.models() == []


def status(recsae: Recsae, workspace: Workspace, own: str) -> tuple[int, dict[str, Any]]:
    routes = local_addresses(workspace, Ports()).recommender.replace(f"127.0.0.1:{Ports().recommender}", own)
    outcome = recsae("--recommender", routes, "--interpreter", own, "status", "--json")
    return outcome.code, json.loads(outcome.out)


def test_status_names_every_server_and_takes_one_without_a_health_service_for_running(
    recsae: Recsae, workspace: Workspace, elsewhere: str, without_health: str
) -> None:
    recsae("model", "connect", without_health)
    own_model(workspace)
    code, states = status(recsae, workspace, own=elsewhere)
    assert code == 0
    assert states["recommender"] == {"address": elsewhere, "state": "serving"}
    assert states[f"{_NAME} (served elsewhere)"] == {"address": without_health, "state": NO_HEALTH}


def test_status_fails_when_the_server_of_a_connected_model_is_gone(
    recsae: Recsae, workspace: Workspace, elsewhere: str, exporter: Exporter
) -> None:
    serving = exporter.serve()
    recsae("model", "connect", f"127.0.0.1:{serving.port}")
    serving.stop()
    code, states = status(recsae, workspace, own=elsewhere)
    assert code == 1
    assert "recommender" not in states
    assert states[f"{_NAME} (served elsewhere)"]["state"] == "unavailable"


def test_a_bundle_does_not_take_the_name_of_a_connected_model(workspace: Workspace) -> None:
    workspace.add_model(ModelEntry("mine", "1" * 16, address="127.0.0.1:6000"))
    with pytest.raises(FailedPreconditionError, match=r"'mine' of this workspace is served at 127\.0\.0\.1:6000"):
        workspace.add_model(ModelEntry("mine", "2" * 16))
    workspace.add_model(ModelEntry("mine", "3" * 16, address="127.0.0.1:6001"))
    assert [(one.version, one.address) for one in workspace.models()] == [("3" * 16, "127.0.0.1:6001")]
