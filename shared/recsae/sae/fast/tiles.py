"""The inner loop of the encoder's product, as wide as this CPU allows.

LLVM does not turn a plain loop into a good matrix kernel, so the tile is written in its intermediate language: `ROWS` x
`columns` accumulators stay in registers while the length of a row goes by. Not here: what is multiplied (`scoring`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from recsae.sae.fast.emitting import F32, I8, I32, Emitter
from recsae.sae.fast.vectors import INT8_STEP, ROWS, VectorShape


def _products(emit: Emitter, shape: VectorShape, start: list[Any], int8: bool) -> list[Any]:
    """Emits the loop; returns the accumulators' places, row by row. Arguments 0 to 5 as in `tile`."""
    builder, lanes = emit.builder, shape.lanes
    x, stride, weights, first = emit.data(0), emit.number(2), emit.data(3), emit.number(4)
    element, unit = (I32, INT8_STEP) if int8 else (F32, 1)
    vector = ir.VectorType(element, lanes)
    rows = [emit.shifted(emit.number(1), stride, row) for row in range(ROWS)]
    places = [emit.place(start[at % shape.columns]) for at in range(ROWS * shape.columns)]
    with cgutils.for_range(builder, emit.number(5), intp=emit.index) as loop:
        column_at = emit.shifted(first, loop.index, shape.panel * unit)
        columns = [emit.load(weights, emit.plus(column_at, c * lanes * unit), vector) for c in range(shape.columns)]
        step = builder.mul(loop.index, emit.constant(unit))
        for r, row in enumerate(rows):
            value = emit.spread(emit.load(x, builder.add(row, step), element), lanes)
            for c, column in enumerate(columns):
                place = places[r * shape.columns + c]
                held = builder.load(place)
                builder.store(_dot4(emit, held, value, column) if int8 else emit.fma(value, column, held), place)
    return places


def _dot4(emit: Emitter, held: Any, x: Any, weights: Any) -> Any:
    """Held + sum of 4 products of uint8 `x` and int8 `weights` in each lane."""
    lanes = held.type.count
    narrow = ir.VectorType(I8, lanes * INT8_STEP)
    instruction = emit.function(f"llvm.x86.avx512.vpdpbusd.{lanes * 32}", held.type, [held.type, narrow, narrow])
    return emit.builder.call(
        instruction, [held, emit.builder.bitcast(x, narrow), emit.builder.bitcast(weights, narrow)]
    )


def make_tile(shape: VectorShape, *, int8: bool) -> Callable[..., None]:
    """The numba function `tile`: ROWS activations times one panel of latents, scores and their maxima.

    tile(x, x_at, x_stride, weights, weights_at, steps, offset, scale, bias, column, row_scale, row,
         out, out_at, out_stride, tops, tops_at, tops_stride), every array flat, every position an index:

    float32: `x` rows of `steps` float32; `weights` packed [steps, panel]; score = x . w + bias. `offset`, `scale` and
    `row_scale` are ignored. int8: `x` uint8 (value + 128), `weights` int8 packed [steps, panel, 4], `offset` int32
    takes the 128 back; score = (x . w + offset) scale row_scale + bias. Writes scores to `out` and, per lane, the
    maximum over the panel's vectors to `tops`.
    """

    @intrinsic
    def tile(
        typingctx: Any, x: Any, x_at: Any, x_stride: Any, weights: Any, weights_at: Any, steps: Any, offset: Any,
        scale: Any, bias: Any, column: Any, row_scale: Any, row: Any,
        out: Any, out_at: Any, out_stride: Any, tops: Any, tops_at: Any, tops_stride: Any,
    ) -> Any:  # fmt: skip
        arguments = (
            x, x_at, x_stride, weights, weights_at, steps, offset, scale, bias, column, row_scale, row,
            out, out_at, out_stride, tops, tops_at, tops_stride,
        )  # fmt: skip

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            emit = Emitter(context, builder, signature, values)
            _emit_tile(emit, shape, int8)
            return emit.nothing()

        return types.void(*arguments), codegen

    function: Callable[..., None] = tile
    return function


def _emit_tile(emit: Emitter, shape: VectorShape, int8: bool) -> None:
    builder, lanes = emit.builder, shape.lanes
    floats, integers = ir.VectorType(F32, lanes), ir.VectorType(I32, lanes)
    at = [emit.plus(emit.number(9), c * lanes) for c in range(shape.columns)]
    zero = ir.Constant(floats, [0.0] * lanes)
    start = [emit.load(emit.data(6), place, integers) if int8 else zero for place in at]
    places = _products(emit, shape, start, int8)
    biases = [emit.load(emit.data(8), place, floats) for place in at]
    scales = [emit.load(emit.data(7), place, floats) for place in at] if int8 else []
    for r in range(ROWS):
        out_at = emit.shifted(emit.number(13), emit.number(14), r)
        top = None
        for c in range(shape.columns):
            score = builder.load(places[r * shape.columns + c])
            if int8:
                row_scale = emit.spread(emit.load(emit.data(10), emit.plus(emit.number(11), r), F32), lanes)
                score = emit.fma(builder.fmul(builder.sitofp(score, floats), scales[c]), row_scale, biases[c])
            else:
                score = builder.fadd(score, biases[c])
            emit.store(score, emit.data(12), emit.plus(out_at, c * lanes))
            top = score if top is None else emit.larger(score, top)
        emit.store(top, emit.data(15), emit.shifted(emit.number(16), emit.number(17), r))
