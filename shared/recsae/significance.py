"""P values and intervals that need numpy alone, so that serving can compute them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

Z95 = 1.959964

# Chebyshev fit of ln(erfc(x) exp(x^2) / t) in t = 1 / (1 + x / 2); relative error below 1.2e-7 everywhere
# (Press et al., Numerical Recipes, section 6.2).
_FIT = (
    -1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587, -0.82215223,
    0.17087277,
)  # fmt: skip


def two_sided_p(z: Doubles) -> Doubles:
    """P of a standard normal at least as far from 0 as `z` (any shape); NaN stays NaN."""
    x = np.abs(z) * np.sqrt(0.5)
    t = 1 / (1 + 0.5 * x)
    series = np.zeros_like(t)
    for coefficient in reversed(_FIT):
        series = series * t + coefficient
    with np.errstate(under="ignore"):
        p: Doubles = np.minimum(1.0, t * np.exp(-x * x + series))
    return p


def wilson(share: Doubles | float, cases: Doubles | float) -> tuple[Doubles, Doubles]:
    """Ends of Wilson's 95 % interval of shares of so many independent cases (Wilson 1927, JASA 22); 0 to 1 of none.

    Shapes broadcast.
    """
    share, n = np.asarray(share, np.float64), np.maximum(cases, 1e-9)
    centre, scale = share + Z95**2 / (2 * n), 1 + Z95**2 / n
    half = Z95 * np.sqrt(np.maximum(share * (1 - share), 0) / n + (Z95 / (2 * n)) ** 2)
    return np.maximum((centre - half) / scale, 0.0), np.minimum((centre + half) / scale, 1.0)


def benjamini_hochberg(p: Doubles) -> Doubles:
    """Adjusted p values over the finite entries of `p` [w]; NaN stays NaN."""
    q = np.full_like(p, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    if tested.size:
        order = tested[np.argsort(p[tested], kind="stable")]
        scaled = p[order] * tested.size / np.arange(1, tested.size + 1)
        q[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return q
