"""Subjects as a trunk reads them, and graphs that want other types or sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from recsae.errors import InvalidRequestError
from recsae.recommenders.bundle import ModelBundle
from recsae.recommenders.description import AttributeInput, BundleDescription, Hook, Inputs
from recsae.recommenders.graph import Graph
from recsae.recommenders.inputs import model_inputs, newest_as_candidate

GENDER = AttributeInput("gender", values=("F", "M"))
AGE = AttributeInput("age", kind="number", default=30.0)
BAND = AttributeInput("band", values=("18", "25"))


def bundle(inputs: Inputs, n_users: int = 0) -> ModelBundle:
    """Says what is read; has no files."""
    hook = Hook("h", "user", 2, all_positions=inputs.history)
    description = BundleDescription("m", "test", 4, 9, "opaque", (hook,), inputs=inputs, n_users=n_users)
    users = tuple(f"u{number}" for number in range(1, n_users + 1))
    items = tuple(f"i{number}" for number in range(1, 10))
    return ModelBundle(Path(), "0", description, items, items, users)


def test_users_and_attributes_the_model_never_saw_are_index_nought_or_the_default() -> None:
    reads = Inputs(user=True, attributes=(GENDER, AGE, BAND), empty_history=True)
    found = model_inputs(
        bundle(reads, n_users=3),
        [[1, 2], [], [3, 4, 5, 6, 7]],
        ["u2", "nobody", ""],
        [{"gender": "M", "age": 44.0, "band": 25.0}, {"gender": "X", "age": float("nan")}, {}],
    )
    assert found.history.tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [4, 5, 6, 7]]
    assert found.user.tolist() == [2, 0, 0]
    assert found.attributes["gender"].tolist() == [2, 0, 0]
    assert found.attributes["age"].tolist() == [44.0, 30.0, 30.0]
    assert found.attributes["band"].tolist() == [2, 0, 0], "a category that is a number is found as data files write it"
    assert found.take(np.array([2, 2])).history.tolist() == [[4, 5, 6, 7]] * 2


def test_text_where_a_number_is_read_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequestError, match="attribute 'age' is 'old', the model reads a number"):
        model_inputs(bundle(Inputs(attributes=(AGE,))), [[1]], (), [{"age": "old"}])


def test_a_model_that_reads_no_history_is_given_none() -> None:
    found = model_inputs(bundle(Inputs(history=False, user=True), n_users=1), [[99], []], ["u1", ""])
    assert not found.history.any()
    with pytest.raises(InvalidRequestError, match="history 0 is empty"):
        model_inputs(bundle(Inputs()), [[]])


def test_the_newest_item_becomes_the_candidate_of_what_came_before_it() -> None:
    found, candidates = newest_as_candidate(model_inputs(bundle(Inputs()), [[1, 2, 3], [4]]))
    assert candidates.tolist() == [3, 4]
    assert found.history.tolist() == [[1, 2, 0, 0], [0, 0, 0, 0]]


def _doubling_graph(path: Path, batch: int | str, wanted: int, given: int) -> Path:
    """x + x over [batch, 3]."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT16),
            helper.make_node("Mul", ["wide", "two"], ["y"]),
        ],
        "doubling",
        [helper.make_tensor_value_info("x", wanted, [batch, 3])],
        [helper.make_tensor_value_info("y", given, [batch, 3])],
        [numpy_helper.from_array(np.array(2, np.float16), "two")],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", ["batch", 1, 4])
@pytest.mark.parametrize("rows", [1, 4, 6])
def test_a_graph_with_its_own_types_and_batch_gives_what_any_other_would(
    tmp_path: Path, batch: int | str, rows: int
) -> None:
    graph = Graph(_doubling_graph(tmp_path / "g.onnx", batch, TensorProto.INT32, TensorProto.FLOAT16), threads=1)
    x = np.arange(3 * rows, dtype=np.int64).reshape(rows, 3)
    (found,) = graph.run(["y"], {"x": x, "unused": x}, rows)
    assert found.dtype == np.float32
    assert (found == 2 * x).all()
