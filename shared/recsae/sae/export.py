"""Writes a trained SAE as an artifact folder: `encoder.onnx`, `sae.safetensors`, `sae.json`.

The encoder graph is built by hand (Sub, MatMul, Add, Relu, TopK, threshold), so that it holds exactly the arithmetic
of `recsae.sae.weights` and needs no exporter. Not here: publishing (`recsae.store.artifacts`) and running (`runtime`).
Needs `onnx`; no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from recsae.errors import InvalidRequestError
from recsae.sae.runtime import ENCODER_FILE, FACTS_FILE, SCHEMA_VERSION
from recsae.sae.weights import SaeWeights, save_weights
from recsae.store.files import write_json_atomic

# The oldest pair that has everything used here; onnxruntime has read it since 1.10.
_OPSET = 15
_IR_VERSION = 8


@dataclass(frozen=True)
class TrainingFacts:
    """What must be known about the training data to use an SAE, beside its weights.

    `error_p99`: 99th percentile over training rows of |x - x_hat|^2 / |x - mean|^2, above which explanations are
    refused. `mean_norm`: mean |x| over training rows. `scores`: informative. `config`: how it was trained.
    """

    error_p99: float
    mean_norm: float
    scores: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


def export_sae(
    weights: SaeWeights, k: int, facts: TrainingFacts, out: Path, *, slots: int = 0, threshold: float = 0.0
) -> None:
    """Writes the files of an `sae` artifact into the folder `out`. `weights` are in input units (see `fold`).

    `k` latents fire on average. A row keeps its `slots` largest (0 = k), of which those above `threshold` fire.
    """
    slots = slots or k
    if not 1 <= k <= slots <= weights.width:
        raise InvalidRequestError(f"k must be within 1..{weights.width} (the width), not {k} of {slots} places")
    if not 0 <= threshold < math.inf:
        raise InvalidRequestError(f"the threshold must be >= 0 and finite, not {threshold}")
    out.mkdir(parents=True, exist_ok=True)
    (out / ENCODER_FILE).write_bytes(encoder_graph(weights, slots, threshold))
    save_weights(weights, out)
    write_json_atomic(
        out / FACTS_FILE,
        {
            "schema_version": SCHEMA_VERSION,
            "d": weights.d,
            "width": weights.width,
            "k": k,
            "slots": slots,
            "threshold": threshold,
            "error_p99": facts.error_p99,
            "mean_norm": facts.mean_norm,
            "scores": dict(facts.scores),
            "config": dict(facts.config),
        },
    )


def encoder_graph(weights: SaeWeights, slots: int, threshold: float = 0.0) -> bytes:
    """ONNX: `activation` float32 [n, d] -> `indices` int64 [n, slots], `values` float32 [n, slots], falling.

    Values not above `threshold` are 0.

    The mean is subtracted before the product instead of being folded into one bias: where activations sit far
    from the origin, that difference would cancel most digits of a float32.
    """
    constants: dict[str, NDArray[Any]] = {
        "b_dec": weights.b_dec,
        "w_enc_t": np.ascontiguousarray(weights.w_enc.T),
        "b_enc": weights.b_enc,
        "k": np.array([slots], np.int64),
    }
    nodes = [
        helper.make_node("Sub", ["activation", "b_dec"], ["centred"]),
        helper.make_node("MatMul", ["centred", "w_enc_t"], ["projected"]),
        helper.make_node("Add", ["projected", "b_enc"], ["preactivation"]),
        helper.make_node("Relu", ["preactivation"], ["latents"]),
        helper.make_node("TopK", ["latents", "k"], ["largest", "indices"], axis=1, largest=1, sorted=1),
    ]
    if threshold > 0:
        constants |= {"threshold": np.array(threshold, np.float32), "zero": np.array(0, np.float32)}
        nodes += [
            helper.make_node("Greater", ["largest", "threshold"], ["fires"]),
            helper.make_node("Where", ["fires", "largest", "zero"], ["values"]),
        ]
    else:
        nodes[-1].output[0] = "values"
    graph = helper.make_graph(
        nodes,
        "sae_encoder",
        inputs=[helper.make_tensor_value_info("activation", TensorProto.FLOAT, ["n", weights.d])],
        outputs=[
            helper.make_tensor_value_info("indices", TensorProto.INT64, ["n", slots]),
            helper.make_tensor_value_info("values", TensorProto.FLOAT, ["n", slots]),
        ],
        initializer=[numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="recsae"
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
