"""Artifacts are immutable, content-addressed, published last-manifest and verified on load (invariant 6)."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recsae.errors import CorruptArtifactError, InvalidRequestError, NotFoundError
from recsae.store import artifacts
from recsae.store.artifacts import ArtifactStore


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """A store on a local folder and on an object-store-like file system."""
    root = str(tmp_path / "root") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    return ArtifactStore(root, cache=tmp_path / "cache")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "nested").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"\x00\x01" * 1000)
    (folder / "nested" / "items.json").write_text("[]")
    return folder


def test_fetch_returns_what_was_published(store: ArtifactStore, source: Path) -> None:
    version = store.publish("sae", source, config={"k": 16}, lineage={"model": "ab"}, scores={"fvu": 0.1})
    artifact = store.fetch("sae", version)
    assert artifact.path("weights.bin").read_bytes() == (source / "weights.bin").read_bytes()
    assert artifact.path("nested/items.json").read_text() == "[]"
    assert (artifact.config, artifact.lineage, artifact.scores) == ({"k": 16}, {"model": "ab"}, {"fvu": 0.1})
    assert store.versions("sae") == [version]


def test_version_depends_on_content_config_and_lineage_only(store: ArtifactStore, source: Path) -> None:
    first = store.publish("sae", source, config={"k": 16}, lineage={}, scores={"fvu": 0.1})
    assert store.publish("sae", source, config={"k": 16}, lineage={}, scores={"fvu": 0.9}) == first
    assert store.publish("sae", source, config={"k": 8}, lineage={}) != first
    assert store.publish("sae", source, config={"k": 16}, lineage={"model": "ab"}) != first
    (source / "weights.bin").write_bytes(b"other")
    assert store.publish("sae", source, config={"k": 16}, lineage={}) != first


def test_concurrent_publishers_of_the_same_content_both_succeed(store: ArtifactStore, source: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        versions = set(pool.map(lambda _: store.publish("sae", source, config={}, lineage={}), range(8)))
    assert len(versions) == 1
    store.fetch("sae", versions.pop())


def test_a_changed_file_is_refused_by_name(tmp_path: Path, source: Path) -> None:
    store = ArtifactStore(str(tmp_path / "root"))
    version = store.publish("sae", source, config={}, lineage={})
    (tmp_path / "root" / "sae" / version / "weights.bin").write_bytes(b"tampered")
    with pytest.raises(CorruptArtifactError, match=r"weights\.bin"):
        store.fetch("sae", version)


def test_a_crash_before_the_rename_leaves_nothing_visible(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore(str(tmp_path / "root"))

    def crash(staging: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "_rename_into_place", crash)
        with pytest.raises(KeyboardInterrupt):
            store.publish("sae", source, config={}, lineage={})
    assert store.versions("sae") == []
    version = store.publish("sae", source, config={}, lineage={})
    assert store.versions("sae") == [version]


def test_a_folder_without_manifest_does_not_exist_for_readers(tmp_path: Path, source: Path) -> None:
    store = ArtifactStore(str(tmp_path / "root"))
    version = store.publish("sae", source, config={}, lineage={})
    (tmp_path / "root" / "sae" / version / "manifest.json").unlink()
    assert store.versions("sae") == []
    with pytest.raises(NotFoundError, match="publish it first"):
        store.fetch("sae", version)


def test_unknown_and_malformed_versions_are_told_apart(store: ArtifactStore) -> None:
    with pytest.raises(NotFoundError, match="0123456789abcdef"):
        store.fetch("sae", "0123456789abcdef")
    with pytest.raises(InvalidRequestError, match=r"\.\./secrets"):
        store.fetch("sae", "../secrets")


def test_an_empty_folder_is_not_published(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidRequestError, match="holds no files"):
        store.publish("sae", tmp_path / "empty", config={}, lineage={})
