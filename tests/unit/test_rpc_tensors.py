"""Tensors survive the wire bit for bit, and malformed ones are refused with a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from recsae.errors import InvalidRequestError
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.v1 import common_pb2 as pb


@given(
    npst.arrays(
        st.sampled_from([np.float32, np.float16, np.int32, np.int64, np.bool_]),
        npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    )
)
def test_every_array_survives_the_wire_bit_for_bit(array: Any) -> None:
    back = from_tensor(pb.Tensor.FromString(to_tensor(array).SerializeToString()), name="x")
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_big_endian_and_strided_arrays_are_sent_little_endian_and_row_major() -> None:
    array = np.arange(12, dtype=">f4").reshape(3, 4).T
    np.testing.assert_array_equal(from_tensor(to_tensor(array), name="x"), array)


def test_float64_is_not_sent_silently_narrowed() -> None:
    with pytest.raises(InvalidRequestError, match="float64"):
        to_tensor(np.zeros(3))


def test_wrong_length_names_both_numbers() -> None:
    tensor = pb.Tensor(element_type=pb.ELEMENT_TYPE_FLOAT32, shape=[2, 3], data=b"\0" * 20)
    with pytest.raises(InvalidRequestError, match=r"vectors.*24 bytes.*20 came"):
        from_tensor(tensor, name="vectors")


def test_huge_and_negative_extents_are_refused_without_allocating() -> None:
    for shape in ([1 << 40, 1 << 40], [-1, -4]):
        with pytest.raises(InvalidRequestError):
            from_tensor(pb.Tensor(element_type=pb.ELEMENT_TYPE_FLOAT32, shape=shape, data=b"\0" * 16), name="x")


def test_huge_extents_beside_an_empty_axis_are_refused_as_the_callers_fault() -> None:
    for shape in ([0, 1 << 62], [1 << 40, 0, 1 << 40]):
        with pytest.raises(InvalidRequestError, match="empty tensor"):
            from_tensor(pb.Tensor(element_type=pb.ELEMENT_TYPE_FLOAT32, shape=shape), name="x")


def test_unset_element_type_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="element type"):
        from_tensor(pb.Tensor(shape=[0]), name="x")


def test_wrong_type_shape_and_non_finite_values_are_refused() -> None:
    tensor = to_tensor(np.array([[1.0, np.nan]], dtype=np.float32))
    with pytest.raises(InvalidRequestError, match="is float32; send int64"):
        from_tensor(tensor, name="x", dtype=np.int64)
    with pytest.raises(InvalidRequestError, match=r"\[1, 2\]; send \['any', 64\]"):
        from_tensor(tensor, name="x", shape=(None, 64))
    with pytest.raises(InvalidRequestError, match="NaN"):
        from_tensor(tensor, name="x", finite=True)
    assert from_tensor(tensor, name="x", dtype=np.float32, shape=(1, None)).shape == (1, 2)
