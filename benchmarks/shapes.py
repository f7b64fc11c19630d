"""The sizes that are measured, and how long each is trained for the loss. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.planted import Planted

BATCH = 4096  # of the throughput
LOSS_BATCH = 1024  # of the loss: 4,096 would leave the largest shape a dozen steps
HELD_OUT_ROWS = 16_384
# One grid for all. Each contender keeps the rate that gave it the lowest FVU after a quarter of the stream.
RATES = (1e-3, 2e-3, 4e-3)


@dataclass(frozen=True)
class Shape:
    """An SAE of `width` latents on vectors of length `d`, `k` firing per row; `stream` rows for the loss."""

    name: str
    d: int
    width: int
    k: int
    stream: int

    @property
    def parameters(self) -> int:
        """Numbers in both matrices and both biases."""
        return 2 * self.d * self.width + self.d + self.width

    @property
    def planted(self) -> Planted:
        """Half as many directions as latents, half as many per row as latents may fire."""
        return Planted(self.d, atoms=self.width // 2, active=self.k // 2)


SHAPES = (
    Shape("S", d=64, width=2048, k=32, stream=200 * LOSS_BATCH),
    Shape("M", d=128, width=4096, k=32, stream=100 * LOSS_BATCH),
    Shape("L", d=256, width=8192, k=64, stream=50 * LOSS_BATCH),
)
