"""The least time an exact fp32 step can take on this machine, per activation, if all mandatory work ran at its peak.

    floor = encoder + sparse + optimiser

* encoder: 2 d w FLOP, every preactivation once, at the best rate at which any library multiplied matrices.
* sparse: 8 k d FLOP (2 k d each for decoding, the gradient by the k values, and accumulating the gradients of both
  matrices), or moving 12 k d bytes (k rows of length d once from W_dec, used for decoding and again for the values,
  and once for each gradient) at the read bandwidth measured on an array as large as one matrix, whichever takes
  longer. Bytes count only when one matrix exceeds a core's L2 cache: below that they come for free with the FLOP.
* optimiser: 28 bytes per parameter and step (read parameter, gradient and two moments, write all but the gradient),
  over the batch, at the copy bandwidth measured on as much memory.

Left out, so the floor is a little too low and the share too modest: choosing the k largest, the loss, the biases'
gradients, clearing the gradient, unit norms. Pure arithmetic; the rates come from `peaks`.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.peaks import Peaks
from benchmarks.shapes import BATCH, Shape

_OPTIMISER_BYTES = 28


@dataclass(frozen=True)
class Floor:
    """Microseconds per activation. `sparse` is the larger of its arithmetic and its memory traffic."""

    encoder_us: float
    sparse_flops_us: float
    sparse_bytes_us: float
    optimiser_us: float

    @property
    def sparse_us(self) -> float:
        """The part that bounds."""
        return max(self.sparse_flops_us, self.sparse_bytes_us)

    @property
    def total_us(self) -> float:
        """The floor."""
        return self.encoder_us + self.sparse_us + self.optimiser_us

    def share_of(self, activations_per_s: float) -> float:
        """Floor over measured time: 1 is perfect."""
        return self.total_us * activations_per_s / 1e6


def floor_of(shape: Shape, peaks: Peaks, l2_bytes: int, batch: int = BATCH) -> Floor:
    """At the measured `peaks`."""
    rows = shape.k * shape.d
    beyond_l2 = 4 * shape.width * shape.d > l2_bytes
    return Floor(
        encoder_us=1e6 * 2 * shape.d * shape.width / peaks.gemm_flops,
        sparse_flops_us=1e6 * 8 * rows / peaks.gemm_flops,
        sparse_bytes_us=1e6 * 12 * rows / peaks.read[shape.name] if beyond_l2 else 0.0,
        optimiser_us=1e6 * _OPTIMISER_BYTES * shape.parameters / batch / peaks.copy[shape.name],
    )
