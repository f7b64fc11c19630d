"""What the vector units of this CPU look like, and the shape the compiled loops take on them."""

from __future__ import annotations

from dataclasses import dataclass

import llvmlite.binding

ROWS = 6
"""Activations a tile works on; with four vectors of latents the 24 accumulators fit AVX-512's 32 registers."""
INT8_STEP = 4
"""Neighbouring values that one int8 dot-product instruction takes in."""


@dataclass(frozen=True)
class VectorShape:
    """`lanes` float32 in a register, `columns` registers of latents in a tile."""

    lanes: int
    columns: int

    @property
    def panel(self) -> int:
        """Latents a tile works on."""
        return self.lanes * self.columns


def cpu_features() -> frozenset[str]:
    """LLVM's names of what this CPU has, e.g. "avx512f", "avx512vnni"."""
    return frozenset(name for name, there in llvmlite.binding.get_host_cpu_features().items() if there)


def vector_shape(features: frozenset[str]) -> VectorShape:
    """AVX-512 has 32 registers of 16 floats, AVX2 has 16 of 8, NEON and the rest 32 of 4."""
    if "avx512f" in features:
        return VectorShape(16, 4)
    return VectorShape(8, 2) if "avx2" in features else VectorShape(4, 4)


def has_int8_dot(features: frozenset[str]) -> bool:
    """True when 64 products of uint8 x int8 are one instruction (AVX-512 VNNI)."""
    return {"avx512f", "avx512vnni"} <= features


SHAPE = vector_shape(cpu_features())
INT8 = has_int8_dot(cpu_features())
