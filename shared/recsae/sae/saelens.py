"""Writes an SAE in the format of SAELens (`sae-lens` 6): `cfg.json` and `sae_weights.safetensors`.

SAELens reads it with `SAE.load_from_disk(folder)` and gives the same latents. Its architectures differ from ours in
names and orientation only: its `W_enc` is [d, w], and `topk` and `jumprelu` with `apply_b_dec_to_input` compute

    z = TopK(ReLU((x - b_dec) W_enc + b_enc)),        z = u where u > threshold, else 0,  u = (x - b_dec) W_enc + b_enc

in the units of `x`. A Matryoshka SAE encodes as TopK does. A BatchTopK SAE (Bussmann et al. 2024) encodes as the
second, but where more latents of a row pass the threshold than we keep (`slots`): there SAELens keeps them all. Not
here: our own format (`export`). No torch, no sae-lens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy

from recsae import __version__
from recsae.errors import InvalidRequestError
from recsae.sae.weights import SaeWeights
from recsae.store.files import write_atomic, write_json_atomic

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
# Configurations that name no version are read as older than 6, with other field names.
FORMAT_VERSION = "6.0.0"


def write_saelens(
    weights: SaeWeights,
    out: Path,
    *,
    k: int,
    threshold: float | None = None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Writes `weights` (in input units) into the folder `out`, which is made.

    Without `threshold` an SAE that keeps the `k` largest latents of a row (`topk`); with one, in the units of the
    latents, an SAE that keeps those above it (`jumprelu`: strictly above, as SAELens compares). `facts` such as the
    model's name go into the metadata. InvalidRequestError when `k` is outside the width or `threshold` is negative:
    SAELens applies its ReLU first.
    """
    if not 1 <= k <= weights.width:
        raise InvalidRequestError(f"k must be within 1..{weights.width} (the width), not {k}")
    if threshold is not None and not (np.isfinite(threshold) and threshold >= 0):
        raise InvalidRequestError(f"a threshold of latents must be >= 0, not {threshold}")
    arrays = {
        "W_enc": np.ascontiguousarray(weights.w_enc.T),
        "b_enc": weights.b_enc,
        "W_dec": weights.w_dec,
        "b_dec": weights.b_dec,
    }
    if threshold is not None:
        arrays["threshold"] = np.full(weights.width, threshold, np.float32)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / WEIGHTS_FILE, safetensors.numpy.save(arrays))
    write_json_atomic(
        out / CONFIG_FILE,
        {
            "architecture": "topk" if threshold is None else "jumprelu",
            "d_in": weights.d,
            "d_sae": weights.width,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": {
                "sae_lens_version": FORMAT_VERSION,
                "sae_lens_training_version": None,
                "trained_with": f"recsae {__version__}",
                **(facts or {}),
            },
            **({"k": k, "rescale_acts_by_decoder_norm": False} if threshold is None else {}),
        },
    )
