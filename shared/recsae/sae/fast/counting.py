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
                place = emit.shifted(emit.number(1), loop.index, shape.lanes)
                _, reached = _reached(emit, emit.data(0), place, shape.lanes)
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
    """The numba function `collect(scores, at, panels, threshold, tops, tops_at, found, values)`.

    Writes the scores of `panels` panels that reach the threshold to `values`, and where they stand, counted from `at`,
    to `found` int32; both need a whole vector of room behind the last. Returns how many. `tops` hold, per panel and
    lane, the maxima over the panel's vectors: panels without a top that reaches are passed over.
    """
    write = _writer(features)

    @intrinsic
    def collect(
        typingctx: Any,
        scores: Any,
        at: Any,
        panels: Any,
        threshold: Any,
        tops: Any,
        tops_at: Any,
        found: Any,
        values: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit, lanes = Emitter(context, builder, signature, arguments), shape.lanes
            written = emit.place(emit.constant(0))
            with cgutils.for_range(builder, emit.number(2), intp=emit.index) as loop:
                _, reached = _reached(emit, emit.data(4), emit.shifted(emit.number(5), loop.index, lanes), lanes)
                some = builder.icmp_unsigned("!=", _bits_set(emit, reached), emit.constant(0))
                with builder.if_then(some):
                    for column in range(shape.columns):
                        first = emit.plus(emit.shifted(emit.constant(0), loop.index, shape.panel), column * lanes)
                        place = builder.add(emit.number(1), first)
                        value, reached = _reached(emit, emit.data(0), place, lanes)
                        positions = _counted_from(emit, first, lanes)
                        write(emit, reached, [(positions, emit.data(6)), (value, emit.data(7))], written)
            return builder.load(written)

        return types.intp(scores, at, panels, threshold, tops, tops_at, found, values), codegen

    function: Callable[..., int] = collect
    return function


def make_filter(shape: VectorShape, features: frozenset[str]) -> Callable[..., int]:
    """The numba function `keep(values, names, vectors, threshold, kept_values, kept_names)`.

    Of `vectors` x lanes values, those that reach the threshold go to `kept_values` and their `names` to `kept_names`,
    in order; both need a whole vector of room behind the last. Returns how many.
    """
    write = _writer(features)

    @intrinsic
    def keep(
        typingctx: Any, values: Any, names: Any, vectors: Any, threshold: Any, kept_values: Any, kept_names: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit, lanes = Emitter(context, builder, signature, arguments), shape.lanes
            written = emit.place(emit.constant(0))
            with cgutils.for_range(builder, emit.number(2), intp=emit.index) as loop:
                place = emit.shifted(emit.constant(0), loop.index, lanes)
                value, reached = _reached(emit, emit.data(0), place, lanes)
                name = emit.load(emit.data(1), place, ir.VectorType(I32, lanes))
                write(emit, reached, [(value, emit.data(4)), (name, emit.data(5))], written)
            return builder.load(written)

        return types.intp(values, names, vectors, threshold, kept_values, kept_names), codegen

    function: Callable[..., int] = keep
    return function


def _reached(emit: Emitter, values: Any, place: Any, lanes: int) -> tuple[Any, Any]:
    """The vector at a place, and which of its lanes are at least argument 3."""
    value = emit.load(values, place, ir.VectorType(F32, lanes))
    return value, emit.builder.fcmp_ordered(">=", value, emit.spread(emit.values[3], lanes))


def _counted_from(emit: Emitter, first: Any, lanes: int) -> Any:
    """first, first + 1, ... as int32."""
    numbers = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
    return emit.builder.add(emit.spread(emit.builder.trunc(first, I32), lanes), numbers)


def _bits_set(emit: Emitter, reached: Any) -> Any:
    """How many lanes, as an index: shorter on the way to the next decision than adding vectors up."""
    builder, bits = emit.builder, ir.IntType(reached.type.count)
    count = builder.call(emit.function(f"llvm.ctpop.i{bits.width}", bits, [bits]), [builder.bitcast(reached, bits)])
    return builder.zext(count, emit.index)


# Appends the lanes that reached of each vector to what its pointer holds already, `written` of them.
_Writer = Callable[[Emitter, Any, list[tuple[Any, Any]], Any], None]


def _writer(features: frozenset[str]) -> _Writer:
    return _write_packed if "avx512f" in features else _write_one_by_one


def _write_packed(emit: Emitter, reached: Any, vectors: list[tuple[Any, Any]], written: Any) -> None:
    """All lanes at once, by the instruction that moves chosen lanes to the front."""
    builder, end = emit.builder, emit.builder.load(written)
    for vector, pointer in vectors:
        kind = vector.type
        name = f"llvm.x86.avx512.mask.compress.v{kind.count}{'f32' if kind.element == F32 else 'i32'}"
        compress = emit.function(name, kind, [kind, kind, reached.type])
        emit.store(builder.call(compress, [vector, vector, reached]), pointer, end)
    builder.store(builder.add(end, _bits_set(emit, reached)), written)


def _write_one_by_one(emit: Emitter, reached: Any, vectors: list[tuple[Any, Any]], written: Any) -> None:
    """Every lane is written; only those that reached move the end on: no branch to guess wrong."""
    builder = emit.builder
    for lane in range(reached.type.count):
        number, end = ir.Constant(I32, lane), builder.load(written)
        for vector, pointer in vectors:
            emit.store(builder.extract_element(vector, number), pointer, end)
        one = builder.zext(builder.extract_element(reached, number), emit.index)
        builder.store(builder.add(end, one), written)
