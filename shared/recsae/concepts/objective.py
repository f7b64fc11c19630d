"""What a good rule is, from counts alone: it would be verified, is precise in real traffic, and tells strengths apart.

    to be verified: 8 min(margin, .87) + .3 F1 at the natural mix + share of the variance of values explained
    to predict:                             F1 at the natural mix + share of the variance of values explained

`margin` is the least of what verification asks for (docs/method.md, section 5): balanced F1 against silent rows and
against matched ones, against hard negatives plus .1 (their threshold is lower by that), and recall plus .04. Beyond .87
nearly every rule passes, and the other two decide. A latent whose best margin stays below .79 would not be verified
anyway, and gets the rule that predicts it best. Not here: the verdict, on other users (`verification`).
"""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.counting import FIRED, FIRED_MATCHED, HARD, HITS, ROWS, ROWS_MATCHED, Counted, Totals

Floats = NDArray[np.float32]

ENOUGH, HOPELESS = 0.87, 0.79
_HARD_ALLOWANCE, _RECALL_ALLOWANCE = 0.1, 0.04
_MARGIN, _NATURAL = 8.0, 0.3
# A mean over fewer rows is noise: both sides of a cut are counted as at least this many.
_LEAST_ROWS = 30.0


def margin(table: Floats, totals: Totals) -> Floats:
    """The least of the balanced scores [m, ...] of counts [6, m, ...]."""
    recall = _share(table[HITS], totals.positives)
    random = _balanced(recall, _share(table[ROWS] - table[FIRED], totals.silent))
    matched = _balanced(recall, _share(table[ROWS_MATCHED] - table[FIRED_MATCHED], totals.matched))
    hard = _balanced(recall, _share(table[HARD], totals.hard)) + _HARD_ALLOWANCE
    least: Floats = np.minimum(np.minimum(random, matched), np.minimum(hard, recall + _RECALL_ALLOWANCE))
    return least


def natural_f1(table: Floats, totals: Totals) -> Floats:
    """F1 with classes as frequent as they come [m, ...]; weak firings count neither way."""
    below = _like(totals.positives, table[HITS]) + table[HITS] + table[ROWS] - table[FIRED]
    f1: Floats = np.divide(2 * table[HITS], below, out=np.zeros_like(table[HITS]), where=below > 0)
    return f1


class Aim(Enum):
    """What a rule is searched for."""

    VERIFIED = "verified"
    PREDICTS = "predicts"


def objective(table: Floats, totals: Totals, aim: Aim) -> Floats:
    """Of counts [6, m, ...]: [m, ...], the share of variance explained left out."""
    if aim is Aim.PREDICTS:
        return natural_f1(table, totals)
    worth: Floats = _MARGIN * np.minimum(margin(table, totals), ENOUGH) + _NATURAL * natural_f1(table, totals)
    return worth


def explained(counted: Counted, variance: Floats) -> Floats:
    """Share of the variance of values that cells cut by each literal explain [m, L]; `variance` [m]: n Var."""
    total, n = counted.cell_value.sum(axis=0), counted.cell_rows.sum(axis=0)
    between = -np.square(total) / np.maximum(n, 1)
    gain = np.broadcast_to(between[:, None], counted.value.shape[1:]).copy()
    for value, rows, whole, size in zip(
        counted.value, counted.rows, counted.cell_value, counted.cell_rows, strict=True
    ):
        gain += np.square(value) / np.maximum(rows, _LEAST_ROWS)
        gain += np.square(whole[:, None] - value) / np.maximum(size[:, None] - rows, _LEAST_ROWS)
    return np.asarray(gain / np.maximum(variance, 1e-12)[:, None], np.float32)


def _share(part: Floats, whole: Floats) -> Floats:
    return np.asarray(part / np.maximum(_like(whole, part), 1e-6), np.float32)


def _balanced(recall: Floats, false_rate: Floats) -> Floats:
    f1: Floats = 2 * recall / (1 + recall + false_rate)
    return f1


def _like(per_latent: Floats, table: Floats) -> Floats:
    return per_latent.reshape(-1, *[1] * (table.ndim - 1))
