"""Scores of labels on cases: precision, recall and F1 at the natural mix, balanced, matched and against hard negatives.

Each score is a ratio of sums over users, so one table of per-user sums and one matrix of resampling weights give
the point estimate and its user-cluster bootstrap interval together (percentiles 2.5 and 97.5). Balanced scores weigh
negatives down to as many as there are positives: with true and false positive rates t, f, precision = t / (t + f)
and F1 = 2 t / (1 + t + f). Matched: negatives are weighed so that their popularity and history length are
distributed as those of the positives; the weights are held fixed when users are resampled. A bootstrap of a perfect
score has no width, however few cases there are, so no interval is narrower than Wilson's for independent rows. Not
here: thresholds and verdicts (`verification`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.cases import Cases, matched_weights
from recsae.concepts.estimates import Estimate
from recsae.concepts.rules import Predictor
from recsae.significance import wilson

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
    hard_negatives: NDArray[np.int64]
    weak_predicted: NDArray[np.int64]

    def where(self, mask: NDArray[np.bool_], other: LabelScores) -> LabelScores:
        """These where `mask` [w] holds, else the other's."""
        merged: dict[str, Any] = {}
        for name in (f.name for f in fields(LabelScores)):
            mine, theirs = getattr(self, name), getattr(other, name)
            merged[name] = mine.where(mask, theirs) if isinstance(mine, Scores) else np.where(mask, mine, theirs)
        return LabelScores(**merged)


def score_labels(
    cases: Cases, predict: Predictor, weights: NDArray[np.float32], latents: NDArray[np.int64] | None = None
) -> LabelScores:
    """Scores of the labels that `predict` tests; `weights` from `resampling_weights(cases.groups)`.

    Only those of `latents` when given: all other entries are 0.
    """
    asked = np.arange(cases.width) if latents is None else latents
    blocks = [_score_block(cases, predict, block, weights) for block in _blocks(asked)]
    names = [f.name for f in fields(LabelScores)]
    return LabelScores(**{name: _spread([b[name] for b in blocks], name, asked, cases.width) for name in names})


def natural_f1(cases: Cases, predict: Predictor, weights: NDArray[np.float32]) -> Scores:
    """F1 at the natural mix only: what controls are compared by."""
    table = _Sums(cases.group, cases.groups, weights)
    parts = []
    for latents in _blocks(np.arange(cases.width)):
        predicted, strong = predict(latents).tocsr().astype(np.float32), cases.strong[latents]
        sums = [_both(predicted, strong), strong, _without(predicted, cases.fired(latents))]
        tp, positives, fp = table.totals([table.by_group(rows) for rows in sums])
        parts.append(_scores(_ratio(2 * tp, positives + tp + fp), (positives + tp + fp) / 2))
    joined: Scores = _spread(parts, "f1", np.arange(cases.width), cases.width)
    return joined


@dataclass(frozen=True)
class _Sums:
    """Sums by group, and their totals under every resampling: float32 [m, groups] -> float64 [m, 1 + resamples]."""

    group: NDArray[np.int64]
    groups: int
    weights: NDArray[np.float32]

    def by_group(self, rows: sparse.csr_matrix, factor: Doubles | None = None) -> NDArray[Any]:
        """Entries of 0/1 CSR [m, n] per group; `factor` weighs them (same order as the data)."""
        m = rows.shape[0]
        latent = np.repeat(np.arange(m), np.diff(rows.indptr))
        key = latent * self.groups + self.group[rows.indices]
        return np.bincount(key, weights=factor, minlength=m * self.groups).reshape(m, self.groups)

    def totals(self, sums: list[NDArray[Any]]) -> list[Doubles]:
        """Totals of several tables in one product."""
        stacked = np.concatenate(sums).astype(np.float32) @ self.weights
        ends = np.cumsum([len(each) for each in sums])[:-1]
        return [part.astype(np.float64) for part in np.split(stacked, ends)]


def _score_block(
    cases: Cases, predict: Predictor, latents: NDArray[np.int64], weights: NDArray[np.float32]
) -> dict[str, Any]:
    table = _Sums(cases.group, cases.groups, weights)
    strong, fired, hard = cases.strong[latents], cases.fired(latents), cases.hard(latents)
    predicted = predict(latents).tocsr().astype(np.float32)
    hit, false, fresh = _both(predicted, strong), _without(predicted, fired), cases.unseen
    counted = [hit, strong, false, fired, _both(predicted, hard), hard]
    counted += [_on(matrix, fresh) for matrix in (hit, strong, false, fired)]
    everyone = [np.bincount(cases.group[kept], minlength=cases.groups)[None, :] for kept in (slice(None), fresh)]
    sums = [*(table.by_group(rows) for rows in counted), *everyone, *_matched(cases, table, strong, fired, false)]
    tp, p, fp, called, h_fp, h_n, u_tp, u_p, u_fp, u_called, rows, u_rows, m_fp, m_n = table.totals(sums)
    recall, fresh_recall = _ratio(tp, p), _ratio(u_tp, u_p)
    precision, f1 = _balanced(recall, _ratio(fp, rows - called))
    matched_precision, matched_f1 = _balanced(recall, _ratio(m_fp, m_n))
    unseen_precision, unseen_f1 = _balanced(fresh_recall, _ratio(u_fp, u_rows - u_called))
    weak_hit = _both(predicted, cases.weak[latents])
    return {
        "precision": _scores(_ratio(tp, tp + fp), tp + fp),
        "recall": _scores(recall, p),
        "f1": _scores(_ratio(2 * tp, p + tp + fp), (p + tp + fp) / 2),
        "balanced_precision": _scores(precision, p),
        "balanced_f1": _scores(f1, p),
        "matched_precision": _scores(matched_precision, p),
        "matched_f1": _scores(matched_f1, p),
        "hard_f1": _scores(_balanced(recall, _ratio(h_fp, h_n))[1], p),
        "unseen_precision": _scores(unseen_precision, u_p),
        "unseen_recall": _scores(fresh_recall, u_p),
        "unseen_f1": _scores(unseen_f1, u_p),
        "unseen_positives": u_p[:, 0].astype(np.int64),
        "hard_negatives": h_n[:, 0].astype(np.int64),
        "weak_predicted": np.diff(weak_hit.indptr).astype(np.int64),
    }


def _matched(
    cases: Cases, table: _Sums, strong: sparse.csr_matrix, fired: sparse.csr_matrix, false: sparse.csr_matrix
) -> tuple[NDArray[Any], NDArray[Any]]:
    """False positives and negatives by group, each negative weighed by positives / negatives of its stratum."""
    strata = cases.n_strata
    weight, _ = matched_weights(strong, fired, cases.stratum, strata)
    cells = np.bincount(cases.stratum.astype(np.int64) * cases.groups + cases.group, minlength=strata * cases.groups)
    everyone = weight @ cells.reshape(strata, cases.groups)
    fires = table.by_group(fired, _entry_weights(fired, weight, cases.stratum))
    return table.by_group(false, _entry_weights(false, weight, cases.stratum)), everyone - fires


def _entry_weights(rows: sparse.csr_matrix, weight: Doubles, stratum: NDArray[np.int32]) -> Doubles:
    latent = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    found: Doubles = weight[latent, stratum[rows.indices]]
    return found


def _both(one: sparse.csr_matrix, other: sparse.csr_matrix) -> sparse.csr_matrix:
    matrix = one.multiply(other).tocsr()
    matrix.eliminate_zeros()
    return matrix


def _without(one: sparse.csr_matrix, other: sparse.csr_matrix) -> sparse.csr_matrix:
    matrix = (one - one.multiply(other)).tocsr()
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


def _scores(values: Doubles, cases: Doubles) -> Scores:
    """Point estimate (column 0) and percentiles, at least as wide as Wilson's interval for `cases` independent rows."""
    low, high = np.percentile(values[:, 1:], (_LOW, _HIGH), axis=1)
    share, counted = values[:, 0], cases[:, 0] > 0
    least, most = wilson(share, cases[:, 0])
    return Scores(
        share,
        np.where(counted, np.minimum(least, low), 0.0),
        np.where(counted, np.maximum(most, high), 0.0),
    )


def _blocks(latents: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [latents[at : at + _LATENTS_AT_ONCE] for at in range(0, len(latents), _LATENTS_AT_ONCE)]


def _spread(parts: list[Any], name: str, latents: NDArray[np.int64], width: int) -> Any:
    """Values of blocks put in their place among all latents: `Scores`, or int64 [w] for a count."""
    if LabelScores.__dataclass_fields__[name].type == "Scores":
        return Scores(
            *(_placed([getattr(part, f.name) for part in parts], latents, width, np.float64) for f in fields(Scores))
        )
    return _placed(parts, latents, width, np.int64)


def _placed(parts: list[NDArray[Any]], latents: NDArray[np.int64], width: int, kind: type) -> NDArray[Any]:
    out: NDArray[Any] = np.zeros(width, kind)
    if parts:
        out[latents] = np.concatenate(parts)
    return out
