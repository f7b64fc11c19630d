"""Sparse sums and products: the rows of a table that a short list names, weighted and added, or multiplied by a vector.

Both are what TopK leaves of the dense products. Sums stay in registers while the list goes by; plain loops would load
and store the sum for every row. Not here: what is summed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from recsae.sae.fast.compiling import compiled
from recsae.sae.fast.emitting import F32, I32, Emitter
from recsae.sae.fast.vectors import SHAPE, VectorShape

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

_AT_ONCE = 4  # vectors of a sum in registers: a row of 64 floats on AVX-512


def make_sum(shape: VectorShape, vectors: int) -> Callable[..., None]:
    """The numba function `add(out, out_at, table, stride, offset, names, weights, first, last)`.

    out[out_at + t] += sum over i in first..last-1 of weights[i] table[names[i] stride + offset + t], for the `vectors`
    x lanes values t from 0 on. Arrays are read flat.
    """

    @intrinsic
    def add(
        typingctx: Any,
        out: Any,
        out_at: Any,
        table: Any,
        stride: Any,
        offset: Any,
        names: Any,
        weights: Any,
        first: Any,
        last: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            emit, lanes = Emitter(context, builder, signature, values), shape.lanes
            kind = ir.VectorType(F32, lanes)
            places = [emit.plus(emit.number(1), number * lanes) for number in range(vectors)]
            sums = [emit.place(emit.load(emit.data(0), place, kind)) for place in places]
            table_data, name_data = emit.data(2), emit.data(5)
            with cgutils.for_range_slice(
                builder, emit.number(7), emit.number(8), emit.constant(1), intp=emit.index, inc=True
            ) as (place, _):
                row = _row(emit, name_data, place, 3, 4)
                weight = emit.spread(emit.load(emit.data(6), place, F32), lanes)
                for number, total in enumerate(sums):
                    value = emit.load(table_data, emit.plus(row, number * lanes), kind)
                    builder.store(emit.fma(weight, value, builder.load(total)), total)
            for out_place, total in zip(places, sums, strict=True):
                emit.store(builder.load(total), emit.data(0), out_place)
            return emit.nothing()

        return types.void(out, out_at, table, stride, offset, names, weights, first, last), codegen

    function: Callable[..., None] = add
    return function


def make_two_sums(shape: VectorShape, vectors: int) -> Callable[..., None]:
    """The numba function `add(a, b, at, table, stride, offset_a, offset_b, names, weights_a, weights_b, first, last)`.

    Two sums as of `make_sum` over the same rows in one go, to a[at + t] and b[at + t].
    """

    @intrinsic
    def add(
        typingctx: Any, a: Any, b: Any, at: Any, table: Any, stride: Any, offset_a: Any, offset_b: Any,
        names: Any, weights_a: Any, weights_b: Any, first: Any, last: Any,
    ) -> Any:  # fmt: skip
        arguments = (a, b, at, table, stride, offset_a, offset_b, names, weights_a, weights_b, first, last)

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            emit, lanes = Emitter(context, builder, signature, values), shape.lanes
            kind = ir.VectorType(F32, lanes)
            places = [emit.plus(emit.number(2), number * lanes) for number in range(vectors)]
            sums = [[emit.place(emit.load(emit.data(side), place, kind)) for place in places] for side in range(2)]
            with cgutils.for_range_slice(
                builder, emit.number(10), emit.number(11), emit.constant(1), intp=emit.index, inc=True
            ) as (place, _):
                for side, offset, weights in ((0, 5, 8), (1, 6, 9)):
                    row = _row(emit, emit.data(7), place, 4, offset)
                    weight = emit.spread(emit.load(emit.data(weights), place, F32), lanes)
                    for number, total in enumerate(sums[side]):
                        value = emit.load(emit.data(3), emit.plus(row, number * lanes), kind)
                        builder.store(emit.fma(weight, value, builder.load(total)), total)
            for side in range(2):
                for out_place, total in zip(places, sums[side], strict=True):
                    emit.store(builder.load(total), emit.data(side), out_place)
            return emit.nothing()

        return types.void(*arguments), codegen

    function: Callable[..., None] = add
    return function


def make_dot(shape: VectorShape, vectors: int) -> Callable[..., None]:
    """The numba function `dot(out, table, stride, offset, names, count, x, x_at)`.

    For i < `count`: out[i] += sum of table[names[i] stride + offset + t] x[x_at + t] over `vectors` x lanes values t.
    """

    @intrinsic
    def dot(
        typingctx: Any, out: Any, table: Any, stride: Any, offset: Any, names: Any, count: Any, x: Any, x_at: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            emit, lanes = Emitter(context, builder, signature, values), shape.lanes
            kind = ir.VectorType(F32, lanes)
            at = emit.number(7)
            given = [emit.load(emit.data(6), emit.plus(at, number * lanes), kind) for number in range(vectors)]
            reduce = emit.function(f"llvm.vector.reduce.fadd.v{lanes}f32", F32, [F32, kind])
            with cgutils.for_range(builder, emit.number(5), intp=emit.index) as loop:
                row = _row(emit, emit.data(4), loop.index, 2, 3)
                parts = [
                    builder.fmul(emit.load(emit.data(1), emit.plus(row, number * lanes), kind), value)
                    for number, value in enumerate(given)
                ]
                while len(parts) > 1:
                    parts = [builder.fadd(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
                total = builder.call(reduce, [ir.Constant(F32, 0.0), parts[0]], fastmath=("reassoc",))
                held = emit.load(emit.data(0), loop.index, F32)
                emit.store(builder.fadd(held, total), emit.data(0), loop.index)
            return emit.nothing()

        return types.void(out, table, stride, offset, names, count, x, x_at), codegen

    function: Callable[..., None] = dot
    return function


def _row(emit: Emitter, names: Any, place: Any, stride: int, offset: int) -> Any:
    """Where in the table the row named at `place` begins; `stride` and `offset` are arguments by number."""
    name = emit.builder.zext(emit.load(names, place, I32), emit.index)
    return emit.builder.add(emit.builder.mul(name, emit.number(stride)), emit.number(offset))


_sum_many, _sum_one = make_sum(SHAPE, _AT_ONCE), make_sum(SHAPE, 1)
_two_many, _two_one = make_two_sums(SHAPE, _AT_ONCE), make_two_sums(SHAPE, 1)
_dot_many, _dot_one = make_dot(SHAPE, _AT_ONCE), make_dot(SHAPE, 1)
_LANES = SHAPE.lanes
_WIDE = _AT_ONCE * SHAPE.lanes


@compiled
def gather_sum(
    out: Floats, table: Floats, stride: int, offset: int, names: Ints, weights: Floats, first: int, last: int
) -> None:
    """Adds to `out` [d] the sum over i in first..last-1 of weights[i] times the row named by names[i].

    Row j of `table`, an array of any shape, is its d values from j `stride` + `offset` on.
    """
    d = len(out)
    t = 0
    while t + _WIDE <= d:
        _sum_many(out, t, table, stride, offset + t, names, weights, first, last)
        t += _WIDE
    while t + _LANES <= d:
        _sum_one(out, t, table, stride, offset + t, names, weights, first, last)
        t += _LANES
    if t < d:
        flat = table.reshape(-1)
        for rest in range(t, d):
            total = np.float32(0.0)
            for place in range(first, last):
                total += weights[place] * flat[names[place] * stride + offset + rest]
            out[rest] += total


@compiled
def gather_two_sums(
    a: Floats, b: Floats, table: Floats, stride: int, offset_a: int, offset_b: int,
    names: Ints, weights_a: Floats, weights_b: Floats, first: int, last: int,
) -> None:  # fmt: skip
    """`gather_sum` to `a` and to `b` [d], which differ in offset and weights, reading every name once."""
    d = len(a)
    t = 0
    while t + _WIDE <= d:
        _two_many(a, b, t, table, stride, offset_a + t, offset_b + t, names, weights_a, weights_b, first, last)
        t += _WIDE
    while t + _LANES <= d:
        _two_one(a, b, t, table, stride, offset_a + t, offset_b + t, names, weights_a, weights_b, first, last)
        t += _LANES
    if t < d:
        gather_sum(a[t:], table, stride, offset_a + t, names, weights_a, first, last)
        gather_sum(b[t:], table, stride, offset_b + t, names, weights_b, first, last)


@compiled
def gather_dots(out: Floats, table: Floats, stride: int, offset: int, names: Ints, count: int, x: Floats) -> None:
    """out[i] = x [d] times the row named by names[i], for i < `count`; rows as in `gather_sum`."""
    d = len(x)
    t = 0
    out[:count] = 0.0
    while t + _WIDE <= d:
        _dot_many(out, table, stride, offset + t, names, count, x, t)
        t += _WIDE
    while t + _LANES <= d:
        _dot_one(out, table, stride, offset + t, names, count, x, t)
        t += _LANES
    if t < d:
        flat = table.reshape(-1)
        for rest in range(t, d):
            for place in range(count):
                out[place] += flat[names[place] * stride + offset + rest] * x[rest]
