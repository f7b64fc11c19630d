"""Folders with models that read users or attributes, score pairs, have several rows per subject or several hooks."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from tests.unit import foreign_graphs as foreign
from tests.unit.importing_graphs import USERS, imported

from recsae.recommenders.bundle import ModelBundle
from recsae.recommenders.description import BundleDescription, BundleError
from recsae.recommenders.importing import import_bundle
from recsae.recommenders.onnx_study import Statements
from recsae.store.artifacts import ArtifactStore


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A model that reads users alone."""
    path = foreign.export(foreign.Factors(1), tmp_path / "model.onnx", {"user_id": foreign.numbers()})
    return imported(path, Statements(), tmp_path / "users", users=USERS).bundle.folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A model of pairs with attributes."""
    vectors = {"history": foreign.histories(), "target": foreign.numbers(), "gender": foreign.numbers()}
    path = foreign.export(foreign.Pair(), tmp_path / "model.onnx", {**vectors, "age": torch.ones(2)})
    stated = Statements(inputs=("gender=attribute:gender:,F,M",))
    return imported(path, stated, tmp_path / "pairs").bundle.folder


@pytest.fixture
def interests(tmp_path: Path) -> Path:
    """A model with three rows per subject."""
    vectors = {"history": foreign.histories(), "mask": foreign.histories(dtype=torch.bool)}
    path = foreign.export(foreign.Interests(), tmp_path / "model.onnx", vectors)
    return imported(path, Statements(), tmp_path / "interests").bundle.folder


@pytest.fixture
def hooks(tmp_path: Path) -> Path:
    """A model with two hooks."""
    outputs = ("hidden", "scores")
    path = foreign.export(foreign.TwoOutputs(), tmp_path / "model.onnx", {"history": foreign.histories()}, outputs)
    return imported(path, Statements(), tmp_path / "hooks", ["hidden", "/layer/Gemm_output_0"]).bundle.folder


@pytest.mark.parametrize("kind", ["users", "pairs", "interests", "hooks"])
def test_a_bundle_of_any_kind_keeps_its_description(
    kind: str, store: ArtifactStore, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(kind)
    version = import_bundle(store, folder).version
    assert ModelBundle.from_artifact(store.fetch("model", version)).description == BundleDescription.read(folder)


@pytest.mark.parametrize("kind", ["users", "interests"])
def test_what_the_graphs_say_need_not_be_described(
    kind: str, store: ArtifactStore, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(kind)
    described = BundleDescription.read(folder)
    (folder / "bundle.json").unlink()
    found = ModelBundle.from_artifact(store.fetch("model", import_bundle(store, folder, name="bare").version))
    assert found.description.inputs == described.inputs
    assert found.description.n_users == described.n_users
    for field in ("rows", "interests", "dim"):
        assert getattr(found.description.hooks[0], field) == getattr(described.hooks[0], field)


def test_user_ids_are_published_as_they_are_told_to_be(users: Path, store: ArtifactStore) -> None:
    version = import_bundle(store, users, published_as=lambda user: f"hidden-{user}").version
    published = ModelBundle.from_artifact(store.fetch("model", version)).user_ids
    assert published == tuple(f"hidden-{user}" for user in USERS)


def _drop(name: str, folder: Path) -> None:
    (folder / name).unlink()


def _edit(folder: Path, **changes: object) -> None:
    content = json.loads((folder / "bundle.json").read_text())
    content["hooks"][0] |= changes
    (folder / "bundle.json").write_text(json.dumps(content))


def test_users_that_nobody_lists_are_refused(users: Path, store: ArtifactStore) -> None:
    _drop("users.json", users)
    with pytest.raises(BundleError, match=r"trunk\.onnx reads users and .* has no users\.json"):
        import_bundle(store, users)


def test_attributes_that_nobody_describes_are_refused(pairs: Path, store: ArtifactStore) -> None:
    _drop("bundle.json", pairs)
    with pytest.raises(BundleError, match=r"needs inputs \['attribute\.age', 'attribute\.gender'\]; serving feeds it"):
        import_bundle(store, pairs, name="bare")


def test_rows_that_the_graph_does_not_have_are_refused(interests: Path, store: ArtifactStore) -> None:
    _edit(interests, interests=4)
    with pytest.raises(BundleError, match=r"8 numbers, 4 rows per interest; .* gives 8 numbers, 3 rows per interest"):
        import_bundle(store, interests)


def test_a_hook_the_trunk_does_not_give_is_refused(hooks: Path, store: ArtifactStore) -> None:
    trunk = onnx.load(str(hooks / "trunk.onnx"))
    kept = [value for value in trunk.graph.output if not value.name.startswith("activation.")]
    del trunk.graph.output[:]
    trunk.graph.output.extend(kept)
    onnx.save(trunk, str(hooks / "trunk.onnx"))
    with pytest.raises(BundleError, match=r"has no output 'activation\.layer_Gemm'"):
        import_bundle(store, hooks)
