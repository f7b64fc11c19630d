"""One foreign graph becomes a bundle: whatever its habits, trunk and head score as the network itself does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tests.unit import foreign_graphs as foreign
from tests.unit.importing_graphs import USERS, all_scores, imported

from recsae.recommenders.bundle import HEAD_TENSORS
from recsae.recommenders.conformance import verify_behaviour
from recsae.recommenders.onnx_candidates import suggestion
from recsae.recommenders.onnx_study import Statements, study
from recsae.recommenders.runtime import OnnxRecommender

N_ITEMS, N_USERS, DIM, LENGTH = foreign.N_ITEMS, foreign.N_USERS, foreign.DIM, foreign.LENGTH
HISTORIES = [[3], [20, 1, 7], [1, 2, 3, 4, 5, 6], [9, 8, 7, 6, 5, 4, 3, 2, 20], [11, 11]]

Network = Callable[[list[int]], torch.Tensor]


class Case(NamedTuple):
    """A network, how it is exported, what a person says about it, and its own answer to one history of ours."""

    network: torch.nn.Module
    inputs: dict[str, torch.Tensor]
    stated: Statements
    answer: Callable[[Any, list[int]], torch.Tensor]
    free: Sequence[int] = (0,)


def row(items: list[int], side: str, filler: int = 0, shift: int = 0, length: int = LENGTH) -> torch.Tensor:
    """One history as a network of this habit reads it."""
    newest = [item + shift for item in items[-length:]]
    filling = [filler] * (length - len(newest))
    return torch.tensor([newest + filling if side == "right" else filling + newest])


def sequence(first_index: int = 1, side: str = "right") -> Case:
    network = foreign.LastOfSequence(padding=side, columns=N_ITEMS + first_index)
    shift = first_index - 1

    def answer(network: Any, items: list[int]) -> torch.Tensor:
        read: torch.Tensor = network(row(items, side, 0, shift), torch.tensor([min(len(items), LENGTH)]))[0]
        return read[first_index:] if first_index else read

    inputs = {"item_seq": foreign.histories(), "item_seq_len": foreign.numbers()}
    return Case(network, inputs, Statements(padding=side, first_index=first_index), answer)  # type: ignore[arg-type]


def gru(first_index: int, max_history: int = 0) -> Case:
    filler = 0 if first_index else N_ITEMS
    length = max_history or LENGTH
    return Case(
        foreign.Gru(filler),
        {"sessions": foreign.histories()},
        Statements(padding="left", first_index=first_index, padding_index=filler, max_history=max_history),
        lambda network, items: network(row(items, "left", filler, first_index - 1, length))[0],
        (0, 1) if max_history else (0,),
    )


def single(case: Case) -> Case:
    """The same exported for a batch of one."""
    return case._replace(inputs={name: value[:1] for name, value in case.inputs.items()}, free=())


CASES = {
    "a length, padded on the right": lambda: sequence(),
    "a length, padded on the left": lambda: sequence(side="left"),
    "items from 0 without a padding column": lambda: sequence(first_index=0),
    "no length, padded on the left": lambda: gru(1),
    "items from 0, padded with the last": lambda: gru(0),
    "a history as long as one likes": lambda: gru(1, max_history=9),
    "32-bit indices": lambda: sequence()._replace(
        inputs={
            "item_seq": foreign.histories(dtype=torch.int32),
            "item_seq_len": foreign.numbers(dtype=torch.int32),
        }
    ),
    "a batch of one that works with any": lambda: single(sequence()),
}


@pytest.mark.parametrize("name", CASES)
def test_an_imported_graph_scores_as_its_network_does(name: str, tmp_path: Path) -> None:
    case = CASES[name]()
    path = foreign.export(case.network, tmp_path / "model.onnx", case.inputs, free=case.free)
    built = imported(path, case.stated, tmp_path / "bundle")
    recommender = OnnxRecommender(built.bundle)
    with torch.no_grad():
        expected = torch.stack([case.answer(case.network, history) for history in HISTORIES]).numpy()
    found = all_scores(recommender, recommender.inputs(HISTORIES))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert built.agreement.difference <= 1e-5
    assert not built.agreement.real
    assert built.bundle.description.head == "dot_product"
    assert not built.bundle.description.hooks[0].all_positions
    verify_behaviour(recommender)


def test_a_graph_that_reads_users_answers_strangers_with_the_mean_user(tmp_path: Path) -> None:
    for first in (0, 1):
        network = foreign.Factors(first)
        path = foreign.export(network, tmp_path / f"{first}.onnx", {"user_id": foreign.numbers()})
        built = imported(path, Statements(first_user=first), tmp_path / f"bundle{first}", users=USERS)
        recommender = OnnxRecommender(built.bundle)
        with torch.no_grad():
            vectors = network.users.weight.numpy()[first:]
            expected = network.users.weight.numpy()[first:] @ network.items.weight.numpy()[1:].T
        inputs = recommender.inputs([[]] * (N_USERS + 1), [*USERS, "stranger"])
        np.testing.assert_allclose(all_scores(recommender, inputs)[:-1], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(recommender.embed(inputs).activation[-1], vectors.mean(axis=0), rtol=1e-4, atol=1e-5)
        assert "mean" in built.notes[-1]
        verify_behaviour(recommender)


def test_a_ranker_of_pairs_reads_candidates_and_attributes(tmp_path: Path) -> None:
    network = foreign.Pair()
    inputs = {
        "history": foreign.histories(),
        "target": foreign.numbers(),
        "gender": foreign.numbers(),
        "age": torch.ones(2),
    }
    path = foreign.export(network, tmp_path / "pair.onnx", inputs)
    built = imported(path, Statements(inputs=("gender=attribute:sex:,F,M",)), tmp_path / "bundle")
    recommender = OnnxRecommender(built.bundle)
    hook, reads = built.bundle.description.hooks[0], built.bundle.description.inputs
    assert (hook.rows, hook.dim, built.bundle.description.head) == ("pair", DIM, "opaque")
    assert [(one.name, one.kind, one.values) for one in reads.attributes] == [
        ("sex", "category", ("F", "M")),
        ("age", "number", ()),
    ]
    assert reads.empty_history
    subjects = recommender.inputs([[1, 2, 3], []], attributes=[{"sex": "M", "age": 40}, {}])
    candidates = np.array([[4, 20], [1, 5]])
    embedded = recommender.embed_pairs(subjects, candidates)
    ranked = recommender.rank(embedded.activation, embedded.passthrough, k=2, candidates=candidates)
    with torch.no_grad():
        histories = torch.tensor([[1, 2, 3, 0, 0, 0]] * 2 + [[0] * LENGTH] * 2)
        click = network(
            histories, torch.tensor([4, 20, 1, 5]), torch.tensor([2, 2, 0, 0]), torch.tensor([40.0, 40, 0, 0])
        )
    expected = click.numpy().reshape(2, 2)
    for at in range(2):
        found = dict(zip(ranked.items[at].tolist(), ranked.scores[at].tolist(), strict=True))
        np.testing.assert_allclose([found[item] for item in candidates[at].tolist()], expected[at], rtol=1e-4)
    verify_behaviour(recommender)


def test_several_interests_are_rows_of_one_subject(tmp_path: Path) -> None:
    network = foreign.Interests()
    inputs = {"history": foreign.histories(), "mask": foreign.histories(dtype=torch.bool)}
    path = foreign.export(network, tmp_path / "model.onnx", inputs)
    built = imported(path, Statements(), tmp_path / "bundle")
    recommender = OnnxRecommender(built.bundle)
    hook = built.bundle.description.hooks[0]
    assert (hook.rows, hook.interests, hook.dim) == ("interest", 3, DIM)
    histories = torch.cat([row(history, "right") for history in HISTORIES])
    with torch.no_grad():
        expected = network(histories, histories > 0).numpy()[:, 1:]
    found = all_scores(recommender, recommender.inputs(HISTORIES))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    verify_behaviour(recommender)


def test_a_residual_crosses_the_cut_beside_the_activation(tmp_path: Path) -> None:
    network = foreign.Residual()
    path = foreign.export(network, tmp_path / "model.onnx", {"history": foreign.histories()})
    inner = next(one for one in study(path, Statements()).candidates() if one.operator == "Tanh")
    built = imported(path, Statements(), tmp_path / "bundle", [inner.name])
    assert built.bundle.description.passthrough == inner.crossing
    assert inner.crossing_numbers == DIM
    assert built.bundle.description.head == "opaque"
    recommender = OnnxRecommender(built.bundle)
    with torch.no_grad():
        expected = network(torch.cat([row(history, "right") for history in HISTORIES])).numpy()[:, 1:]
    found = all_scores(recommender, recommender.inputs(HISTORIES))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    verify_behaviour(recommender)


def test_further_activations_can_be_read_beside_the_first(tmp_path: Path) -> None:
    path = foreign.export(
        foreign.TwoOutputs(), tmp_path / "model.onnx", {"history": foreign.histories()}, ("hidden", "scores")
    )
    inner = study(path, Statements()).candidates()[0].name
    built = imported(path, Statements(), tmp_path / "bundle", ["hidden", inner], hooks=[f"mean={inner}"])
    hooks = built.bundle.description.hooks
    assert [(hook.name, hook.steerable, hook.dim) for hook in hooks] == [("hidden", True, DIM), ("mean", False, DIM)]
    recommender = OnnxRecommender(built.bundle)
    verify_behaviour(recommender)
    inputs = recommender.inputs([[5, 5, 5, 5, 5, 5]])
    weights = next(one for one in onnx.load(str(path)).graph.initializer if one.name == "items.weight")
    item = numpy_helper.to_array(weights)[5]
    np.testing.assert_allclose(recommender.embed(inputs, hook="mean").activation[0], item, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_layer_over_all_places_is_read_at_the_newest_item(side: str, tmp_path: Path) -> None:
    case = sequence(side=side)
    path = foreign.export(case.network, tmp_path / "model.onnx", case.inputs)
    studied = study(path, case.stated)
    layers = [name for name in studied.sequences() if "layer.0" in name]
    chosen = suggestion(studied.candidates())
    assert chosen
    built = imported(path, case.stated, tmp_path / "bundle", [chosen.candidate.name, layers[-1]])
    network: Any = case.network
    recommender = OnnxRecommender(built.bundle)
    verify_behaviour(recommender)
    found = recommender.embed(recommender.inputs(HISTORIES), hook=built.bundle.description.hooks[1].name).activation
    with torch.no_grad():
        for at, history in enumerate(HISTORIES):
            vectors = network.items(row(history, side)) + network.places.weight
            hidden = network.layer[0](torch.cumsum(vectors, dim=1) / 10 + vectors)[0]
            newest = LENGTH - 1 if side == "left" else min(len(history), LENGTH) - 1
            np.testing.assert_allclose(found[at], hidden[newest].numpy(), rtol=1e-4, atol=1e-5)


def test_half_precision_stays_at_the_cut(tmp_path: Path) -> None:
    path = foreign.by_hand(tmp_path / "model.onnx", np.float16, "rows")
    built = imported(path, Statements(), tmp_path / "bundle")
    for file, side in (("trunk.onnx", "output"), ("head.onnx", "input")):
        graph = onnx.load(str(tmp_path / "bundle" / file)).graph
        there = {value.name: value.type.tensor_type.elem_type for value in getattr(graph, side)}
        assert there["activation"] == TensorProto.FLOAT16
    assert built.agreement.difference <= 1e-2
    verify_behaviour(OnnxRecommender(built.bundle))


def test_a_graph_of_one_row_is_served_row_by_row(tmp_path: Path) -> None:
    any_batch = imported(foreign.by_hand(tmp_path / "any.onnx", np.float32, "rows"), Statements(), tmp_path / "a")
    one_row = imported(foreign.by_hand(tmp_path / "one.onnx", np.float32, 1), Statements(), tmp_path / "b")
    assert "batch of 1 alone" in one_row.notes[0]
    first, second = OnnxRecommender(any_batch.bundle), OnnxRecommender(one_row.bundle)
    expected = all_scores(first, first.inputs(HISTORIES))
    np.testing.assert_allclose(all_scores(second, second.inputs(HISTORIES)), expected, rtol=1e-5, atol=1e-6)
    verify_behaviour(second)


def test_operators_of_an_old_set_are_converted(tmp_path: Path) -> None:
    path = foreign.export(foreign.Residual(), tmp_path / "old.onnx", {"history": foreign.histories()}, opset=11)
    assert onnx.load(str(path)).opset_import[0].version == 11
    built = imported(path, Statements(), tmp_path / "bundle")
    assert built.agreement.difference <= 1e-5
    verify_behaviour(OnnxRecommender(built.bundle))


def test_functions_of_a_graph_are_written_out(tmp_path: Path) -> None:
    path = foreign.by_hand(tmp_path / "model.onnx", np.float32, "rows")
    model = onnx.load(str(path))
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    opset = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(helper.make_function("own", "Bend", ["x"], ["y"], body, opset))
    model.opset_import.append(helper.make_opsetid("own", 1))
    relu.op_type, relu.domain = "Bend", "own"
    onnx.save(model, str(path))
    found = study(path, Statements()).candidates()
    assert ("Relu", "activation") in {(one.operator, one.name) for one in found}


def test_a_batch_that_is_fixed_inside_alone_is_found(tmp_path: Path) -> None:
    """As exporters leave it: the inputs' batch is free, a shape inside is that of the example."""
    path = foreign.by_hand(tmp_path / "model.onnx", np.float32, 2)
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "rows"
    onnx.save(model, str(path))
    built = imported(path, Statements(), tmp_path / "bundle")
    assert "takes 2 alone, as its example had" in built.notes[0]
    recommender = OnnxRecommender(built.bundle)
    found = all_scores(recommender, recommender.inputs(HISTORIES[:3]))
    other = imported(foreign.by_hand(tmp_path / "any.onnx", np.float32, "rows"), Statements(), tmp_path / "other")
    expected = all_scores(OnnxRecommender(other.bundle), recommender.inputs(HISTORIES[:3]))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    verify_behaviour(recommender)


def test_vectors_of_a_linear_head_are_found(tmp_path: Path) -> None:
    case = gru(1)
    path = foreign.export(case.network, tmp_path / "model.onnx", case.inputs)
    bundle = imported(path, case.stated, tmp_path / "bundle").bundle
    network: Any = case.network
    assert bundle.item_vectors is not None
    assert bundle.item_bias is not None
    vectors, bias = network.items.weight.detach().numpy(), network.bias.detach().numpy()
    np.testing.assert_allclose(bundle.item_vectors[1:], vectors[1:], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bundle.item_bias[1:], bias, rtol=1e-4, atol=1e-5)
    assert not bundle.item_vectors[0].any()


def test_a_head_that_bends_is_called_opaque(tmp_path: Path) -> None:
    path = foreign.by_hand(tmp_path / "model.onnx", np.float32, "rows")
    built = imported(path, Statements(), tmp_path / "bundle", ["inner"])
    assert built.bundle.description.head == "opaque"
    assert not (tmp_path / "bundle" / HEAD_TENSORS).exists()
