"""The full encoder of an SAE as one ONNX graph: what recommenders and the interpreter run to read latents.

After TopK a latent's value depends on every other latent, so there is no cheaper exact way to read one. Not here:
fetching the graph (`follower`) and decoding (`recsae.sae.runtime`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from recsae.errors import CorruptArtifactError
from recsae.steering.plans import Floats

_PROBE_ROWS = 8
_ERRORS_ONLY = 3


@dataclass(frozen=True)
class SparseLatents:
    """`indices` int64 [n, k] and `values` float32 [n, k], largest first."""

    indices: NDArray[np.int64]
    values: Floats


class OnnxEncoder:
    """`activation` float32 [n, d] -> `indices` [n, k], `values` [n, k]. Safe to call from several threads."""

    def __init__(self, onnx: bytes, dim: int) -> None:
        """Loads the graph and tries it once; CorruptArtifactError when it is not an encoder for length `dim`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
            self.batch_invariant = self._rows_do_not_depend_on_the_batch(dim)
        except Exception as error:  # onnxruntime raises its own classes straight from Exception
            raise CorruptArtifactError(f"the encoder cannot be run on activations of length {dim}: {error}") from error

    def __call__(self, x: Floats) -> SparseLatents:
        """Latents of activations float32 [n, d]; a row's bits do not depend on the other rows."""
        if self.batch_invariant or len(x) <= 1:
            return self._run(x)
        parts = [self._run(x[row : row + 1]) for row in range(len(x))]
        return SparseLatents(
            np.concatenate([part.indices for part in parts]), np.concatenate([part.values for part in parts])
        )

    def _run(self, x: Floats) -> SparseLatents:
        feed: dict[str, Any] = {"activation": np.ascontiguousarray(x, dtype=np.float32)}
        indices, values = self._session.run(["indices", "values"], feed)
        return SparseLatents(indices, values)

    def _rows_do_not_depend_on_the_batch(self, dim: int) -> bool:
        """Compares a probe bit by bit, together and row by row: true of the kernels we know, promised by nobody."""
        probe = np.random.default_rng(0).standard_normal((_PROBE_ROWS, dim)).astype(np.float32)
        together = self._run(probe)
        alone = [self._run(probe[row : row + 1]) for row in range(_PROBE_ROWS)]
        return all(
            together.indices[row].tobytes() == one.indices[0].tobytes()
            and together.values[row].tobytes() == one.values[0].tobytes()
            for row, one in enumerate(alone)
        )
