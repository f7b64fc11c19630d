"""Short names for writing LLVM's intermediate language out of numba: what `tiles`, `counting` and `gathering` share.

Not here: any arithmetic of ours.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

I8, I32, F32 = ir.IntType(8), ir.IntType(32), ir.FloatType()


class Emitter:
    """The builder of one intrinsic, with its arguments by number."""

    def __init__(self, context: Any, builder: Any, signature: Any, values: Any) -> None:
        """What numba gives to a code generator."""
        self._context, self._signature, self.values = context, signature, values
        self.builder = builder
        self.index = context.get_value_type(types.intp)

    def data(self, argument: int) -> Any:
        """Pointer to the first element of an array argument."""
        kind = self._signature.args[argument]
        return self._context.make_array(kind)(self._context, self.builder, self.values[argument]).data

    def number(self, argument: int) -> Any:
        """An integer argument as an index."""
        return self._context.cast(self.builder, self.values[argument], self._signature.args[argument], types.intp)

    def nothing(self) -> Any:
        """What a function without a result returns."""
        return self._context.get_dummy_value()

    def constant(self, value: int) -> Any:
        """An index known now."""
        return ir.Constant(self.index, value)

    def shifted(self, base: Any, step: Any, times: int) -> Any:
        """Base + step x times."""
        return self.builder.add(base, self.builder.mul(step, self.constant(times)))

    def plus(self, base: Any, constant: int) -> Any:
        """Base + constant."""
        return self.builder.add(base, self.constant(constant))

    def load(self, pointer: Any, at: Any, kind: Any) -> Any:
        """A value of `kind` from element `at` on; it need not be aligned."""
        value = self.builder.load(self.builder.bitcast(self.builder.gep(pointer, [at]), kind.as_pointer()))
        value.align = 1
        return value

    def store(self, value: Any, pointer: Any, at: Any) -> None:
        """Writes a value from element `at` on; it need not be aligned to more than an element."""
        place = self.builder.bitcast(self.builder.gep(pointer, [at]), value.type.as_pointer())
        self.builder.store(value, place).align = 4

    def spread(self, scalar: Any, lanes: int) -> Any:
        """A vector whose lanes all hold `scalar`."""
        kind = ir.VectorType(scalar.type, lanes)
        empty = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(empty, scalar, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))

    def place(self, start: Any) -> Any:
        """A variable that holds `start` at first; LLVM keeps it in a register."""
        return cgutils.alloca_once_value(self.builder, start)  # type: ignore[no-untyped-call]

    def function(self, name: str, result: Any, arguments: list[Any]) -> Any:
        """An instruction of LLVM by name."""
        kind = ir.FunctionType(result, arguments)
        return cgutils.get_or_insert_function(self.builder.module, kind, name)  # type: ignore[no-untyped-call]

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """A b + c, rounded once."""
        kind = a.type
        return self.builder.call(self.function(f"llvm.fma.v{kind.count}f32", kind, [kind] * 3), [a, b, c])

    def larger(self, a: Any, b: Any) -> Any:
        """Lane by lane."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)
