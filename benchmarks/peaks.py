"""What this machine can do at best, measured: the rates a floor is computed from. `python -m benchmarks.peaks`.

Runs in a process of its own, so that its thread count is that of the contenders and no kernel is pinned, and prints one
line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch

from benchmarks.shapes import BATCH, SHAPES, Shape

# Many short series: on a machine with other work, some fall between its turns.
_LOOK_FOR_S = 0.2
_TURN_S = 0.005
_SQUARES = (512, 1024)
_ENCODER_ROWS = (256, 512, BATCH)


@dataclass(frozen=True)
class Peaks:
    """`gemm_flops` is the best fp32 matrix product in FLOP/s; the others are bytes per second by the shape's name.

    `read`: of an array as large as one weight matrix. `copy`: read plus written, over as much memory as Adam works on.
    """

    gemm_flops: float
    read: dict[str, float]
    copy: dict[str, float]

    def better_of(self, other: Peaks) -> Peaks:
        """The higher of each: a disturbed measurement only ever shows too little."""
        return Peaks(
            max(self.gemm_flops, other.gemm_flops),
            {name: max(rate, other.read[name]) for name, rate in self.read.items()},
            {name: max(rate, other.copy[name]) for name, rate in self.copy.items()},
        )


def measure_peaks() -> Peaks:
    """At torch's current thread count."""
    return Peaks(
        gemm_flops=max(
            *(_gemm(size, size, size) for size in _SQUARES),
            *(_gemm(rows, shape.d, shape.width) for rows in _ENCODER_ROWS for shape in SHAPES),
        ),
        read={shape.name: _read(shape) for shape in SHAPES},
        copy={shape.name: _copy(shape) for shape in SHAPES},
    )


def _gemm(n: int, inner: int, m: int) -> float:
    """The better of torch's and numpy's: which library knows a processor's widest vectors differs (MKL, OpenBLAS)."""
    left, right, out = torch.randn(n, inner), torch.randn(inner, m), torch.empty(n, m)
    arrays = left.numpy(), right.numpy()
    by_torch = _fastest(lambda: torch.mm(left, right, out=out))
    by_numpy = _fastest(lambda: np.matmul(*arrays, out=out.numpy()))
    return 2.0 * n * inner * m / min(by_torch, by_numpy)


def _read(shape: Shape) -> float:
    half = shape.width * shape.d // 2
    left, right = torch.randn(half), torch.randn(half)
    return 8.0 * half / _fastest(lambda: torch.dot(left, right))


def _copy(shape: Shape) -> float:
    source = torch.randn(2 * shape.parameters)  # with its copy: parameters, gradient and two moments
    target = torch.empty_like(source)
    return 8.0 * len(source) / _fastest(lambda: target.copy_(source))


def _fastest(action: Callable[[], object]) -> float:
    """Seconds of one call: the best of a few series, each long enough for the clock."""
    action()
    begun = time.perf_counter()
    action()
    count = max(1, round(_TURN_S / max(time.perf_counter() - begun, 1e-7)))
    best, end = float("inf"), time.perf_counter() + _LOOK_FOR_S
    while time.perf_counter() < end:
        begun = time.perf_counter()
        for _ in range(count):
            action()
        best = min(best, (time.perf_counter() - begun) / count)
    return best


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(measure_peaks())) + "\n")
