"""numpy arrays to and from `Tensor` messages, checked on the way in.

Tensors travel as little-endian row-major bytes (0.04 us a vector against 2-3 for repeated floats). Not here:
what the axes mean, which the callers check by naming a shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.v1 import common_pb2 as pb

_DTYPES: dict[int, np.dtype[Any]] = {
    pb.ELEMENT_TYPE_FLOAT32: np.dtype("<f4"),
    pb.ELEMENT_TYPE_FLOAT16: np.dtype("<f2"),
    pb.ELEMENT_TYPE_INT32: np.dtype("<i4"),
    pb.ELEMENT_TYPE_INT64: np.dtype("<i8"),
    pb.ELEMENT_TYPE_BOOL: np.dtype("?"),
}
_ELEMENT_TYPES: dict[np.dtype[Any], pb.ElementType.ValueType] = {
    np.dtype("<f4"): pb.ELEMENT_TYPE_FLOAT32,
    np.dtype("<f2"): pb.ELEMENT_TYPE_FLOAT16,
    np.dtype("<i4"): pb.ELEMENT_TYPE_INT32,
    np.dtype("<i8"): pb.ELEMENT_TYPE_INT64,
    np.dtype("?"): pb.ELEMENT_TYPE_BOOL,
}
_MAX_AXES = 8
# numpy refuses an empty array too when its other extents alone pass this.
_MOST_ADDRESSED = np.iinfo(np.intp).max


def to_tensor(array: NDArray[Any]) -> pb.Tensor:
    """The message for an array of float32, float16, int32, int64 or bool; InvalidRequestError for others."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(array.shape)
    element_type = _ELEMENT_TYPES.get(little.dtype)
    if element_type is None:
        raise InvalidRequestError(f"arrays of {array.dtype} do not travel; convert to one of {_names()}")
    return pb.Tensor(element_type=element_type, shape=array.shape, data=little.tobytes())


def from_tensor(
    tensor: pb.Tensor,
    *,
    name: str,
    dtype: type[np.generic] | None = None,
    shape: Sequence[int | None] | None = None,
    finite: bool = False,
) -> NDArray[Any]:
    """The array of a message: a read-only view on its bytes.

    `name` is used in errors. `dtype` and `shape` (None = any extent) are demanded when given; `finite` refuses
    NaN and infinities. InvalidRequestError says what was expected and what came.
    """
    stored = _DTYPES.get(tensor.element_type)
    if stored is None:
        raise InvalidRequestError(f"{name}: element type {tensor.element_type} is not known; send one of {_names()}")
    if dtype is not None and stored != np.dtype(dtype).newbyteorder("<"):
        raise InvalidRequestError(f"{name} is {stored.name}; send {np.dtype(dtype).name}")
    extents = tuple(tensor.shape)
    if len(extents) > _MAX_AXES or any(extent < 0 for extent in extents):
        raise InvalidRequestError(f"{name} has shape {list(extents)}; send at most {_MAX_AXES} axes, none negative")
    expected_bytes = math.prod(extents) * stored.itemsize
    if not expected_bytes and math.prod(filter(None, extents)) * stored.itemsize > _MOST_ADDRESSED:
        raise InvalidRequestError(f"{name} has shape {list(extents)}; an empty tensor needs no such extents")
    if len(tensor.data) != expected_bytes:
        raise InvalidRequestError(
            f"{name} of shape {list(extents)} and type {stored.name} needs {expected_bytes} bytes, "
            f"{len(tensor.data)} came"
        )
    if shape is not None and not _fits(extents, shape):
        wanted = ["any" if extent is None else extent for extent in shape]
        raise InvalidRequestError(f"{name} has shape {list(extents)}; send {wanted}")
    array: NDArray[Any] = np.frombuffer(tensor.data, dtype=stored).reshape(extents)
    if finite and stored.kind == "f" and not np.isfinite(array).all():
        raise InvalidRequestError(f"{name} holds NaN or infinite values; send finite numbers only")
    return array


def _fits(extents: Sequence[int], shape: Sequence[int | None]) -> bool:
    return len(extents) == len(shape) and all(
        wanted is None or extent == wanted for extent, wanted in zip(extents, shape, strict=True)
    )


def _names() -> str:
    return ", ".join(dtype.name for dtype in _DTYPES.values())
