"""Records as plain values and as Arrow columns, both read off the types of their fields, and back.

Unlike the dictionary's own file nothing is shortened here: every field has its name, every struct its fields. Not
here: files (`export`). pyarrow, of the role worker, is imported on use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, cast, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    import pyarrow


def plain(value: Any) -> Any:
    """Dataclasses and mappings as dicts, tuples as lists, words of an enumeration as strings."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, str) else value


def from_plain(hint: Any, value: Any) -> Any:
    """The value of type `hint` that `plain` was given; fields that are not there take their defaults."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return None if value is None else from_plain(_present(arguments), value)
    if origin is tuple:
        return tuple(from_plain(arguments[0], each) for each in value)
    if origin is not None and issubclass(origin, Mapping):
        return {name: from_plain(arguments[1], each) for name, each in value.items()}
    if is_dataclass(hint):
        fields, made = get_type_hints(hint), cast("Callable[..., Any]", hint)
        return made(**{name: from_plain(fields[name], each) for name, each in value.items() if name in fields})
    return hint(value)


def arrow_type(hint: Any) -> pyarrow.DataType:
    """Arrow's type: dataclasses are structs, tuples lists, mappings maps, "or None" null."""
    import pyarrow

    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return arrow_type(_present(arguments))
    if origin is tuple:
        return pyarrow.list_(arrow_type(arguments[0]))
    if origin is not None and issubclass(origin, Mapping):
        return pyarrow.map_(*map(arrow_type, arguments))
    if is_dataclass(hint):
        return pyarrow.struct([(name, arrow_type(inner)) for name, inner in get_type_hints(hint).items()])
    if issubclass(hint, str):
        return pyarrow.string()
    return {bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}[hint]


def _present(arguments: tuple[Any, ...]) -> Any:
    (inner,) = (one for one in arguments if one is not type(None))
    return inner
