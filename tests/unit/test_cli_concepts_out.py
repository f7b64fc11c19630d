"""`recsae concepts report | export` as people and scripts use them: versions, files, JSON, refusals."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from recsae.cli import app as cli
from recsae.cli.output import console, errors
from recsae.cli.workspace import ModelEntry, Workspace
from recsae.concepts.dictionary import ConceptArrays, Dictionary
from recsae.concepts.export import read_export
from recsae.concepts.records import ConceptRecord


class Outcome(NamedTuple):
    """What a command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Recsae = Callable[..., Outcome]


@pytest.fixture
def recsae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Recsae:
    """The command through its entry point, in a workspace and a folder of the test's own."""
    monkeypatch.setattr(console, "width", 200)
    monkeypatch.setattr(errors, "width", 40)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["recsae", "--home", str(tmp_path / "workspace"), *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        code = end.value.code
        return Outcome(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


@pytest.fixture
def version(tmp_path: Path) -> str:
    """A dictionary published in the workspace."""
    ones = np.ones(2, np.float32)
    concepts = (ConceptRecord("c-00000001", 0, label="Horror", density=0.1), ConceptRecord("c-00000002", 1))
    dictionary = Dictionary("", "a" * 16, "b" * 16, concepts, ConceptArrays(ones, ones, ones, ones, ones), {"live": 2})
    dictionary.save(tmp_path / "dictionary")
    config = {"model": "movies", "hook": "sequence"}
    store = Workspace(tmp_path / "workspace").artifacts()
    return store.publish("dictionary", tmp_path / "dictionary", config=config, lineage={"dataset": "e" * 16})


def test_a_report_of_a_version_needs_no_platform(recsae: Recsae, version: str, tmp_path: Path) -> None:
    done = recsae("concepts", "report", "--version", version, "--json")
    assert (done.code, done.err) == (0, "")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for part in ("“movies”", version, "Horror", "sequence", "e" * 16):
        assert part in page
    assert done.json["file"] == str(tmp_path / "report.html")
    assert done.json["bytes"] == len(page.encode())


@pytest.mark.parametrize("format", ["parquet", "json"])
def test_an_export_names_what_it_is_of(recsae: Recsae, version: str, tmp_path: Path, format: str) -> None:
    done = recsae("concepts", "export", "--version", version, "--format", format, "--out", "out", "--json")
    assert (done.code, done.json["concepts"], done.json["format"]) == (0, 2, format)
    read = read_export(tmp_path / "out")
    assert (read.about.model, read.about.dictionary_version) == ("movies", version)
    assert [concept.label for concept in read.concepts] == ["Horror", ""]


@pytest.mark.parametrize("command", ["report", "export"])
def test_nothing_is_overwritten_unless_asked(recsae: Recsae, version: str, tmp_path: Path, command: str) -> None:
    (tmp_path / "mine").write_text("mine")
    refused = recsae("concepts", command, "--version", version, "--out", "mine")
    assert refused.code == 1
    assert "mine exists already; name another file or add --force" in refused.err
    assert (tmp_path / "mine").read_text() == "mine"
    assert recsae("concepts", command, "--version", version, "--out", "mine", "--force").code == 0
    assert (tmp_path / "mine").read_bytes() != b"mine"


def test_a_missing_folder_is_named_before_any_work(recsae: Recsae) -> None:
    refused = recsae("concepts", "report", "--version", "no-version-at-all", "--out", "nowhere/report.html")
    assert refused.code == 1
    assert "there is no folder" in refused.err


def test_an_unknown_version_is_refused_with_those_there_are(recsae: Recsae, version: str) -> None:
    refused = recsae("concepts", "export", "--version", "f" * 16, "--out", "out")
    assert refused.code == 1
    assert "dictionaries in" in refused.err
    assert version in refused.err


def test_without_a_platform_a_channel_cannot_be_asked(recsae: Recsae, version: str, tmp_path: Path) -> None:
    Workspace(tmp_path / "workspace").add_model(ModelEntry("movies", "a" * 16))
    refused = recsae("concepts", "report")
    assert refused.code == 1
    assert refused.err.startswith("unavailable: no platform runs in ")
    assert f"or name a dictionary with --version: {version}" in refused.err
    assert not (tmp_path / "report.html").exists()
