"""What of planted concepts was found: the latent that follows each of them, and whether its label says the right thing.

For data whose truth is known only. Not here: making such data (`recsae.datasets.planted_activations`), describing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from recsae.concepts.firings import Firings
from recsae.concepts.records import ConceptRecord, ConceptStatus

_NEGATED = "and not"


@dataclass(frozen=True)
class Recovered:
    """For each planted concept the latent matched to it, int64 [C], and |correlation| of the two, float64 [C]."""

    latent: NDArray[np.int64]
    correlation: NDArray[np.float64]

    @property
    def mcc(self) -> float:
        """Mean correlation of matched pairs: 1 when every concept has a latent of its own."""
        return float(self.correlation.mean())


def match_planted(strengths: NDArray[np.float32], firings: Firings) -> Recovered:
    """One latent for each planted concept so that the sum of |correlation| over rows is largest (Hungarian method).

    `strengths` [n, C] are the planted ones on the rows of `firings`. A concept or latent that never changes correlates
    0 with everything. Where there are fewer latents than concepts, the rest gets latent -1 and correlation 0.
    """
    truth = strengths.astype(np.float64)
    truth -= truth.mean(axis=0)
    values = firings.by_latent.astype(np.float64)
    mean = np.asarray(values.mean(axis=1)).ravel()
    spread = np.sqrt(np.maximum(np.asarray(values.multiply(values).mean(axis=1)).ravel() - mean**2, 0))
    scale = truth.std(axis=0)[:, None] * spread[None, :]
    together = np.asarray(values @ truth).T / len(truth)
    correlation = np.abs(np.divide(together, scale, out=np.zeros_like(together), where=scale > 1e-12))
    concept, latent = linear_sum_assignment(correlation, maximize=True)
    matched = np.full(truth.shape[1], -1, np.int64)
    matched[concept] = latent
    value = np.zeros(truth.shape[1])
    value[concept] = correlation[concept, latent]
    return Recovered(matched, value)


def names_exactly(concept: ConceptRecord, facet: str) -> bool:
    """Whether a verified concept's rule asks for this facet and, but for exceptions ("and not"), for no other."""
    asked = {literal.facet for literal in concept.rule.literals if literal.facet and literal.joined != _NEGATED}
    return concept.status is ConceptStatus.VERIFIED and asked == {facet}


def rightly_labelled(
    found: Recovered, concepts: Sequence[ConceptRecord], facets: Sequence[str], least: float = 0.5
) -> NDArray[np.bool_]:
    """For each planted concept whether it was recovered, bool [C].

    Recovered means that its latent correlates at least `least` and that the latent's verified label names the planted
    facet exactly.
    """
    pairs = zip(found.latent.tolist(), found.correlation.tolist(), facets, strict=True)
    return np.array(
        [at >= 0 and value >= least and names_exactly(concepts[at], facet) for at, value, facet in pairs], bool
    )
