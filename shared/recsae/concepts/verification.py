"""The verdict on each label, from verification users only (docs/method.md, section 5).

Verified = lower 95 % bounds of balanced precision and recall >= .7, balanced F1 >= .8 against random and against
matched negatives, >= .7 against hard ones, and above the 95th percentile of label swaps; at least 100 cases of each
class, else "too rare". Semantic = passes on unseen deciding items too (a row's newest item stands for its deciding
item). An item set is judged on the seen items it is made of, as its own class, where no facet rule passed.
Confidence = lower 95 % bound of F1 at the natural mix. Not here: how scores and controls are computed, the
thresholds themselves (`thresholds`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.cases import Cases
from recsae.concepts.controls import Swaps, swap_labels, swapped
from recsae.concepts.rules import Predictor, either, restricted
from recsae.concepts.scoring import LabelScores, Scores, natural_f1, score_labels
from recsae.concepts.thresholds import LEAST_F1, LEAST_HARD_F1, LOWER_BOUND, MIN_CASES

# Fewer unseen cases than this show nothing; from here on the bounds speak for themselves.
MIN_UNSEEN_CASES = 30

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Labels:
    """One class of labels (facet rules or item sets): their predictor, and which latents have one, bool [w]."""

    predict: Predictor
    present: Mask


@dataclass(frozen=True)
class Judged:
    """One class of labels, judged: scores, swaps, and the masks [w] of the labels that pass."""

    scores: LabelScores
    swaps: Swaps
    passes: Mask


@dataclass(frozen=True)
class Verdict:
    """What verification found, all [w].

    `enough`: at least 100 cases per class. `facet`, `item_set`: the class that passed, never both; `semantic` of the
    facet ones. `uses_set`: the label shown is the item set. `scores` are those of the label shown, `control` the
    natural F1 of the swapped label at the 95th percentile, `popularity` the F1 of the best popularity rule,
    `swapped_passes` whether a randomly drawn other label passed but for the comparison with swapped labels.
    """

    enough: Mask
    facet: Mask
    semantic: Mask
    item_set: Mask
    uses_set: Mask
    scores: LabelScores
    swap_balanced_f1: NDArray[np.float64]
    control: Scores
    popularity: Scores
    swapped_passes: Mask


def judge(
    cases: Cases,
    facets: Labels,
    sets: Labels,
    popularity: Predictor,
    *,
    prefers_set: Mask,
    density: NDArray[np.float32],
    weights: NDArray[np.float32],
) -> Verdict:
    """Judges all labels.

    `prefers_set` [w], fixed on construction users, says which label to show when neither class passes; `weights` from
    `resampling_weights(cases.groups)`.
    """
    seen = np.flatnonzero(~cases.unseen)
    by_facet = _judge_class(cases, facets, density, weights)
    by_set = _judge_class(
        cases.restricted(seen), Labels(restricted(sets.predict, seen), sets.present), density, weights
    )
    item_set = by_set.passes & ~by_facet.passes
    uses_set = item_set | (prefers_set & ~by_facet.passes)
    percentile = np.where(uses_set, by_set.swaps.at_percentile, by_facet.swaps.at_percentile)
    control = either(swapped(facets.predict, percentile), swapped(sets.predict, percentile), uses_set)
    return Verdict(
        enough=_enough(cases),
        facet=by_facet.passes,
        semantic=by_facet.passes & _holds_on_unseen(by_facet.scores),
        item_set=item_set,
        uses_set=uses_set,
        scores=_set_scores(cases, sets, uses_set, by_set.scores, weights).where(uses_set, by_facet.scores),
        swap_balanced_f1=np.where(uses_set, by_set.swaps.balanced_f1, by_facet.swaps.balanced_f1),
        control=natural_f1(cases, control, weights),
        popularity=natural_f1(cases, popularity, weights),
        swapped_passes=_swapped_passes(cases, facets, by_facet.swaps, weights),
    )


def _judge_class(cases: Cases, labels: Labels, density: NDArray[np.float32], weights: NDArray[np.float32]) -> Judged:
    scores = score_labels(cases, labels.predict, weights, np.flatnonzero(labels.present))
    swaps = swap_labels(cases, labels.predict, density, labels.present)
    return Judged(scores, swaps, _passes(cases, scores, swaps.balanced_f1) & labels.present)


def _set_scores(
    cases: Cases, sets: Labels, shown: Mask, on_seen: LabelScores, weights: NDArray[np.float32]
) -> LabelScores:
    """Scores of item sets: those they are judged by on seen items, and the natural mix over all verification rows."""
    natural = score_labels(cases, sets.predict, weights, np.flatnonzero(shown))
    return replace(on_seen, precision=natural.precision, recall=natural.recall, f1=natural.f1)


def _swapped_passes(cases: Cases, labels: Labels, swaps: Swaps, weights: NDArray[np.float32]) -> Mask:
    """Whether one randomly drawn label of another concept passes all but the comparison with swapped labels.

    That comparison lets one swapped label in twenty pass whatever the thresholds are worth, so it would hide what this
    control is for. Only labels near the threshold are worth scoring.
    """
    close = np.flatnonzero((swaps.random >= 0) & (swaps.random_f1 >= LEAST_F1))
    scores = score_labels(cases, swapped(labels.predict, swaps.random), weights, close)
    return _passes(cases, scores, np.zeros(cases.width))


def _passes(cases: Cases, scores: LabelScores, swap_f1: NDArray[np.float64]) -> Mask:
    passes: Mask = (
        _enough(cases)
        & (scores.balanced_precision.low >= LOWER_BOUND)
        & (scores.recall.low >= LOWER_BOUND)
        & (scores.balanced_f1.value >= LEAST_F1)
        & (scores.matched_f1.value >= LEAST_F1)
        & (scores.hard_f1.value >= LEAST_HARD_F1)
        & (scores.hard_negatives >= MIN_CASES)
        & (scores.balanced_f1.value > swap_f1)
    )
    return passes


def _enough(cases: Cases) -> Mask:
    enough: Mask = (cases.positives >= MIN_CASES) & (cases.negatives >= MIN_CASES)
    return enough


def _holds_on_unseen(scores: LabelScores) -> Mask:
    holds: Mask = (
        (scores.unseen_positives >= MIN_UNSEEN_CASES)
        & (scores.unseen_precision.low >= LOWER_BOUND)
        & (scores.unseen_recall.low >= LOWER_BOUND)
        & (scores.unseen_f1.value >= LEAST_F1)
    )
    return holds
