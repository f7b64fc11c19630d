"""What a bundle folder must hold, and how it says what is wrong."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from recsae.errors import InvalidRequestError
from recsae.recommenders.bundle import ModelBundle, publish_bundle
from recsae.recommenders.description import BundleDescription, BundleError, Hook
from recsae.recommenders.synthetic import tiny_bundle
from recsae.store.artifacts import ArtifactStore


def change(folder: Path, file: str, **changes: object) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_serving_modules_import_neither_torch_nor_worker_libraries() -> None:
    code = (
        "import sys, recsae.recommenders.bundle, recsae.recommenders.runtime\n"
        "heavy = {'torch', 'onnx', 'scipy', 'pyarrow', 'fsspec'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_bundle_published_and_fetched_is_the_same(tmp_path: Path) -> None:
    written = tiny_bundle(tmp_path / "bundle", n_items=12)
    store = ArtifactStore(str(tmp_path / "store"))
    version = publish_bundle(store, tmp_path / "bundle", lineage={"dataset": "0" * 16})
    fetched = ModelBundle.from_artifact(store.fetch("model", version))
    assert (fetched.version, fetched.description, fetched.titles) == (version, written.description, written.titles)
    assert fetched.item_vectors is not None
    assert written.item_vectors is not None
    np.testing.assert_array_equal(fetched.item_vectors, written.item_vectors)
    assert not fetched.item_vectors.flags.writeable


def test_exporting_the_same_network_twice_gives_the_same_version(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    versions = set()
    for name in ("first", "second"):
        tiny_bundle(tmp_path / name)
        versions.add(publish_bundle(store, tmp_path / name))
    assert len(versions) == 1


def test_artifact_of_another_kind_is_refused(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "bundle")
    store = ArtifactStore(str(tmp_path / "store"))
    version = store.publish("sae", tmp_path / "bundle", config={}, lineage={})
    with pytest.raises(BundleError, match="is a sae, not a model"):
        ModelBundle.from_artifact(store.fetch("sae", version))


def test_ids_and_indices_are_inverse(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, n_items=5)
    assert bundle.index_of(["i5", "i1"]).tolist() == [5, 1]
    assert bundle.ids_of([5, 1]) == ["i5", "i1"]
    assert bundle.index_of_known(["i2", "never seen", "i3"]).tolist() == [2, 3]
    assert bundle.index_of([]).dtype == np.int64
    with pytest.raises(InvalidRequestError, match="'never seen' is unknown to model tiny"):
        bundle.index_of(["i2", "never seen"])
    for outside in (0, 6, -1):
        with pytest.raises(InvalidRequestError, match=f"index {outside} is outside 1..5"):
            bundle.ids_of([outside])


def _drop(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def _set(file: str, **changes: object) -> Callable[[Path], None]:
    return lambda folder: change(folder, file, **changes)


def _only_a_further_hook_has_positions(folder: Path) -> None:
    first = {"name": "sequence", "side": "user", "dim": 16, "all_positions": False}
    further = {"name": "block_0", "side": "user", "dim": 16, "steerable": False}
    change(folder, "bundle.json", hooks=[first, further])
    _drop("trunk_positions.onnx")(folder)


def _wrong_vectors(folder: Path) -> None:
    save_file({"item_vectors": np.zeros((3, 16), dtype=np.float32)}, folder / "head.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop("trunk.onnx"), "has no trunk.onnx"),
        (_drop("trunk_positions.onnx"), "has no trunk_positions.onnx"),
        (_drop("items.json"), "has no items.json"),
        (_drop("bundle.json"), "has no bundle.json"),
        (_drop("head.safetensors"), "no head.safetensors with item_vectors"),
        (_wrong_vectors, r"float32 \(3, 16\), expected float32 \(41, 16\)"),
        (_set("items.json", ids=["a"], titles=["A"]), "says 40 items, items.json has 1"),
        (_set("items.json", ids=["a", "a"], titles=["A", "B"]), "'a' more than once"),
        (_set("items.json", titles=["A"]), "40 ids and 1 titles"),
        (_set("bundle.json", format=99), "is not format 2"),
        (_set("bundle.json", max_history=0), "max_history is 0"),
        (_set("bundle.json", head="cosine"), "head is 'cosine'"),
        (_set("bundle.json", hooks=[]), "names no hook"),
        (_set("bundle.json", surprise=1), "unknown one"),
        (_set("bundle.json", inputs={"attributes": [{"name": "age", "kind": "text"}]}), "needs a kind of"),
        (_set("bundle.json", inputs={"history": False, "attributes": [{"name": "age"}]}), "has no positions"),
        (_only_a_further_hook_has_positions, "has no trunk_positions.onnx"),
        (lambda folder: (folder / "bundle.json").write_text("{"), "is not JSON"),
    ],
)
def test_damaged_bundle_says_what_is_wrong(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    tiny_bundle(tmp_path)
    damage(tmp_path)
    with pytest.raises(BundleError, match=message):
        ModelBundle.load(tmp_path, "0" * 16)


def test_hook_needs_a_known_side() -> None:
    with pytest.raises(BundleError, match="side of user or item"):
        BundleDescription("m", "f", 5, 5, "opaque", (Hook("h", "query", 4),))  # type: ignore[arg-type]
