"""How good an SAE in training is, by one function for every contender. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.contenders.contract import Contender, Floats

_CHUNK = 2048  # rows at a time: a dense contender holds several [rows, width] arrays


@dataclass(frozen=True)
class Quality:
    """`fvu`: unexplained share of the variance; `dead`: share of latents that fire on no row."""

    fvu: float
    dead: float


def fvu(x: Floats, x_hat: Floats) -> float:
    """Fraction of variance unexplained: sum |x - x_hat|^2 / sum |x - mean x|^2 over all rows [n, d], in float64.

    A ratio of sums, not a mean of ratios; in the units of `x`.
    """
    error = np.square(x.astype(np.float64) - x_hat).sum()
    spread = np.square(x - x.mean(axis=0, dtype=np.float64)).sum()
    return float(error / spread)


def quality(contender: Contender, x: Floats) -> Quality:
    """Of encoding and decoding held-out rows `x` [n, d]."""
    parts = [x[at : at + _CHUNK] for at in range(0, len(x), _CHUNK)]
    x_hat = np.concatenate([contender.reconstruct(part) for part in parts])
    fired = np.logical_or.reduce([contender.fired(part) for part in parts])
    return Quality(fvu(x, x_hat), 1.0 - float(fired.mean()))
