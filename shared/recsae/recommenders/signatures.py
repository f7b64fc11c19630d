"""Names, types and shapes of a graph's inputs and outputs, compared with what serving needs of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from recsae.recommenders.description import BundleError
from recsae.recommenders.graph import open_session

FLOATS, INTEGERS = ("tensor(float)", "tensor(float16)"), ("tensor(int64)", "tensor(int32)")


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a graph: name -> (type, shape); a dimension is a number or, when free, text or None."""

    file: str
    inputs: Mapping[str, tuple[str, Sequence[Any]]]
    outputs: Mapping[str, tuple[str, Sequence[Any]]]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Of a file; BundleError when it cannot be loaded."""
        session = open_session(path, threads=1)
        sides = [
            {v.name: (v.type, v.shape) for v in values} for values in (session.get_inputs(), session.get_outputs())
        ]
        return cls(path.name, *sides)

    def need(
        self, side: Literal["input", "output"], name: str, kinds: Sequence[str], ranks: Sequence[int]
    ) -> Sequence[Any]:
        """Shape of an input or output; BundleError unless it is there with such a type and number of dimensions."""
        values = self.inputs if side == "input" else self.outputs
        if name not in values:
            raise BundleError(f"{self.file} has no {side} {name!r}, only {sorted(values)}; rename it in the graph")
        found, shape = values[name]
        if found not in kinds or len(shape) not in ranks:
            wanted = f"{' or '.join(kinds)} with {' or '.join(map(str, ranks))} dimensions"
            raise BundleError(f"{self.file}: {side} {name!r} is {found} {shape}, expected {wanted}")
        return shape
