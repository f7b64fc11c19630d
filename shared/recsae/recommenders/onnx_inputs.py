"""Turns subjects, as trunks of ours read them, into a foreign graph's inputs: once in numpy, once as operators.

The operators go into the new trunk; numpy feeds the original, so that a check of one against the other tests both. What
each input is, is decided in `onnx_roles`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from recsae.recommenders.description import AttributeInput, Inputs
from recsae.recommenders.inputs import ATTRIBUTE, CANDIDATE, HISTORY, USER, Ints, ModelInputs
from recsae.recommenders.onnx_graph import Size
from recsae.recommenders.onnx_roles import Role, rank_of

# In front of the names of our own tensors, which no other tool's graph has.
OWN = "recsae."
NEWEST = f"{OWN}newest"


@dataclass(frozen=True)
class Conventions:
    """How the graph counts and pads.

    Its index of our item i is i - 1 + `first_item`, and `padding_index` stands where there is no item; likewise users,
    `unknown_user` for nobody it knows.
    """

    max_history: int
    padding: Literal["left", "right"] = "right"
    first_item: int = 1
    padding_index: int = 0
    first_user: int = 1
    unknown_user: int = 0


def inputs_read(roles: Sequence[Role], empty_history: bool = False) -> Inputs:
    """What a bundle says that its trunk reads."""
    kinds = {role.kind for role in roles}
    attributes = tuple(role.attribute for role in roles if role.attribute)
    return Inputs("history" in kinds, "user" in kinds, attributes, empty_history)


def original_feed(
    roles: Sequence[Role], how: Conventions, inputs: ModelInputs, candidates: Ints | None = None
) -> dict[str, NDArray[Any]]:
    """What the original graph is fed for n subjects, each paired with its candidate (int64 [n]) where it reads one."""
    present = inputs.history > 0
    history = np.where(present, inputs.history - 1 + how.first_item, how.padding_index)
    if how.padding == "left":
        shifted = np.full_like(history, how.padding_index)
        shifted[present[:, ::-1]] = history[present]  # row by row, each in its order, at the other side
        history, mask = shifted, present[:, ::-1]
    else:
        mask = present
    feed: dict[str, NDArray[Any]] = {}
    for role in roles:
        if role.kind == "candidate":
            value: NDArray[Any] = np.zeros(len(inputs), np.int64) if candidates is None else candidates
            value = value - 1 + how.first_item
        elif role.kind == "user":
            value = np.where(inputs.user > 0, inputs.user - 1 + how.first_user, how.unknown_user)
        elif role.attribute:
            value = _attribute(role, inputs.attributes.get(role.attribute.name, np.zeros(len(inputs), np.int64)))
        else:
            value = {"history": history, "mask": mask, "length": present.sum(axis=1)}[role.kind]
        shape = value.shape if rank_of(role.type) == len(role.type.dims) else (*value.shape, 1)
        feed[role.tensor] = value.reshape(shape).astype(helper.tensor_dtype_to_np_dtype(role.type.element))
    return feed


def _attribute(role: Role, values: NDArray[Any]) -> NDArray[Any]:
    assert role.attribute
    if role.attribute.kind == "number" or role.zero_is_unknown:
        return values
    first_stands_in: Ints = np.maximum(values - 1, 0)
    return first_stands_in


@dataclass(frozen=True)
class Adapter:
    """Inputs of a new trunk, and the operators and constants that make the original graph's inputs of them."""

    inputs: tuple[onnx.ValueInfoProto, ...]
    nodes: tuple[onnx.NodeProto, ...]
    constants: tuple[onnx.TensorProto, ...]


def adapter(
    roles: Sequence[Role], how: Conventions, batch: Size, made: Mapping[str, str], *, newest: bool = False
) -> Adapter:
    """Operators that make, under its name in `made`, every input of the original that is named there.

    With `newest`, `NEWEST` int64 [batch, 1] is made too: the place of the newest item in the graph's history.
    """
    builder = _Builder(how, batch)
    for role in roles:
        if role.tensor in made:
            builder.make(role, made[role.tensor])
    if newest:
        builder.make_newest()
    inputs = [builder.inputs[name] for name in sorted(builder.inputs, key=_order)]
    return Adapter(tuple(inputs), tuple(builder.nodes), tuple(builder.constants))


def _order(name: str) -> tuple[int, str]:
    first = (HISTORY, USER, CANDIDATE)
    return (first.index(name) if name in first else len(first), name)


class _Builder:
    """Writes operators one after the other; a tensor that several inputs need is made once."""

    def __init__(self, how: Conventions, batch: Size) -> None:
        self.how, self.batch = how, batch
        self.inputs: dict[str, onnx.ValueInfoProto] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._done: set[str] = set()

    def make(self, role: Role, name: str) -> None:
        """The original's input `role.tensor`, to be called `name`."""
        if role.kind == "history":
            value = self._history()
        elif role.kind == "mask":
            value = self._node("Greater", [self._sided(), self._constant("zero", 0)], "mask")
        elif role.kind == "length":
            value = self._length()
        elif role.kind == "candidate":
            value = self._counted(self._input(CANDIDATE), self.how.first_item, "candidate")
        elif role.kind == "user":
            value = self._user()
        else:
            assert role.attribute
            value = self._attribute(role, role.attribute)
        shape = [-1, 1] if len(role.type.dims) > rank_of(role.type) else [-1]
        if role.kind not in ("history", "mask"):
            value = self._node("Reshape", [value, self._constant(f"shape{len(shape)}", shape)], f"{role.tensor}.shaped")
        self.nodes.append(helper.make_node("Cast", [value], [name], to=role.type.element))

    def make_newest(self) -> None:
        """Place of the newest item: behind the length, or the last one."""
        last = self._constant("last_place", self.how.max_history - 1)
        length = self._length()
        if self.how.padding == "left":
            nothing = self._node("Sub", [length, length], "nothing")
            self._node("Add", [nothing, last], NEWEST.removeprefix(OWN))
            return
        before = self._node("Sub", [length, self._constant("one", 1)], "before")
        self._node("Max", [before, self._constant("zero", 0)], NEWEST.removeprefix(OWN))

    def _history(self) -> str:
        how, sided = self.how, self._sided()
        if how.first_item == 1 and how.padding_index == 0:
            return sided
        there = self._node("Greater", [sided, self._constant("zero", 0)], "there")
        counted = self._counted(sided, how.first_item, "counted")
        return self._node("Where", [there, counted, self._constant("padding_index", how.padding_index)], "filled")

    def _sided(self) -> str:
        """The history with its padding on the graph's side: a turn by its length, modulo the width."""
        history = self._input(HISTORY, width=self.how.max_history)
        if self.how.padding == "right":
            return history
        places = self._constant("places", [list(range(self.how.max_history))])
        moved = self._node("Add", [self._length(), places], "moved")
        turned = self._node("Mod", [moved, self._constant("width", self.how.max_history)], "turned")
        return self._node("GatherElements", [history, turned], "sided", axis=1)

    def _length(self) -> str:
        history = self._input(HISTORY, width=self.how.max_history)
        present = self._node("Greater", [history, self._constant("zero", 0)], "present")
        numbers = self._node("Cast", [present], "present_numbers", to=TensorProto.INT64)
        return self._node("ReduceSum", [numbers, self._constant("second_axis", [1])], "length", keepdims=1)

    def _user(self) -> str:
        user, how = self._input(USER), self.how
        counted = self._counted(user, how.first_user, "user_counted")
        if how.unknown_user == how.first_user - 1:
            return counted
        known = self._node("Greater", [user, self._constant("zero", 0)], "known")
        return self._node("Where", [known, counted, self._constant("unknown_user", how.unknown_user)], "user_or_other")

    def _attribute(self, role: Role, attribute: AttributeInput) -> str:
        number = attribute.kind == "number"
        element = TensorProto.FLOAT if number else TensorProto.INT64
        given = self._input(f"{ATTRIBUTE}{attribute.name}", element)
        if number or role.zero_is_unknown:
            return given
        less = self._node("Sub", [given, self._constant("one", 1)], f"{role.tensor}.counted")
        return self._node("Max", [less, self._constant("zero", 0)], f"{role.tensor}.known")

    def _counted(self, value: str, first: int, name: str) -> str:
        if first == 1:
            return value
        return self._node("Add", [value, self._constant(f"{name}_shift", first - 1)], name)

    def _input(self, name: str, element: int = TensorProto.INT64, width: int = 0) -> str:
        shape = [self.batch, width] if width else [self.batch]
        self.inputs.setdefault(name, helper.make_tensor_value_info(name, element, shape))
        return name

    def _constant(self, name: str, value: int | list[int] | list[list[int]]) -> str:
        called = f"{OWN}{name}"
        if called not in self._done:
            self._done.add(called)
            self.constants.append(numpy_helper.from_array(np.asarray(value, np.int64), called))
        return called

    def _node(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        called = f"{OWN}{name}"
        if called not in self._done:
            self._done.add(called)
            self.nodes.append(helper.make_node(operator, inputs, [called], **attributes))
        return called
