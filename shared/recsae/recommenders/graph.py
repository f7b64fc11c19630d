"""One ONNX graph on onnxruntime, fed as it wants to be: its own number types, its own batch size where it has one.

Graphs of other tools come with int32 indices, float16 activations or a fixed batch; none of that is seen outside.
Not here: what the inputs mean (`runtime`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from recsae.recommenders.description import BundleError

# Errors are raised; onnxruntime's own line about them on standard error would only repeat them.
_FATAL_ONLY = 4
# The one input of our graphs that has no row per subject.
_FOR_ALL_ROWS = "k"
COLUMNS_AT_ONCE = "recsae_columns_at_once"
"""Name in a head's metadata: how many columns of scores it holds at once, where that is not one per item."""
_TYPES: Mapping[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(bool)": np.dtype(np.bool_),
}
_WIDENED = ("tensor(float16)", "tensor(double)")

Arrays = Mapping[str, NDArray[Any]]


class Graph:
    """A loaded graph. Safe to call from several threads."""

    def __init__(self, path: Path, threads: int) -> None:
        """BundleError when it cannot be loaded."""
        self._session = open_session(path, threads)
        given, made = self._session.get_inputs(), self._session.get_outputs()
        self.inputs = tuple(value.name for value in given)
        self.outputs = tuple(value.name for value in made)
        self._types = {value.name: _TYPES.get(value.type) for value in given}
        self._widens = any(value.type in _WIDENED for value in made)
        firsts = {value.name: value.shape[0] for value in given if value.shape and value.name != _FOR_ALL_ROWS}
        sizes = {size for size in firsts.values() if isinstance(size, int)}
        self._batch: int | None = min(sizes, default=None)
        columns = self._session.get_modelmeta().custom_metadata_map.get(COLUMNS_AT_ONCE, "")
        self.columns_at_once: int | None = int(columns) if columns.isdecimal() else None
        """Columns of scores a head says it holds at once; None of one that says nothing."""

    def run(self, outputs: list[str], feed: Arrays, rows: int, most: int | None = None) -> list[NDArray[Any]]:
        """The outputs over a batch of `rows`; inputs the graph does not have are left out. float16 comes as float32.

        More rows than `most` are run in pieces, to bound memory; a graph of a fixed batch has pieces of its own.
        The input `k` has no rows and is fed as it is to every piece of a fixed batch. Of no rows at all, which many
        graphs cannot take, one row of zeros is run and dropped.
        """
        typed = {
            name: given if (given := feed[name]).dtype is wanted else _converted(given, wanted)
            for name, wanted in self._types.items()
        }
        if not rows:
            typed = {name: value if name == _FOR_ALL_ROWS else _one_of_zeros(value) for name, value in typed.items()}
        if self._batch is None and most is not None and rows > most:
            found = self._in_pieces(outputs, typed, rows, most)
        elif self._batch is None or self._batch == max(rows, 1):
            found = self._session.run(outputs, typed)
        else:
            found = self._in_pieces(outputs, typed, max(rows, 1), self._batch)
        if self._widens:
            found = [_widened(value) for value in found]
        return found if rows else [value[:0] for value in found]

    def _in_pieces(
        self, outputs: list[str], feed: Mapping[str, NDArray[Any]], rows: int, batch: int
    ) -> list[NDArray[Any]]:
        parts: list[list[NDArray[Any]]] = []
        for start in range(0, rows, batch):
            at = np.arange(start, start + batch).clip(max=rows - 1)  # the last piece is filled up
            piece = {name: value if name == _FOR_ALL_ROWS else value[at] for name, value in feed.items()}
            parts.append(self._session.run(outputs, piece))
        return [np.concatenate(column)[:rows] for column in zip(*parts, strict=True)]


def _converted(value: NDArray[Any], wanted: np.dtype[Any] | None) -> NDArray[Any]:
    return np.ascontiguousarray(value, dtype=wanted or value.dtype)


def _one_of_zeros(value: NDArray[Any]) -> NDArray[Any]:
    return np.zeros((1, *value.shape[1:]), value.dtype)


def _widened(value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(np.float32) if value.dtype in (np.float16, np.float64) else value


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU; BundleError when the graph cannot be loaded."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = _FATAL_ONLY
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own classes straight from Exception
        raise BundleError(f"{path} cannot be loaded by onnxruntime: {error}") from error
