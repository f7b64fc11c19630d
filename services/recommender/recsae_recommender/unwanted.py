"""Requests that ask for the bare model's answer: no policy is looked at for them, and their neighbours are steered.

Their rows never reach the steering, whichever way it steers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from recsae.pipeline.triples import Triple
from recsae.steering.delta import Steered
from recsae.steering.plans import Floats
from recsae.steering.receipts import Receipt, UnsteeredReason

Steer = Callable[[Floats, Sequence[int]], Steered]
"""Steers the rows float32 [m, d] of the requests named, in their order."""


def steer_wanted(
    steer: Steer,
    activation: Floats,
    sizes: Sequence[int],
    wanted: NDArray[np.bool_],
    model_version: str,
) -> Steered:
    """`steer` for the requests that `wanted` [n] names; the others keep their rows bit for bit and say NOT_WANTED.

    Request i owns the next `sizes[i]` rows of `activation` float32 [r, d].
    """
    receipts = [Receipt(UnsteeredReason.NOT_WANTED, triple=Triple(model_version=model_version))] * len(wanted)
    places = np.flatnonzero(wanted).tolist()
    if not places:
        return Steered(activation, tuple(receipts))
    rows = np.repeat(wanted, sizes)
    given = activation[rows]
    steered = steer(given, places)
    for place, receipt in zip(places, steered.receipts, strict=True):
        receipts[place] = receipt
    whole = activation
    if steered.activation is not given:
        whole = activation.copy()
        whole[rows] = steered.activation
    shadows = {places[place]: made for place, made in steered.shadows.items()}
    return Steered(whole, tuple(receipts), steered.error, shadows)
