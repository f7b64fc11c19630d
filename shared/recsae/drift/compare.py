"""Window against reference: which concepts moved, by how much, and how the whole mix moved (docs/method.md, section 9).

Pure functions on counters. Live rows come in bursts (one user, one campaign), so counts vary more than binomial
ones; the variance is inflated by what the sub-panes of the window show. Not here: where counters come from and where
the result goes (`record`, `recsae_worker.tasks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from recsae.drift.counters import ConceptCounters, merged
from recsae.drift.panes import Pane
from recsae.drift.states import DriftState
from recsae.errors import FailedPreconditionError
from recsae.significance import benjamini_hochberg

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class DriftThresholds:
    """When a concept counts as moved, and when there is too little to tell."""

    min_rows: int = 200
    """Rows of the window below which nothing is judged."""
    min_reference_rows: int = 50
    """Rows (users) of the reference below which nothing is judged; how few they are is in every standard error."""
    min_expected: float = 5.0
    """Firings expected on the side with fewer rows, at the larger of both rates, below which it is not judged."""
    min_log2_ratio: float = 1.0
    max_q: float = 0.01
    prior_panes: float = 10.0
    """Weight, in panes, of the pooled overdispersion in each concept's own."""


@dataclass(frozen=True)
class Comparison:
    """Per latent [w] unless said otherwise; NaN and False where a concept was not judged.

    Rates are shares of rows; `js_terms` are in bits and add up to `js_divergence` (0 to 1); `dead_share` is the share
    of latents that never fired in the window.
    """

    state: DriftState
    rows: int
    reference_rows: int
    reference_rate: Doubles
    window_rate: Doubles
    log2_ratio: Doubles
    q: Doubles
    judged: Mask
    moved: Mask
    js_terms: Doubles
    js_divergence: float
    fvu: float
    reference_fvu: float
    dead_share: float
    overdispersion: float


def compare(reference: ConceptCounters, panes: Sequence[Pane], thresholds: DriftThresholds | None = None) -> Comparison:
    """Compares the sum of `panes` with the frozen reference.

    FailedPreconditionError when they count another number of latents: then they belong to different SAEs.
    """
    limits = thresholds or DriftThresholds()
    for pane in panes:
        if pane.counters.width != reference.width:
            raise FailedPreconditionError(
                f"the window counts {pane.counters.width} latents, the reference {reference.width}; versions differ"
            )
    window = merged([pane.counters for pane in panes], reference.width)
    enough = window.n >= limits.min_rows and reference.n >= limits.min_reference_rows
    inflation = overdispersion(panes, limits)
    ratio, error = log2_risk_ratio(reference, window, inflation)
    expected = min(window.n, reference.n) * np.maximum(_rate(reference), _rate(window))
    judged = (expected >= limits.min_expected) & enough
    p = np.where(judged, 2 * ndtr(-np.abs(ratio) / error), np.nan)
    q = benjamini_hochberg(p)
    moved = judged & (np.abs(ratio) >= limits.min_log2_ratio) & (q < limits.max_q)
    terms = js_terms(reference.total, window.total)
    return Comparison(
        state=_state(enough, moved),
        rows=window.n,
        reference_rows=reference.n,
        reference_rate=_rate(reference),
        window_rate=_rate(window),
        log2_ratio=np.where(judged, ratio, np.nan),
        q=q,
        judged=judged,
        moved=moved,
        js_terms=terms,
        js_divergence=float(terms.sum()),
        fvu=window.fvu,
        reference_fvu=reference.fvu,
        dead_share=float((window.fired == 0).mean()),
        overdispersion=float(np.median(inflation[judged])) if judged.any() else 1.0,
    )


def log2_risk_ratio(reference: ConceptCounters, window: ConceptCounters, inflation: Doubles) -> tuple[Doubles, Doubles]:
    """log2 of window rate over reference rate [w] and its standard error [w].

    Half a firing and half a row are added on both sides, so that a concept that vanished has a finite ratio; the
    window's variance is multiplied by `inflation` [w].
    """
    fired_w, fired_r = window.fired + 0.5, reference.fired + 0.5
    rate_w, rate_r = fired_w / (window.n + 1.0), fired_r / (reference.n + 1.0)
    variance = inflation * (1 - rate_w) / fired_w + (1 - rate_r) / fired_r
    log2 = np.log(2.0)
    return np.log(rate_w / rate_r) / log2, np.sqrt(np.maximum(variance, 1e-12)) / log2


def overdispersion(panes: Sequence[Pane], limits: DriftThresholds) -> Doubles:
    """Factor >= 1 by which each concept's count varies more than binomially from pane to pane, float64 [w].

    Pearson's chi-square over its degrees of freedom, drawn towards the mean over concepts: few panes say little
    about one concept and much about all. Concepts with fewer than one expected firing per pane take the mean.
    """
    used = [pane.counters for pane in panes if pane.counters.n > 0]
    width = panes[0].counters.width if panes else 0
    if len(used) < 2:
        return np.ones(width) if width else np.ones(1)
    rows = np.array([counters.n for counters in used], np.float64)[:, None]
    fired = np.stack([counters.fired for counters in used]).astype(np.float64)
    rate = fired.sum(0) / rows.sum()
    expected = rows * rate
    with np.errstate(divide="ignore", invalid="ignore"):
        chi_square = np.square(fired - expected) / (expected * (1 - rate))
    freedom = len(used) - 1
    own = np.nan_to_num(chi_square, nan=0.0, posinf=0.0).sum(0) / freedom
    telling = (expected.mean(0) >= 1.0) & (rate < 1.0)
    pooled = float(own[telling].mean()) if telling.any() else 1.0
    drawn = (freedom * own + limits.prior_panes * pooled) / (freedom + limits.prior_panes)
    return np.maximum(1.0, np.where(telling, drawn, pooled))


def js_terms(reference_mass: Doubles, window_mass: Doubles) -> Doubles:
    """Each concept's part [w], in bits, of the Jensen-Shannon divergence between two distributions of mass [w].

    Zeros when either side has no mass. Every part is >= 0 and they add up to the divergence.
    """
    if reference_mass.sum() <= 0 or window_mass.sum() <= 0:
        return np.zeros_like(reference_mass)
    p, q = reference_mass / reference_mass.sum(), window_mass / window_mass.sum()
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(p > 0, p * np.log2(p / middle), 0.0)
        right = np.where(q > 0, q * np.log2(q / middle), 0.0)
    return np.maximum((left + right) / 2, 0.0)


def _rate(counters: ConceptCounters) -> Doubles:
    return counters.fired / max(1, counters.n)


def _state(enough: bool, moved: Mask) -> DriftState:
    if not enough:
        return DriftState.INSUFFICIENT_DATA
    return DriftState.DRIFTED if moved.any() else DriftState.STABLE
