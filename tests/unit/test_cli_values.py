"""What people type on the command line, and what the workspace remembers."""

from __future__ import annotations

import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from recsae.cli.commands.steering import parse_duration, parse_operation
from recsae.cli.workspace import Addresses, DatasetEntry, ModelEntry, Workspace
from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.v1 import steering_pb2


def test_operations_are_read() -> None:
    assert parse_operation("c-12ab:ablate").kind == steering_pb2.OPERATION_KIND_ABLATE
    operation = parse_operation("c-12ab:add=-1.5")
    assert (operation.concept_id, operation.kind, operation.value) == ("c-12ab", steering_pb2.OPERATION_KIND_ADD, -1.5)


@pytest.mark.parametrize("text", ["c-12ab", "c-12ab:boost=2", "c-12ab:add", "c-12ab:add=", ":ablate"])
def test_bad_operations_are_refused_with_the_form(text: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"add=1\.5"):
        parse_operation(text)


def test_durations_are_read() -> None:
    assert parse_duration("90m") == timedelta(minutes=90)
    assert parse_duration("1.5h") == timedelta(minutes=90)
    assert parse_duration("7d") == timedelta(days=7)


@pytest.mark.parametrize("text", ["", "7", "7w", "-1d"])
def test_bad_durations_are_refused_with_the_form(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="30m, 12h or 7d"):
        parse_duration(text)


def test_a_replaced_model_keeps_its_place(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.add_model(ModelEntry("first", "aa"))
    workspace.add_model(ModelEntry("second", "bb"))
    workspace.add_model(ModelEntry("first", "cc"))
    assert [(model.name, model.version) for model in workspace.models()] == [("first", "cc"), ("second", "bb")]
    assert workspace.model("").version == "cc"


def test_the_newest_data_set_is_the_default(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.add_dataset(DatasetEntry("a", "01", "x"))
    workspace.add_dataset(DatasetEntry("b", "02", "y"))
    workspace.add_dataset(DatasetEntry("a", "03", "x"))
    assert workspace.dataset("").version == "03"
    with pytest.raises(FailedPreconditionError, match="recsae data fetch"):
        workspace.dataset("c")


def test_the_pseudonym_key_is_stable_and_private(tmp_path: Path) -> None:
    key = Workspace(tmp_path).pseudonym_key()
    assert Workspace(tmp_path).pseudonym_key() == key
    assert stat.S_IMODE((tmp_path / "pseudonym.key").stat().st_mode) == 0o600


def test_addresses_of_a_dead_supervisor_do_not_count(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    alive = Addresses("r", "i", "s", "b", {}, os.getpid())
    workspace.write_addresses(alive)
    assert workspace.addresses() == alive
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    workspace.write_addresses(Addresses("r", "i", "s", "b", {}, child))
    assert workspace.addresses() is None
