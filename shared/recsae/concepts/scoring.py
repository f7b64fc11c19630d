"""Scores of labels on cases: precision, recall and F1 at the natural mix, balanced, matched and against hard negatives.

Each score is a ratio of sums over users, so one table of per-user sums and one matrix of resampling weights give
the point estimate and its user-cluster bootstrap interval together (percentiles 2.5 and 97.5). Balanced scores weigh
negatives down to as many as there are positives: with true and false positive rates t, f, precision = t / (t + f)
and F1 = 2 t / (1 + t + f). Matched: negatives are weighed so that their popularity and history length are
distributed as those of the positives; the weights are held fixed when users are resampled. Not here: thresholds and
verdicts (`verification`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.cases import Cases
from recsae.concepts.records import Estimate
from recsae.concepts.rules import Predictor

# Scratch per block: latents x groups x 12 sums, 64 x 1,000 float32 = 3 MB, and the truth of 64 rules.
_LATENTS_AT_ONCE = 64
_LOW, _HIGH = 2.5, 97.5

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """A score of every latent: `value`, `low`, `high` float64 [w], 0 where nothing could be counted."""

    value: Doubles
    low: Doubles
    high: Doubles

    def of(self, latent: int) -> Estimate:
        """That of one latent."""
        return Estimate(float(self.value[latent]), float(self.low[latent]), float(self.high[latent]))

    def where(self, mask: NDArray[np.bool_], other: Scores) -> Scores:
        """These where `mask` [w] holds, else the other's."""
        return Scores(*(np.where(mask, getattr(self, f.name), getattr(other, f.name)) for f in fields(Scores)))


@dataclass(frozen=True)
class LabelScores:
    """All scores of all latents' labels, and the counts behind them (int64 [w])."""

    precision: Scores
    recall: Scores
    f1: Scores
    balanced_precision: Scores
    balanced_f1: Scores
    matched_precision: Scores
    matched_f1: Scores
    hard_f1: Scores
    unseen_precision: Scores
    unseen_recall: Scores
    unseen_f1: Scores
    unseen_positives: NDArray[np.int64]
    negatives: NDArray[np.int64]
    hard_negatives: NDArray[np.int64]
    weak_predicted: NDArray[np.int64]

    def where(self, mask: NDArray[np.bool_], other: LabelScores) -> LabelScores:
        """These where `mask` [w] holds, else the other's."""
        merged: dict[str, Any] = {}
        for name in (f.name for f in fields(LabelScores)):
            mine, theirs = getattr(self, name), getattr(other, name)
            merged[name] = mine.where(mask, theirs) if isinstance(mine, Scores) else np.where(mask, mine, theirs)
        return LabelScores(**merged)


def score_labels(cases: Cases, predict: Predictor, weights: NDArray[np.float32]) -> LabelScores:
    """Scores of the labels that `predict` tests; `weights` from `resampling_weights(cases.groups)`."""
    blocks = [
        _score_block(cases, predict, np.arange(at, min(at + _LATENTS_AT_ONCE, cases.width)), weights)
        for at in range(0, cases.width, _LATENTS_AT_ONCE)
    ]
    return LabelScores(**{f.name: _joined([block[f.name] for block in blocks]) for f in fields(LabelScores)})


@dataclass(frozen=True)
class _Block:
    """Sums by group for one block of latents: turns 0/1 CSR [m, n] into float32 [m, 1 + resamples] totals."""

    group: NDArray[np.int64]
    groups: int
    weights: NDArray[np.float32]

    def total(self, rows: sparse.csr_matrix, factor: Doubles | None = None) -> Doubles:
        """Weighted number of entries, one column per resample; `factor` weighs entries (same order as the data)."""
        m = rows.shape[0]
        latent = np.repeat(np.arange(m), np.diff(rows.indptr))
        key = latent * self.groups + self.group[rows.indices]
        sums = np.bincount(key, weights=factor, minlength=m * self.groups).reshape(m, self.groups)
        return (sums.astype(np.float32) @ self.weights).astype(np.float64)

    def of_all(self, by_group: NDArray[Any]) -> Doubles:
        """Totals [m or 1, 1 + resamples] of sums by group [m or 1, groups]."""
        return (by_group.astype(np.float32) @ self.weights).astype(np.float64)


def _score_block(
    cases: Cases, predict: Predictor, latents: NDArray[np.int64], weights: NDArray[np.float32]
) -> dict[str, Any]:
    block = _Block(cases.group, cases.groups, weights)
    strong, weak, hard = cases.strong[latents], cases.weak[latents], cases.hard(latents)
    fired = cases.fired(latents)
    predicted = predict(latents).tocsr().astype(np.float32)
    hit = _both(predicted, strong)
    weak_hit = _both(predicted, weak)
    false = (predicted - _both(predicted, fired)).tocsr()
    false.eliminate_zeros()
    tp, positives, fp = block.total(hit), block.total(strong), block.total(false)
    all_rows = block.of_all(np.bincount(cases.group, minlength=cases.groups)[None, :])
    negatives = all_rows - block.total(fired)
    unseen = cases.unseen
    u_tp, u_pos, u_fp = (block.total(_on(matrix, unseen)) for matrix in (hit, strong, false))
    u_rows = block.of_all(np.bincount(cases.group[unseen], minlength=cases.groups)[None, :])
    u_neg = u_rows - block.total(_on(fired, unseen))
    matched_fp, matched_neg = _matched(cases, block, strong, fired, false)
    hard_fp, hard_neg = block.total(_both(predicted, hard)), block.total(hard)
    recall = _ratio(tp, positives)
    rate, m_rate, h_rate = _ratio(fp, negatives), _ratio(matched_fp, matched_neg), _ratio(hard_fp, hard_neg)
    fresh = _balanced(_ratio(u_tp, u_pos), _ratio(u_fp, u_neg))
    precision, f1 = _balanced(recall, rate)
    matched_precision, matched_f1 = _balanced(recall, m_rate)
    return {
        "precision": _scores(_ratio(tp, tp + fp)),
        "recall": _scores(recall),
        "f1": _scores(_ratio(2 * tp, positives + tp + fp)),
        "balanced_precision": _scores(precision),
        "balanced_f1": _scores(f1),
        "matched_precision": _scores(matched_precision),
        "matched_f1": _scores(matched_f1),
        "hard_f1": _scores(_balanced(recall, h_rate)[1]),
        "unseen_precision": _scores(fresh[0]),
        "unseen_recall": _scores(_ratio(u_tp, u_pos)),
        "unseen_f1": _scores(fresh[1]),
        "unseen_positives": u_pos[:, 0].astype(np.int64),
        "negatives": negatives[:, 0].astype(np.int64),
        "hard_negatives": hard_neg[:, 0].astype(np.int64),
        "weak_predicted": np.diff(weak_hit.indptr).astype(np.int64),
    }


def _matched(
    cases: Cases, block: _Block, strong: sparse.csr_matrix, fired: sparse.csr_matrix, false: sparse.csr_matrix
) -> tuple[Doubles, Doubles]:
    """False positives and negatives, each negative weighed by positives / negatives of its stratum."""
    m, strata = strong.shape[0], cases.n_strata
    rows = np.bincount(cases.stratum, minlength=strata)
    silent = rows[None, :] - _by_stratum(fired, cases.stratum, strata)
    share = _by_stratum(strong, cases.stratum, strata)
    weight = np.divide(share, silent, out=np.zeros((m, strata)), where=silent > 0)
    cells = np.bincount(cases.stratum.astype(np.int64) * cases.groups + cases.group, minlength=strata * cases.groups)
    everyone = weight @ cells.reshape(strata, cases.groups)
    negatives = block.of_all(everyone) - block.total(fired, _entry_weights(fired, weight, cases.stratum))
    return block.total(false, _entry_weights(false, weight, cases.stratum)), negatives


def _by_stratum(rows: sparse.csr_matrix, stratum: NDArray[np.int32], strata: int) -> Doubles:
    latent = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    counts = np.bincount(latent * strata + stratum[rows.indices], minlength=rows.shape[0] * strata)
    return counts.reshape(rows.shape[0], strata).astype(np.float64)


def _entry_weights(rows: sparse.csr_matrix, weight: Doubles, stratum: NDArray[np.int32]) -> Doubles:
    latent = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    found: Doubles = weight[latent, stratum[rows.indices]]
    return found


def _both(one: sparse.csr_matrix, other: sparse.csr_matrix) -> sparse.csr_matrix:
    matrix = one.multiply(other).tocsr()
    matrix.eliminate_zeros()
    return matrix


def _on(rows: sparse.csr_matrix, mask: NDArray[np.bool_]) -> sparse.csr_matrix:
    """The entries on rows where `mask` [n] holds."""
    kept = mask[rows.indices]
    before = np.concatenate([[0], np.cumsum(kept)])
    return sparse.csr_matrix((rows.data[kept], rows.indices[kept], before[rows.indptr]), shape=rows.shape)


def _ratio(above: Doubles, below: Doubles) -> Doubles:
    above, below = np.broadcast_arrays(above, below)
    return np.divide(above, below, out=np.zeros(above.shape), where=below > 0)


def _balanced(recall: Doubles, false_rate: Doubles) -> tuple[Doubles, Doubles]:
    """Precision and F1 with as many negatives as positives."""
    return _ratio(recall, recall + false_rate), 2 * recall / (1 + recall + false_rate)


def _scores(values: Doubles) -> Scores:
    low, high = np.percentile(values[:, 1:], (_LOW, _HIGH), axis=1)
    return Scores(values[:, 0], low, high)


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], Scores):
        return Scores(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Scores)))
    return np.concatenate(parts)
