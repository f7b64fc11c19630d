"""Tensors of answers as arrays, and how alike two of them are. A wrong tensor is the service's fault: `BrokenError`.

Not here: whether bytes are little-endian (`checks.activations` looks at that once for all).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsae.conformance.outcomes import BrokenError
from recsae.errors import InvalidRequestError
from recsae.rpc.tensors import from_tensor
from recsae.v1 import common_pb2

Floats = NDArray[np.float32]
# What a reordered sum of float32 products may move, as a share of the largest value.
TOLERANCE = 1e-5
# The same where values are float16 numbers: two units in the last place.
FLOAT16_TOLERANCE = 2e-3
SCORE_TOLERANCE = 1e-4


def matrix(tensor: common_pb2.Tensor, asked: str, *, rows: int | None = None, dim: int | None = None) -> Floats:
    """float32 [rows, dim]; None = any extent. `BrokenError` says what came instead."""
    return _floats(tensor, asked, (rows, dim))


def vector(tensor: common_pb2.Tensor, asked: str, rows: int) -> Floats:
    """float32 [rows]."""
    return _floats(tensor, asked, (rows,))


def difference(left: Floats, right: Floats) -> float:
    """Largest difference of two arrays of one shape, as a share of the largest value (at least 1); inf for NaN."""
    if left.shape != right.shape:
        return float("inf")
    if not left.size:
        return 0.0
    scale = max(1.0, float(np.abs(right).max()))
    found = float(np.abs(left.astype(np.float64) - right).max()) / scale
    return found if np.isfinite(found) else float("inf")


def tolerance(values: Floats) -> float:
    """What two computations of these values may differ by, see `difference`: more where they come from float16."""
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16).astype(np.float32)
    return FLOAT16_TOLERANCE if values.size and np.array_equal(halves, values) and np.any(values) else TOLERANCE


def alike(left: Floats, right: Floats, asked: str, what: str, remedy: str) -> str:
    """A note on how alike they are; `BrokenError` when they differ by more than rounding does."""
    if left.shape == right.shape and left.tobytes() == right.tobytes():
        return "bit-identical"
    off = difference(left, right)
    limit = tolerance(right)
    if off > limit:
        raise BrokenError(asked, f"{what} differ by {off:.2g} of the largest value, {limit:g} is allowed", remedy)
    return f"equal within {off:.1g}"


def _floats(tensor: common_pb2.Tensor, asked: str, shape: tuple[int | None, ...]) -> Floats:
    try:
        return from_tensor(tensor, name="the tensor", dtype=np.float32, shape=shape)
    except InvalidRequestError as error:
        wanted = ["n" if extent is None else extent for extent in shape]
        came = str(error).partition(";")[0]
        raise BrokenError(asked, came, f"send float32 {wanted}, row-major, little-endian") from error
