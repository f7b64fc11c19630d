"""The parameters of an SAE as arrays, in the units of the activations it reads.

    z = TopK(ReLU(W_enc (x - b_dec) + b_enc)),   x_hat = z W_dec + b_dec                 (docs/method.md, section 2)

Training happens on normalised activations x_n = (x - mean) / scale. ReLU and TopK commute with a positive factor, so
`fold` moves mean and scale into the biases without any approximation: the latent values become `scale` times
larger, decoder rows keep unit norm, and nobody who uses an SAE has to know that there was a normalisation.
Not here: training (`model`, `training`) and running (`runtime`). numpy and safetensors only.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from recsae.errors import CorruptArtifactError, InvalidRequestError

WEIGHTS_FILE = "sae.safetensors"
_FIELD_NAMES = {"w_enc": "W_enc", "b_enc": "b_enc", "w_dec": "W_dec", "b_dec": "b_dec", "mean": "mean"}

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class SaeWeights:
    """`w_enc` and `w_dec` [w, d] (decoder rows of unit norm), `b_enc` [w], `b_dec` [d], `mean` [d]; all float32.

    `mean` is the mean training activation, from which FVU is measured; it takes no part in encoding or decoding.
    """

    w_enc: Floats
    b_enc: Floats
    w_dec: Floats
    b_dec: Floats
    mean: Floats

    def __post_init__(self) -> None:
        """InvalidRequestError unless shapes agree, values are finite and decoder rows have unit norm."""
        if self.w_enc.ndim != 2:
            raise InvalidRequestError(f"W_enc must be [width, d], not {self.w_enc.shape}")
        width, d = self.w_enc.shape
        expected = {"w_enc": (width, d), "b_enc": (width,), "w_dec": (width, d), "b_dec": (d,), "mean": (d,)}
        for field, shape in expected.items():
            array = getattr(self, field)
            if array.shape != shape or array.dtype != np.float32:
                raise InvalidRequestError(
                    f"{_FIELD_NAMES[field]} is {array.dtype} {array.shape}, expected float32 {shape}"
                )
            if not np.isfinite(array).all():
                raise InvalidRequestError(f"{_FIELD_NAMES[field]} holds NaN or infinity; train again")
        off = float(np.abs(np.linalg.norm(self.w_dec.astype(np.float64), axis=1) - 1.0).max())
        if off > 1e-4:
            raise InvalidRequestError(f"decoder rows must have unit norm, one is off by {off:.2g}")

    @property
    def width(self) -> int:
        """Number of latents."""
        return int(self.w_enc.shape[0])

    @property
    def d(self) -> int:
        """Length of an activation."""
        return int(self.w_enc.shape[1])

    def scores(self, x: Floats) -> Floats:
        """What every latent has before ReLU and the cut, float32 [n, w], of activations [n, d]; n x w x 4 bytes."""
        scores: Floats = ((x - self.b_dec) @ self.w_enc.T).astype(np.float32, copy=False)
        scores += self.b_enc
        return scores

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all values that encode and decode."""
        digest = hashlib.sha256()
        for array in (self.w_enc, self.b_enc, self.w_dec, self.b_dec):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def fold(normalised: SaeWeights, scale: float) -> SaeWeights:
    """The same SAE on x instead of x_n = (x - mean) / scale, where `mean` is `normalised.mean` in input units.

    z(x) = scale z_n(x_n) and x_hat = scale x_hat_n + mean, hence b_enc and b_dec grow by `scale` and b_dec moves by
    the mean; both matrices stay. Computed in float64 and rounded once.
    """
    if not scale > 0:
        raise InvalidRequestError(f"the normalisation scale must be > 0, not {scale}")
    return SaeWeights(
        w_enc=normalised.w_enc,
        b_enc=(scale * normalised.b_enc.astype(np.float64)).astype(np.float32),
        w_dec=normalised.w_dec,
        b_dec=(scale * normalised.b_dec.astype(np.float64) + normalised.mean).astype(np.float32),
        mean=normalised.mean,
    )


def unfold(weights: SaeWeights, mean: Floats, scale: float) -> SaeWeights:
    """The reverse of `fold` for any normalisation: where training goes on from an SAE that was trained before."""
    if weights.d != len(mean):
        raise InvalidRequestError(f"the SAE to start from reads {weights.d} values, the activations have {len(mean)}")
    return SaeWeights(
        w_enc=weights.w_enc,
        b_enc=(weights.b_enc / scale).astype(np.float32),
        w_dec=weights.w_dec,
        b_dec=((weights.b_dec.astype(np.float64) - mean) / scale).astype(np.float32),
        mean=mean,
    )


def save_weights(weights: SaeWeights, folder: Path) -> None:
    """Writes `sae.safetensors`."""
    arrays = {_FIELD_NAMES[field]: np.ascontiguousarray(array) for field, array in asdict(weights).items()}
    safetensors.numpy.save_file(arrays, folder / WEIGHTS_FILE)


def load_weights(folder: Path) -> SaeWeights:
    """Reads `sae.safetensors`; CorruptArtifactError when it cannot be one."""
    path = folder / WEIGHTS_FILE
    try:
        arrays = safetensors.numpy.load_file(path)
        return SaeWeights(**{field: arrays[name] for field, name in _FIELD_NAMES.items()})
    except (OSError, KeyError, safetensors.SafetensorError, InvalidRequestError) as error:
        raise CorruptArtifactError(f"{path} holds no SAE weights ({error}); publish the SAE again") from error
