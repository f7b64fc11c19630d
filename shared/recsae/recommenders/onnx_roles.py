"""What each input of a foreign graph is: guessed from type, rank and name, or stated as `NAME=ROLE`.

Not here: how a subject is turned into those inputs (`onnx_inputs`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from onnx import TensorProto

from recsae.errors import InvalidRequestError
from recsae.recommenders.description import AttributeInput
from recsae.recommenders.onnx_graph import InputType

RoleKind = Literal["history", "length", "mask", "user", "candidate", "attribute"]
_FORMS = "history, length, mask, user, candidate or attribute:NAME"
_ROW, _SEQUENCE = 1, 2
_LENGTH = re.compile(r"length|lens?(?![a-z])|num(?![a-z])|count")
_USER, _CANDIDATE = re.compile(r"user|uid|customer|visitor"), re.compile(r"item|candidate|target|product")


@dataclass(frozen=True)
class Role:
    """An input of the graph and what it is.

    `zero_is_unknown` of a category: the graph's index 0 means that the value is not known; else the graph knows no such
    index, and its first value stands in.
    """

    tensor: str
    kind: RoleKind
    type: InputType
    attribute: AttributeInput | None = None
    zero_is_unknown: bool = False


def assign_roles(
    inputs: Mapping[str, InputType], stated: Sequence[str] = (), *, values_needed: bool = True
) -> tuple[Role, ...]:
    """A role for every input, in the graph's order. `stated` are texts `NAME=ROLE`; the rest is guessed.

    Roles: history, length, mask, user, candidate, or attribute:NAME, with `:DEFAULT` behind it for a number and
    `:VALUE,VALUE` or `:FILE.json` for a category, values in the order of the graph's indices from 0, the first one
    empty where 0 means "not known". `values_needed=False` lets a category come without values. InvalidRequestError
    names the inputs, the contradiction and the remedy.
    """
    wanted = dict(_parsed(text, inputs) for text in stated)
    roles = tuple(
        _stated(name, kind, wanted[name], values_needed) if name in wanted else _guess(name, kind, values_needed)
        for name, kind in inputs.items()
    )
    _check_together(roles, inputs)
    return roles


def listed(inputs: Mapping[str, InputType]) -> str:
    """The graph's inputs in one line."""
    return "; ".join(f"{name}: {kind}" for name, kind in inputs.items())


def rank_of(kind: InputType) -> int:
    """Axes of an input, an axis of one value behind the batch not counted."""
    return _ROW if len(kind.dims) == _SEQUENCE and kind.dims[1] == 1 else len(kind.dims)


def _parsed(text: str, inputs: Mapping[str, InputType]) -> tuple[str, str]:
    name, found, role = text.rpartition("=") if text.count("=") == 1 else text.partition("=")
    if not found or not name or not role:
        raise InvalidRequestError(f"--input {text!r} is not NAME=ROLE; ROLE is {_FORMS}")
    if name not in inputs:
        raise InvalidRequestError(f"--input names {name!r}, which the graph does not read; it reads {listed(inputs)}")
    return name, role


def _guess(name: str, kind: InputType, values_needed: bool) -> Role:
    low, rank = name.lower(), rank_of(kind)
    if rank == _SEQUENCE and (kind.element == TensorProto.BOOL or "mask" in low):
        return _made(name, "mask", kind)
    if rank == _SEQUENCE and kind.is_integer:
        return _made(name, "history", kind)
    if rank == _ROW and kind.is_integer:
        if _LENGTH.search(low):
            return _made(name, "length", kind)
        if _USER.search(low):
            return _made(name, "user", kind)
        if _CANDIDATE.search(low):
            return _made(name, "candidate", kind)
    if rank == _ROW:
        return _attribute(name, kind, re.sub(r"\W", "_", name), "", values_needed)
    raise InvalidRequestError(
        f"what input {name!r} ({kind}) is cannot be guessed; say --input {name}=ROLE, ROLE being {_FORMS}, "
        "or export the graph without it"
    )


def _stated(name: str, kind: InputType, role: str, values_needed: bool) -> Role:
    head, _, rest = role.partition(":")
    if head not in get_args(RoleKind):
        raise InvalidRequestError(f"--input {name}={role}: there is no role {head!r}; take {_FORMS}")
    if head == "attribute":
        attribute, _, more = rest.partition(":")
        if not attribute:
            raise InvalidRequestError(f"--input {name}={role} names no attribute; say e.g. {name}=attribute:age")
        return _attribute(name, kind, attribute, more, values_needed)
    return _made(name, head, kind)  # type: ignore[arg-type]


def _made(name: str, role: RoleKind, kind: InputType) -> Role:
    wanted = _SEQUENCE if role in ("history", "mask") else _ROW
    if rank_of(kind) != wanted:
        raise InvalidRequestError(f"input {name!r} is {kind}, a {role} has {wanted} axes; give it another role")
    if role in ("history", "user", "candidate") and not kind.is_integer:
        raise InvalidRequestError(f"input {name!r} is {kind}, a {role} is a whole number; give it another role")
    return Role(name, role, kind)


def _attribute(name: str, kind: InputType, attribute: str, more: str, values_needed: bool) -> Role:
    if rank_of(kind) != _ROW:
        raise InvalidRequestError(f"input {name!r} is {kind}, an attribute is one value per row; give it another role")
    if kind.is_float:
        try:
            return Role(name, "attribute", kind, AttributeInput(attribute, "number", default=float(more or 0)))
        except ValueError as error:
            raise InvalidRequestError(
                f"--input {name}=attribute:{attribute}:{more}: the input is {kind}, and {more!r} is no number"
            ) from error
    values = _values(more)
    if not values and values_needed:
        raise InvalidRequestError(
            f"input {name!r} is {kind}, taken for the category {attribute!r}: name its values in the order of the "
            f"graph's indices from 0, e.g. --input {name}=attribute:{attribute}:,F,M (the empty one: not known) or a "
            f"JSON list --input {name}=attribute:{attribute}:values.json; or give it another role ({_FORMS})"
        )
    unknown = bool(values) and not values[0]
    return Role(name, "attribute", kind, AttributeInput(attribute, "category", values[unknown:]), unknown)


def _values(text: str) -> tuple[str, ...]:
    if not text.endswith(".json"):
        return tuple(text.split(",")) if text else ()
    try:
        content = json.loads(Path(text).read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"{text} cannot be read as a JSON list of values: {error}") from error
    if not isinstance(content, list) or not all(isinstance(value, str) for value in content):
        raise InvalidRequestError(f"{text} is not a JSON list of texts")
    return tuple(content)


def _check_together(roles: Sequence[Role], inputs: Mapping[str, InputType]) -> None:
    by_kind: dict[str, list[str]] = {}
    for role in roles:
        by_kind.setdefault(f"attribute {role.attribute.name}" if role.attribute else role.kind, []).append(role.tensor)
    for what, names in by_kind.items():
        if len(names) > 1:
            raise InvalidRequestError(
                f"inputs {', '.join(map(repr, names))} would each be the {what}; say which is what with "
                f"--input NAME=ROLE, ROLE being {_FORMS}"
            )
    if "history" not in by_kind and (odd := [*by_kind.get("length", []), *by_kind.get("mask", [])]):
        raise InvalidRequestError(
            f"input {odd[0]!r} would be of a history, and none is read; the graph reads {listed(inputs)}: give it "
            "another role with --input"
        )
    if not {"history", "user"} & set(by_kind) and not any(role.attribute for role in roles):
        raise InvalidRequestError(
            f"the graph reads neither a history nor a user nor attributes, only {listed(inputs)}; say what they are "
            "with --input NAME=ROLE"
        )
