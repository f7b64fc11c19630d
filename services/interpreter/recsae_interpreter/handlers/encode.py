"""Use case: activations to latents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.pipeline.triples import Triple
from recsae.sae.codes import Codes
from recsae_interpreter.library import Library

MOST_ROWS = 16_384


@dataclass(frozen=True)
class Encoded:
    """Latents of each row and the part of it they leave unexplained, float32 [n]."""

    codes: Codes
    unexplained_shares: NDArray[np.float32]
    triple: Triple
    model: str = ""


class EncodeHandler:
    """Encodes activations by the SAE promoted for their model version."""

    def __init__(self, library: Library) -> None:
        """Keeps its collaborators."""
        self._library = library

    def __call__(self, model: str, hook: str, model_version: str, x: NDArray[np.float32]) -> Encoded:
        """Latents of `x` float32 [n, d] at a hook ("" = the first); FailedPreconditionError without promoted SAE."""
        if len(x) > MOST_ROWS:
            raise InvalidRequestError(f"{len(x)} rows came; send at most {MOST_ROWS} in one call")
        address = self._library.address(model or self._library.model("").model, hook)
        loaded = self._library.version(address, model_version)
        codes = loaded.sae.encode(x)
        return Encoded(codes, loaded.sae.relative_error(x, loaded.sae.decode(codes)), loaded.triple, loaded.model)
