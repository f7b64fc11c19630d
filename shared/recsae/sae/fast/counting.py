"""Counting, collecting and the maximum over vectors of scores: what finding a threshold consists of.

Not here: which threshold (`selecting`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from recsae.sae.fast.emitting import F32, I32, Emitter
from recsae.sae.fast.vectors import VectorShape


def make_count(shape: VectorShape) -> Callable[..., int]:
    """The numba function `count(values, at, vectors, threshold)`: how many of `vectors` x lanes float32 reach it."""

    @intrinsic
    def count(typingctx: Any, values: Any, at: Any, vectors: Any, threshold: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = Emitter(context, builder, signature, arguments)
            total = emit.place(emit.constant(0))
            with cgutils.for_range(builder, emit.number(2), intp=emit.index) as loop:
                reached = _reached(emit, loop.index, shape.lanes)
                builder.store(builder.add(builder.load(total), _bits_set(emit, reached)), total)
            return builder.load(total)

        return types.intp(values, at, vectors, threshold), codegen

    function: Callable[..., int] = count
    return function


def make_largest(shape: VectorShape) -> Callable[..., np.float32]:
    """The numba function `largest(values, at, vectors)`: the maximum of `vectors` x lanes float32, at least 0."""

    @intrinsic
    def largest(typingctx: Any, values: Any, at: Any, vectors: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit, lanes = Emitter(context, builder, signature, arguments), shape.lanes
            floats = ir.VectorType(F32, lanes)
            best = emit.place(ir.Constant(floats, [0.0] * lanes))
            with cgutils.for_range(builder, emit.number(2), intp=emit.index) as loop:
                place = emit.shifted(emit.number(1), loop.index, lanes)
                builder.store(emit.larger(emit.load(emit.data(0), place, floats), builder.load(best)), best)
            reduce = emit.function(f"llvm.vector.reduce.fmax.v{lanes}f32", F32, [floats])
            return builder.call(reduce, [builder.load(best)])

        return types.float32(values, at, vectors), codegen

    function: Callable[..., np.float32] = largest
    return function


def make_collect(shape: VectorShape, features: frozenset[str]) -> Callable[..., int]:
    """The numba function `collect(values, at, vectors, threshold, found)`: positions of those that reach it.

    Writes them, rising and counted from `at`, to `found` int32, which needs a whole vector of room behind the last;
    returns how many.
    """
    compresses = "avx512f" in features

    @intrinsic
    def collect(typingctx: Any, values: Any, at: Any, vectors: Any, threshold: Any, found: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = Emitter(context, builder, signature, arguments)
            written = emit.place(emit.constant(0))
            with cgutils.for_range(builder, emit.number(2), intp=emit.index) as loop:
                reached = _reached(emit, loop.index, shape.lanes)
                first = builder.trunc(emit.shifted(emit.constant(0), loop.index, shape.lanes), I32)
                write = _write_packed if compresses else _write_one_by_one
                write(emit, reached, first, emit.data(4), written)
            return builder.load(written)

        return types.intp(values, at, vectors, threshold, found), codegen

    function: Callable[..., int] = collect
    return function


def _reached(emit: Emitter, number: Any, lanes: int) -> Any:
    """Bits of vector `number` of argument 0, from argument 1 on, that are at least argument 3."""
    place = emit.shifted(emit.number(1), number, lanes)
    value = emit.load(emit.data(0), place, ir.VectorType(F32, lanes))
    return emit.builder.fcmp_ordered(">=", value, emit.spread(emit.values[3], lanes))


def _bits_set(emit: Emitter, reached: Any) -> Any:
    """How many lanes, as an index: shorter on the way to the next decision than adding vectors up."""
    builder, bits = emit.builder, ir.IntType(reached.type.count)
    count = builder.call(emit.function(f"llvm.ctpop.i{bits.width}", bits, [bits]), [builder.bitcast(reached, bits)])
    return builder.zext(count, emit.index)


def _write_packed(emit: Emitter, reached: Any, first: Any, found: Any, written: Any) -> None:
    """All positions at once, by the instruction that moves chosen lanes to the front."""
    builder, lanes = emit.builder, reached.type.count
    integers = ir.VectorType(I32, lanes)
    positions = builder.add(emit.spread(first, lanes), ir.Constant(integers, list(range(lanes))))
    name = f"llvm.x86.avx512.mask.compress.v{lanes}i32"
    compress = emit.function(name, integers, [integers, integers, reached.type])
    packed = builder.call(compress, [positions, ir.Constant(integers, [0] * lanes), reached])
    emit.store(packed, found, builder.load(written))
    builder.store(builder.add(builder.load(written), _bits_set(emit, reached)), written)


def _write_one_by_one(emit: Emitter, reached: Any, first: Any, found: Any, written: Any) -> None:
    """Every position is written; only those that reached move the end on."""
    builder = emit.builder
    for lane in range(reached.type.count):
        emit.store(builder.add(first, ir.Constant(I32, lane)), found, builder.load(written))
        one = builder.zext(builder.extract_element(reached, ir.Constant(I32, lane)), emit.index)
        builder.store(builder.add(builder.load(written), one), written)
