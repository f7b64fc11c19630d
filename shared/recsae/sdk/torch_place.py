"""Where in a module's output (or input) the rows of a hook lie: taken out, and put back changed.

A value may be a tensor, or a tuple, list or mapping that holds it. Of the tensor's axes the first is the batch; which
rows count is the `row` of `attach`. Tensors are changed on copies, and only in the rows named: whoever holds the
original, and every other row, keeps its bits. Not here: when (`torch_tap`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.recommenders.description import RowKind
from recsae.sdk.vocabulary import Indices
from recsae.steering.plans import Floats

Row = Literal["all", "last", "interest", "pair"] | int | Callable[[Tensor], Tensor]
"""How the rows lie in the tensor.

"all" [batch, d]; "pair" the same, a row per subject and candidate; "interest" [batch, interests, d]; of [batch, length,
d] one position of each: "last" the newest, an int a fixed one (-1 = the end), a callable the int64 [batch] it returns.
"""
Part = int | str | None

_AXES = {"all": 2, "pair": 2}


@dataclass(frozen=True)
class Place:
    """A place in a model. `name` is the hook's name in the contract, `path` the module's; None = no module."""

    name: str
    path: str | None
    row: Row = "all"
    at: Literal["output", "input"] = "output"
    part: Part = None

    def __post_init__(self) -> None:
        """Refuses what cannot be a place."""
        if isinstance(self.row, str) and self.row not in ("all", "last", "interest", "pair"):
            raise InvalidRequestError(f"row = {self.row!r}; use all, last, interest, pair, a position or a callable")
        if self.at not in ("output", "input"):
            raise InvalidRequestError(f"at = {self.at!r}; use output or input")
        if not self.name or "@" in self.name:
            raise InvalidRequestError(f"a hook's name is {self.name!r}; it must not be empty or hold '@'")

    @property
    def kind(self) -> RowKind:
        """What one row stands for."""
        return self.row if self.row == "interest" or self.row == "pair" else "subject"

    @property
    def described(self) -> str:
        """Words for the version's hash: activations read elsewhere are not the same activations."""
        row = "callable" if callable(self.row) else self.row
        return f"{self.path}:{self.at}:{self.part}:{row}"


def tensor_in(value: Any, part: Part) -> Tensor:
    """The tensor of a value; FailedPreconditionError when there is none where `part` says (None = the first)."""
    if isinstance(value, Tensor) and part is None:
        return value
    try:
        found = value[_key(value, part)]
    except (KeyError, IndexError, TypeError, StopIteration) as error:
        raise FailedPreconditionError(
            f"the module gives a {type(value).__name__} without a tensor at part {part!r}; name the right `part`"
        ) from error
    if not isinstance(found, Tensor):
        raise FailedPreconditionError(f"part {part!r} of the module's value is a {type(found).__name__}, not a tensor")
    return found


def with_tensor(value: Any, part: Part, tensor: Tensor) -> Any:
    """A value like `value` with another tensor in its place; containers are copied."""
    if isinstance(value, Tensor) and part is None:
        return tensor
    key = _key(value, part)
    if isinstance(value, tuple):
        changed = [*value[:key], tensor, *value[key + 1 :]]
        # Named tuples are made from fields, torch's own result types from a sequence.
        return type(value)(*changed) if hasattr(value, "_fields") else type(value)(changed)
    copied = value.copy()
    copied[key] = tensor
    return copied


def _key(value: Any, part: Part) -> Any:
    if part is not None:
        return part % len(value) if isinstance(part, int) and isinstance(value, tuple | list) else part
    entries = value.items() if isinstance(value, Mapping) else enumerate(value)
    return next(key for key, one in entries if isinstance(one, Tensor))


@dataclass(frozen=True)
class Rows:
    """Rows of one tensor: of [batch, length, d] `positions` [batch] says where each lies, else it is None.

    Of [batch, `each`, d] every row counts. Positions are numbers of the processor, whatever device the tensor is on.
    """

    tensor: Tensor
    positions: Indices | None = None
    each: int = 1

    def read(self, rows: Sequence[int] | None = None) -> Floats:
        """The rows named (all when None) as float32 [m, d] in the processor's memory; exact for half precision."""
        index = np.arange(len(self.tensor) * self.each) if rows is None else np.asarray(rows, dtype=np.int64)
        array: Floats = self.tensor[self._place(index)].detach().to("cpu", torch.float32).numpy()
        return array

    def changed(self, rows: Sequence[int], values: Floats) -> Tensor:
        """A copy of the tensor with `values` float32 [m, d] in the rows named.

        FailedPreconditionError when a value is beyond what the tensor's type can hold.
        """
        own = torch.from_numpy(values).to(self.tensor.dtype)
        if own.dtype.itemsize < values.itemsize and not bool(torch.isfinite(own).all()):
            raise FailedPreconditionError(f"a steered value is beyond {self.tensor.dtype}; use a smaller dose")
        copy = self.tensor.clone()
        copy[self._place(np.asarray(rows, dtype=np.int64))] = own.to(self.tensor.device)
        return copy

    def _place(self, rows: Indices) -> tuple[Tensor, ...]:
        """Where rows are in the tensor, as indices on its device."""
        if self.positions is not None:
            axes = [rows, self.positions[rows]]
        else:
            axes = [rows] if self.tensor.ndim == 2 else [rows // self.each, rows % self.each]
        return tuple(torch.from_numpy(axis).to(self.tensor.device) for axis in axes)


def rows_in(tensor: Tensor, row: Row, newest: Callable[[Tensor], Indices]) -> Rows:
    """The rows of a tensor; `newest` gives the newest position of each history, int64 [batch], where it is asked for.

    FailedPreconditionError when the tensor has not the axes that `row` speaks of.
    """
    axes = _AXES.get(row, 3) if isinstance(row, str) else 3
    if tensor.ndim != axes or not tensor.is_floating_point():
        wanted = "[batch, d]" if axes == 2 else "[batch, interests, d]" if row == "interest" else "[batch, length, d]"
        raise FailedPreconditionError(
            f"the module gives {tensor.dtype} {list(tensor.shape)} where row={row!r} needs floats {wanted}; "
            "choose another row or another module"
        )
    if axes == 2:
        return Rows(tensor)
    if row == "interest":
        return Rows(tensor, each=int(tensor.shape[1]))
    return Rows(tensor, _positions(tensor, row, newest))


def _positions(tensor: Tensor, row: Row, newest: Callable[[Tensor], Indices]) -> Indices:
    batch, length = tensor.shape[:2]
    if isinstance(row, int):
        if not -length <= row < length:
            raise FailedPreconditionError(f"row = {row}, and the module gives {length} positions")
        return np.full(batch, row % length, dtype=np.int64)
    positions = as_indices(row(tensor)) if callable(row) else newest(tensor)
    if positions.shape != (batch,) or ((positions < 0) | (positions >= length)).any():
        raise FailedPreconditionError(
            f"positions {list(positions.shape)} do not name one of {length} positions for each of {batch} rows; check "
            "the lengths given"
        )
    return positions


def newest_by_padding(indices: Tensor, padding: int) -> Indices:
    """The last position of each row of int [batch, length] that is no padding, int64 [batch]; the end if all are."""
    from_end: Indices = (as_indices(indices) != padding)[:, ::-1].argmax(axis=1)
    return indices.shape[1] - 1 - from_end


def as_indices(value: Any) -> Indices:
    """Whole numbers of a tensor, array or list as int64 in the processor's memory."""
    array: Indices = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, dtype=np.int64)
    return array


def as_floats(value: Any) -> Floats:
    """A tensor or array as float32 in the processor's memory."""
    array = value.detach().to("cpu", torch.float32).numpy() if isinstance(value, Tensor) else value
    return np.ascontiguousarray(array, dtype=np.float32)
