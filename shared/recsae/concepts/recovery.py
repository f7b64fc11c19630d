"""What of planted concepts was found: the latent that follows each of them, and whether its label says the right thing.

For data whose truth is known only. Not here: making such data (`recsae.datasets.planted_activations`), describing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from recsae.concepts.firings import Firings
from recsae.concepts.records import ConceptRecord, ConceptStatus, RuleRecord
from recsae.datasets.facet_names import BOTH

# A latent that follows a concept shares half of its variance.
FOLLOWS = 0.7


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


def asks_for(rule: RuleRecord, facet: str) -> bool:
    """Whether the rule cannot hold where its questions about this facet are all answered no.

    "A", "A and not B" and "(B or A) and A" ask for A; "A or B" does not, since B alone will do. An item that carries a
    pair of values carries both.
    """
    others = [at for at, literal in enumerate(rule.literals) if facet not in literal.facet.split(BOTH)]
    if len(others) == len(rule.literals):
        return False
    answers = itertools.product((False, True), repeat=len(others))
    return not any(_holds(rule, dict(zip(others, given, strict=True))) for given in answers)


def rightly_labelled(
    found: Recovered, concepts: Sequence[ConceptRecord], facets: Sequence[Sequence[str]], least: float = FOLLOWS
) -> NDArray[np.bool_]:
    """For each planted concept whether it was recovered, bool [C].

    Recovered means that its latent correlates at least `least`, and that the latent's label is verified and asks for
    each of its `facets`.
    """
    pairs = zip(found.latent.tolist(), found.correlation.tolist(), facets, strict=True)
    return np.array(
        [
            at >= 0
            and value >= least
            and concepts[at].status is ConceptStatus.VERIFIED
            and all(asks_for(concepts[at].rule, facet) for facet in asked)
            for at, value, asked in pairs
        ],
        bool,
    )


def _holds(rule: RuleRecord, answers: Mapping[int, bool]) -> bool:
    """The rule where its literals have these answers, and the others no."""
    held = False
    for at, literal in enumerate(rule.literals):
        yes = answers.get(at, False)
        if at == 0:
            held = yes
        elif literal.joined == "or":
            held = held or yes
        else:
            held = held and (yes if literal.joined == "and" else not yes)
    return held
