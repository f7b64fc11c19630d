"""Runs a trained SAE: encode by onnxruntime, decode by gathering the k decoder rows that fire.

A row's result does not depend, to the bit, on the other rows in the call (invariant 3: an unsteered neighbour is
never touched): onnxruntime computed rows alike in every batch size we tried, and decoding reduces each row by
itself, which `numpy @` would not. Not here: training, evaluation, what latents mean. No torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from recsae.errors import CorruptArtifactError, InvalidRequestError
from recsae.sae.codes import Codes, concatenate, empty_codes
from recsae.sae.weights import SaeWeights, load_weights

SCHEMA_VERSION = 1
ENCODER_FILE = "encoder.onnx"
FACTS_FILE = "sae.json"
# Both bound the scratch of one call: 4 M floats = 16 MiB, whatever the number of rows.
_ENCODE_SCRATCH_FLOATS = 1 << 22
_DECODE_SCRATCH_FLOATS = 1 << 22

Floats = NDArray[np.float32]


class Encoder:
    """`encoder.onnx` in an onnxruntime session; safe to call from many threads."""

    def __init__(self, graph: bytes, *, d: int, width: int, slots: int, threads: int = 1) -> None:
        """`slots` are the columns of its codes; `threads` work inside one call, the calls themselves may overlap."""
        self.d, self.width, self.slots = d, width, slots
        self._rows_at_once = max(1, _ENCODE_SCRATCH_FLOATS // width)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def encode(self, x: Floats) -> Codes:
        """Codes [n, slots] of activations `x` float32 [n, d].

        InvalidRequestError on another shape or type, or when a value is not finite.
        """
        check_activations(x, self.d)
        parts = [self._run(x[at : at + self._rows_at_once]) for at in range(0, len(x), self._rows_at_once)]
        if len(parts) == 1:
            return parts[0]
        return concatenate(parts) if parts else empty_codes(self.slots)

    def _run(self, x: Floats) -> Codes:
        indices, values = self._session.run(["indices", "values"], {"activation": x})
        return Codes(indices.astype(np.int32), values)


class SparseAutoencoder:
    """An SAE of one version, ready to encode and decode. Immutable; safe to call from many threads.

    `k` latents fire on average, at most `slots` in a row, and none at or below `threshold`.
    """

    def __init__(self, weights: SaeWeights, encoder: Encoder, facts: Mapping[str, Any], version: str) -> None:
        """`facts` is the content of `sae.json`. Use `load`."""
        self._encoder = encoder
        self.version = version
        self.config: Mapping[str, Any] = facts.get("config", {})
        self.scores: Mapping[str, float] = facts.get("scores", {})
        self.d, self.width, self.slots = weights.d, weights.width, encoder.slots
        self.k = int(facts["k"])
        self.threshold = float(facts.get("threshold", 0.0))
        self.w_dec, self.b_dec, self.mean = weights.w_dec, weights.b_dec, weights.mean
        self.error_p99 = float(facts["error_p99"])
        self.mean_norm = float(facts["mean_norm"])

    @classmethod
    def load(cls, folder: Path, version: str, *, threads: int = 1) -> SparseAutoencoder:
        """Loads a fetched `sae` artifact; CorruptArtifactError when its files do not fit each other."""
        facts = _read_facts(folder / FACTS_FILE)
        weights = load_weights(folder)
        d, width, slots = int(facts["d"]), int(facts["width"]), int(facts.get("slots", facts["k"]))
        if (weights.width, weights.d) != (width, d):
            raise CorruptArtifactError(
                f"SAE {version}: weights are {weights.width} x {weights.d}, {FACTS_FILE} says {width} x {d}"
            )
        graph = (folder / ENCODER_FILE).read_bytes()
        return cls(weights, Encoder(graph, d=d, width=width, slots=slots, threads=threads), facts, version)

    def encode(self, x: Floats) -> Codes:
        """Codes [n, slots] of activations `x` float32 [n, d]; InvalidRequestError on anything else."""
        return self._encoder.encode(x)

    def decode(self, codes: Codes) -> Floats:
        """Reconstructions float32 [n, d] of codes: x_hat = sum_j z_j W_dec[j] + b_dec.

        InvalidRequestError when a latent is outside the width.
        """
        return decode(codes, self.w_dec, self.b_dec)

    def relative_error(self, x: Floats, x_hat: Floats) -> Floats:
        """|x - x_hat|^2 / |x - mean|^2 per row, float32 [n]: compare with `error_p99`; 0 means exact."""
        return relative_error(x, x_hat, self.mean)


def relative_error(x: Floats, x_hat: Floats, mean: Floats) -> Floats:
    """|x - x_hat|^2 / |x - mean|^2 per row of `x`, `x_hat` [n, d], float32 [n]."""
    residual, spread = x - x_hat, x - mean
    error = np.einsum("nd,nd->n", residual, residual)
    total = np.einsum("nd,nd->n", spread, spread)
    return np.asarray(error / np.maximum(total, np.finfo(np.float32).tiny), dtype=np.float32)


def decode(codes: Codes, w_dec: Floats, b_dec: Floats) -> Floats:
    """x_hat float32 [n, d] = sum over a row's k entries of value x `w_dec` [w, d] row, plus `b_dec` [d].

    Every row is reduced by itself in the same order, so its bits do not depend on the batch. Scratch is bounded.
    """
    width, d = w_dec.shape
    if codes.indices.size and not 0 <= int(codes.indices.min()) <= int(codes.indices.max()) < width:
        raise InvalidRequestError(f"codes name latents outside 0..{width - 1}; they come from another SAE")
    out = np.empty((len(codes), d), np.float32)
    rows = max(1, _DECODE_SCRATCH_FLOATS // max(1, codes.k * d))
    for at in range(0, len(codes), rows):
        chunk = slice(at, at + rows)
        np.einsum("nk,nkd->nd", codes.values[chunk], w_dec[codes.indices[chunk]], out=out[chunk])
    out += b_dec
    return out


def check_activations(x: Floats, d: int) -> None:
    """InvalidRequestError unless `x` is float32 [n, d] and finite."""
    if x.ndim != 2 or x.shape[1] != d or x.dtype != np.float32:
        raise InvalidRequestError(f"expected float32 activations [n, {d}], got {x.dtype} {list(x.shape)}")
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise InvalidRequestError(f"activation row {row} holds NaN or infinity; check the recommender's output")


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CorruptArtifactError(f"cannot read {path} ({error}); publish the SAE again") from error
    if facts.get("schema_version") != SCHEMA_VERSION:
        raise CorruptArtifactError(
            f"{path} has schema {facts.get('schema_version')!r}, this release reads {SCHEMA_VERSION}; publish again"
        )
    return facts
