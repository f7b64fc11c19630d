"""What people type on the command line, and what the workspace remembers."""

from __future__ import annotations

import os
import socket
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from recsae.cli.commands.steering import parse_operation
from recsae.cli.policy_windows import parse_duration
from recsae.cli.ports import Ports
from recsae.cli.workspace import Addresses, DatasetEntry, ModelEntry, Workspace
from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.v1 import steering_pb2


def test_operations_are_read() -> None:
    assert parse_operation("c-12ab:ablate").kind == steering_pb2.OPERATION_KIND_ABLATE
    operation = parse_operation("c-12ab:add=-1.5")
    assert (operation.concept_id, operation.kind, operation.value) == ("c-12ab", steering_pb2.OPERATION_KIND_ADD, -1.5)


@pytest.mark.parametrize(
    "text", ["c-12ab", "c-12ab:boost=2", "c-12ab:add", "c-12ab:add=", "c-12ab:add=1.2.3", ":ablate"]
)
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


@pytest.mark.parametrize("name", ["", "../elsewhere", "a,b", "a=b", ".hidden", "a b", "x" * 65])
def test_names_that_fit_no_folder_or_setting_are_refused(tmp_path: Path, name: str) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(InvalidRequestError, match="--name orders-2026"):
        workspace.add_model(ModelEntry(name, "aa"))
    with pytest.raises(InvalidRequestError, match="--name orders-2026"):
        workspace.add_dataset(DatasetEntry(name, "aa", "x"))


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "workspace.json").write_text("{")
    with pytest.raises(FailedPreconditionError, match=r"workspace\.json is not JSON"):
        Workspace(tmp_path).models()


def test_addresses_count_only_while_their_supervisor_lives(tmp_path: Path) -> None:
    workspace, addresses = Workspace(tmp_path), Addresses("r", "i", "s", "b", {})
    with workspace.claim.held():
        assert workspace.addresses() is None
        workspace.write_addresses(addresses)
        assert Workspace(tmp_path).addresses() == addresses
        assert workspace.claim.holder() == os.getpid()
    assert workspace.addresses() is None
    assert workspace.claim.holder() is None


def test_a_workspace_has_one_supervisor(tmp_path: Path) -> None:
    with Workspace(tmp_path).claim.held():
        with pytest.raises(FailedPreconditionError, match=rf"process {os.getpid()}\); stop it with `recsae down`"):
            Workspace(tmp_path).claim.held().__enter__()
        assert Workspace(tmp_path).claim.holder() == os.getpid()


def test_ports_taken_are_replaced_and_none_is_given_twice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken = listening.getsockname()[1]
        wanted = Ports(*([taken] * 7))
        assert set(wanted.taken().values()) == {taken}
        chosen = vars(wanted.free())
    assert len(set(chosen.values())) == 7
    assert taken not in chosen.values()
