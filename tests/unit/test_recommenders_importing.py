"""Foreign models: what is accepted, what is refused and with which sentence."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from recsae.recommenders.bundle import ModelBundle
from recsae.recommenders.description import BundleError
from recsae.recommenders.heads import head_graph
from recsae.recommenders.importing import import_bundle
from recsae.recommenders.runtime import OnnxRecommender
from recsae.recommenders.synthetic import tiny_bundle
from recsae.store.artifacts import ArtifactStore

DIM, N_ITEMS = 16, 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_bundle(tmp_path / "foreign", n_items=N_ITEMS, dim=DIM, max_history=6)
    return tmp_path / "foreign"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


def test_bare_pair_of_graphs_is_described_from_the_graphs(folder: Path, store: ArtifactStore) -> None:
    for file in ("bundle.json", "head.safetensors", "trunk_positions.onnx"):
        (folder / file).unlink()
    imported = import_bundle(store, folder, name="mine")
    bundle = ModelBundle.from_artifact(store.fetch("model", imported.version))
    description = bundle.description
    assert (description.name, description.family, description.head) == ("mine", "imported", "opaque")
    assert (description.max_history, description.n_items, description.hooks[0].dim) == (6, N_ITEMS, DIM)
    assert not description.hooks[0].all_positions
    assert imported.notes == ()


def test_complete_bundle_keeps_its_description_under_the_new_name(folder: Path, store: ArtifactStore) -> None:
    version = import_bundle(store, folder, name="mine").version
    recommender = OnnxRecommender(ModelBundle.from_artifact(store.fetch("model", version)))
    assert (recommender.name, recommender.head, recommender.hooks[0].all_positions) == ("mine", "dot_product", True)


def test_import_without_any_name_is_refused(folder: Path, store: ArtifactStore) -> None:
    (folder / "bundle.json").unlink()
    with pytest.raises(BundleError, match=r"give one, e.g\. --name mine"):
        import_bundle(store, folder)


def test_tensors_that_cross_the_cut_reach_the_head(folder: Path, store: ArtifactStore) -> None:
    """A gate computed by the trunk scales the activation in the head."""
    trunk = onnx.load(str(folder / "trunk.onnx"))
    gate = helper.make_node("ReduceMax", ["activation"], ["gate"], axes=[1], keepdims=1)
    trunk.graph.node.append(gate)
    trunk.graph.output.append(helper.make_tensor_value_info("gate", TensorProto.FLOAT, ["batch", 1]))
    onnx.save(trunk, folder / "trunk.onnx")
    head = onnx.load(str(folder / "head.onnx"))
    head.graph.node[0].input[0] = "gated"
    head.graph.node.insert(0, helper.make_node("Mul", ["activation", "gate"], ["gated"]))
    head.graph.input.append(helper.make_tensor_value_info("gate", TensorProto.FLOAT, ["batch", 1]))
    onnx.save(head, folder / "head.onnx")
    (folder / "head.safetensors").unlink()
    (folder / "bundle.json").unlink()
    version = import_bundle(store, folder, name="gated").version
    recommender = OnnxRecommender(ModelBundle.from_artifact(store.fetch("model", version)))
    embedded = recommender.embed(recommender.pad([[1, 2, 3]]))
    assert set(embedded.passthrough) == {"gate"}
    doubled = {"gate": embedded.passthrough["gate"] * 2}
    plain = recommender.rank(embedded.activation, embedded.passthrough, k=3).scores
    np.testing.assert_allclose(recommender.rank(embedded.activation, doubled, k=3).scores, plain * 2, rtol=1e-5)


def test_results_that_depend_on_the_batch_are_noted(folder: Path, store: ArtifactStore) -> None:
    trunk = onnx.load(str(folder / "trunk.onnx"))
    produced = next(node for node in trunk.graph.node if "activation" in node.output)
    produced.output[list(produced.output).index("activation")] = "own"
    mean = helper.make_node("ReduceMean", ["own"], ["batch_mean"], axes=[0], keepdims=1)
    trunk.graph.node.extend([mean, helper.make_node("Add", ["own", "batch_mean"], ["activation"])])
    onnx.save(trunk, folder / "trunk.onnx")
    (folder / "trunk_positions.onnx").unlink()
    assert "batches of one" in import_bundle(store, folder).notes[0]


def _edit_head(edit: Callable[[onnx.ModelProto], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        model = onnx.load(str(folder / "head.onnx"))
        edit(model)
        onnx.save(model, folder / "head.onnx")

    return damage


def _forget_exclusions(model: onnx.ModelProto) -> None:
    pad = next(node for node in model.graph.node if node.op_type == "Pad")
    pad.input[0] = "nobody"
    model.graph.node.insert(0, helper.make_node("Sub", ["exclude", "exclude"], ["nobody"]))


def _tops(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The best k are taken in the branches with and without candidates."""
    branches = [attribute.g for node in model.graph.node if node.op_type == "If" for attribute in node.attribute]
    return [node for branch in branches for node in branch.node if node.op_type == "TopK"]


def _worst_first(model: onnx.ModelProto) -> None:
    for top in _tops(model):
        next(attribute for attribute in top.attribute if attribute.name == "largest").i = 0


def _let_padding_in(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, N_ITEMS + 1), np.float32), "open"))
    for top in _tops(model):
        top.input[0] = "unmasked"
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Add", ["raw", "open"], ["unmasked"]))


def _rename_exclude(model: onnx.ModelProto) -> None:
    next(value for value in model.graph.input if value.name == "exclude").name = "seen"
    next(node for node in model.graph.node if node.op_type == "Pad").input[0] = "seen"


def _other_vectors(folder: Path) -> None:
    random = np.random.default_rng(5).normal(size=(N_ITEMS + 1, DIM)).astype(np.float32)
    onnx.save(head_graph(random, np.zeros(N_ITEMS + 1, np.float32)), folder / "head.onnx")


def _other_width(folder: Path) -> None:
    onnx.save(
        head_graph(np.zeros((N_ITEMS + 1, 8), np.float32), np.zeros(N_ITEMS + 1, np.float32)), folder / "head.onnx"
    )


def _fewer_items(folder: Path) -> None:
    onnx.save(head_graph(np.zeros((N_ITEMS, DIM), np.float32), np.zeros(N_ITEMS, np.float32)), folder / "head.onnx")
    (folder / "head.safetensors").unlink()


def _reversed_positions(folder: Path) -> None:
    model = onnx.load(str(folder / "trunk_positions.onnx"))
    produced = next(node for node in model.graph.node if "activations" in node.output)
    produced.output[list(produced.output).index("activations")] = "own"
    model.graph.node.append(helper.make_node("Neg", ["own"], ["activations"]))
    onnx.save(model, folder / "trunk_positions.onnx")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "head.onnx").unlink(), "has no head.onnx; an import needs"),
        (lambda folder: (folder / "trunk.onnx").write_bytes(b"no graph"), "cannot be loaded by onnxruntime"),
        (_edit_head(_rename_exclude), "head.onnx has no input 'exclude', only .*'seen'"),
        (_edit_head(_forget_exclusions), "`exclude`|exactly once"),
        (_edit_head(_worst_first), "exactly once|best first"),
        (_edit_head(_let_padding_in), "exactly once"),
        (_other_width, "16 numbers, head.onnx takes 8"),
        (_other_vectors, "correct the vectors or leave the file out"),
        (_fewer_items, "head.onnx fails|exactly once"),
        (_reversed_positions, "must be causal"),
    ],
)
def test_model_that_breaks_a_promise_is_refused(
    folder: Path, store: ArtifactStore, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(BundleError, match=message):
        import_bundle(store, folder)
    assert store.versions("model") == []
