"""What an input of a foreign graph is taken for, and which sentence asks where it cannot be known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from onnx import TensorProto

from recsae.errors import InvalidRequestError
from recsae.recommenders.onnx_graph import InputType
from recsae.recommenders.onnx_roles import assign_roles

HISTORY = InputType(TensorProto.INT64, ("batch", 50))
ONE = InputType(TensorProto.INT32, ("batch",))
COLUMN = InputType(TensorProto.INT64, ("batch", 1))
NUMBER = InputType(TensorProto.FLOAT, ("batch",))


@pytest.mark.parametrize(
    ("name", "kind", "role"),
    [
        ("item_seq", HISTORY, "history"),
        ("input_1", HISTORY, "history"),
        ("attention_mask", HISTORY, "mask"),
        ("seen", InputType(TensorProto.BOOL, ("batch", 50)), "mask"),
        ("item_seq_len", ONE, "length"),
        ("item_length", ONE, "length"),
        ("seq_lens", COLUMN, "length"),
        ("num", ONE, "length"),
        ("user_id", ONE, "user"),
        ("uid", COLUMN, "user"),
        ("target_item", ONE, "candidate"),
        ("item_id", COLUMN, "candidate"),
        ("lens_model", NUMBER, "attribute"),
    ],
)
def test_an_input_is_taken_for_what_its_type_and_name_say(name: str, kind: InputType, role: str) -> None:
    others = {"h": HISTORY} if role != "history" else {}
    assert {one.tensor: one.kind for one in assign_roles({**others, name: kind})}[name] == role


def test_a_stated_role_wins_over_the_guess() -> None:
    (role, _) = assign_roles({"item_id": ONE, "seq": HISTORY}, ["item_id=user"])
    assert role.kind == "user"


def test_categories_come_with_their_values_in_the_order_of_the_graphs_indices(tmp_path: Path) -> None:
    def of(text: str) -> tuple[tuple[str, ...], bool]:
        (_, role) = assign_roles({"seq": HISTORY, "g": ONE}, [f"g=attribute:gender:{text}"])
        assert role.attribute
        assert (role.attribute.name, role.attribute.kind) == ("gender", "category")
        return role.attribute.values, role.zero_is_unknown

    assert of("F,M") == (("F", "M"), False)
    assert of(",F,M") == (("F", "M"), True)
    (tmp_path / "values.json").write_text(json.dumps(["", "a", "b"]))
    assert of(str(tmp_path / "values.json")) == (("a", "b"), True)


def test_numbers_have_a_default() -> None:
    (_, role) = assign_roles({"seq": HISTORY, "age": NUMBER}, ["age=attribute:years:35.5"])
    assert role.attribute
    assert (role.attribute.name, role.attribute.kind, role.attribute.default) == ("years", "number", 35.5)


@pytest.mark.parametrize(
    ("inputs", "stated", "message"),
    [
        ({"a": HISTORY, "b": HISTORY}, [], "inputs 'a', 'b' would each be the history; say which is what"),
        ({"user_id": ONE, "uid": ONE}, [], "would each be the user"),
        ({"seq_len": ONE}, [], "input 'seq_len' would be of a history, and none is read"),
        ({"item": ONE}, [], "reads neither a history nor a user nor attributes, only item: int32"),
        ({"seq": HISTORY}, ["nobody=user"], "names 'nobody', which the graph does not read; it reads seq: int64"),
        ({"seq": HISTORY}, ["seq=sequence"], "there is no role 'sequence'; take history, length, mask"),
        ({"seq": HISTORY}, ["seq"], "is not NAME=ROLE"),
        ({"seq": HISTORY}, ["seq=user"], "a user has 1 axes; give it another role"),
        ({"seq": HISTORY, "x": ONE}, ["x=history"], "a history has 2 axes"),
        ({"seq": HISTORY, "x": NUMBER}, ["x=user"], "is float .* a user is a whole number"),
        ({"seq": HISTORY, "x": NUMBER}, ["x=attribute:age:old"], "'old' is no number"),
        ({"seq": HISTORY, "x": ONE}, ["x=attribute"], "names no attribute"),
        ({"seq": HISTORY, "gender": ONE}, [], "taken for the category 'gender': name its values"),
        ({"seq": HISTORY, "g": ONE}, ["g=attribute:g:no.json"], "cannot be read as a JSON list"),
        ({"picture": InputType(TensorProto.FLOAT, ("batch", 3, 64, 64))}, [], "'picture' .* cannot be guessed"),
        ({"seq": HISTORY, "a": NUMBER, "b": NUMBER}, ["b=attribute:a"], "would each be the attribute a"),
    ],
)
def test_contradictions_are_refused_with_the_inputs_and_the_remedy(
    inputs: dict[str, InputType], stated: list[str], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        assign_roles(inputs, stated)


def test_a_category_may_come_without_values_where_nothing_is_imported() -> None:
    (_, role) = assign_roles({"seq": HISTORY, "gender": ONE}, values_needed=False)
    assert role.attribute
    assert not role.attribute.values
