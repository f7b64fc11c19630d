"""One pass over the latents per step: projection, Adam, unit norm.

Every parameter, gradient and moment is read once and written once, so a step costs memory traffic of 9 floats per
parameter and little else. The same arithmetic as `recsae.sae.optimiser`. Not here: gradients.
"""

from __future__ import annotations

import numpy as np

from recsae.sae.fast.compiling import compiled_any_order
from recsae.sae.fast.scoring import Floats


@compiled_any_order
def adam_row(
    values: Floats, slope: Floats, first: Floats, second: Floats, beta1: np.float32, beta2: np.float32,
    rate: np.float32, correction: np.float32, epsilon: np.float32,
) -> None:  # fmt: skip
    """Adam on one row, in place."""
    for t in range(len(values)):
        first[t] += (np.float32(1.0) - beta1) * (slope[t] - first[t])
        second[t] = beta2 * second[t] + (np.float32(1.0) - beta2) * slope[t] * slope[t]
        values[t] -= rate * first[t] / (np.sqrt(second[t]) / correction + epsilon)


@compiled_any_order
def update_latents(
    begin: int, end: int, w_enc: Floats, b_enc: Floats, w_dec: Floats, g_enc: Floats, g_bias: Floats, g_dec: Floats,
    m_enc: Floats, m_bias: Floats, m_dec: Floats, v_enc: Floats, v_bias: Floats, v_dec: Floats,
    beta1: np.float32, beta2: np.float32, rate: np.float32, correction: np.float32, epsilon: np.float32,
) -> None:  # fmt: skip
    """Steps latents begin..end-1; their decoder rows have unit norm afterwards."""
    d = w_enc.shape[1]
    for latent in range(begin, end):
        row, slope = w_dec[latent], g_dec[latent]
        along = np.float32(0.0)
        for t in range(d):
            along += row[t] * slope[t]
        for t in range(d):
            slope[t] -= along * row[t]
        adam_row(row, slope, m_dec[latent], v_dec[latent], beta1, beta2, rate, correction, epsilon)
        squares = np.float32(0.0)
        for t in range(d):
            squares += row[t] * row[t]
        shrink = np.float32(1.0) / max(np.sqrt(squares), np.float32(1e-12))
        for t in range(d):
            row[t] *= shrink
        adam_row(w_enc[latent], g_enc[latent], m_enc[latent], v_enc[latent], beta1, beta2, rate, correction, epsilon)
    adam_row(
        b_enc[begin:end], g_bias[begin:end], m_bias[begin:end], v_bias[begin:end],
        beta1, beta2, rate, correction, epsilon,
    )  # fmt: skip
