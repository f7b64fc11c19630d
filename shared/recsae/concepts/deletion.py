"""Does attribution say what counts? Concepts are deleted in its order, and the top item falls (docs/method.md, 7).

From each activation the concepts that fire are taken out one after the other: in order of what they are said to
contribute to the top item, in order of strength, and at random. The faster its score and its place fall, the better
the order; the area between two curves, mean over steps and users, is the score. Heads are any function from activations
to scores. Rows and steps are bounded, so the cost is. Not here: the parts of one answer (`attribution`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.cases import group_users, resampling_weights
from recsae.concepts.cluster_intervals import estimate
from recsae.concepts.estimates import Estimate
from recsae.concepts.inputs import Autoencoder
from recsae.errors import InvalidRequestError
from recsae.sae.codes import Codes
from recsae.sae.dot_product import ExcludedItems

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
# Activations [m, d] and the row each stands in for, int64 [m] -> scores [m, n_items + 1]; -inf = never listed.
Score = Callable[[Floats, Ints], Floats]

# Beyond this many rows an interval gains little; 1,000 x 8 steps x 5 orders over 4,000 items take about 2 s.
MOST_ROWS = 1_000
MOST_STEPS = 32
_RANDOM_ORDERS = 3
_RESAMPLES = 1_000
# 32 MiB of scores.
_SCORES_AT_ONCE = 1 << 23
_TINY = 1e-12


@dataclass(frozen=True)
class Curves:
    """What is left of the top item after 1, 2, ... deletions, per row: `score` and `gain` float64 [n, steps].

    `score` is its score above the catalogue's mean, as a share of what it was; `gain` is 1 / log2(place + 1), which is
    1 while it stays on top. Rows on which fewer concepts fire keep their last value.
    """

    score: Doubles
    gain: Doubles


@dataclass(frozen=True)
class Deletion:
    """Curves by order, and areas between them with intervals that resample users.

    An area is the mean over steps of (other order - attributed order): above 0 attribution is the better guide.
    """

    curves: dict[str, Curves]
    areas: dict[str, Estimate]
    rows: int
    steps: int

    def scores(self) -> dict[str, Any]:
        """Plain JSON: mean curves by order and areas with intervals, rounded."""
        found: dict[str, Any] = {"rows": self.rows, "steps": self.steps}
        for name, area in self.areas.items():
            found[name] = {"value": round(area.value, 4), "ci": [round(area.low, 4), round(area.high, 4)]}
        found["curves"] = {
            order: {
                "score": [round(float(value), 4) for value in curves.score.mean(axis=0)],
                "gain": [round(float(value), 4) for value in curves.gain.mean(axis=0)],
            }
            for order, curves in self.curves.items()
        }
        return found


def dot_product_score(vectors: Floats, biases: Floats | None = None, consumed: ExcludedItems | None = None) -> Score:
    """The head x . E_i + b_i; `vectors` [n_items + 1, d], `biases` [n_items + 1], row 0 is padding.

    `consumed` says which items (from 1) no list of each row may hold; without it only padding is left out.
    """

    def score(x: Floats, rows: Ints) -> Floats:
        scores: Floats = x.astype(np.float32, copy=False) @ vectors.T
        if biases is not None:
            scores += biases
        scores[:, 0] = -np.inf
        if consumed is not None:
            begin, end = consumed.offsets[rows], consumed.offsets[rows + 1]
            owner = np.repeat(np.arange(len(rows)), end - begin)
            within = np.arange(len(owner)) - np.repeat(np.cumsum(end - begin) - (end - begin), end - begin)
            scores[owner, consumed.items[begin[owner] + within]] = -np.inf
        return scores

    return score


def linear_contributions(codes: Codes, w_dec: Floats, vectors: Floats, items: Ints) -> Doubles:
    """What each code adds to the score of a row's item, catalogue mean left out: z_j W_dec[j] . E~_i, float64 [n, k].

    The same as `ScoreAttributor`, for many rows with one item each.
    """
    centred = vectors[items].astype(np.float64) - vectors[1:].mean(axis=0, dtype=np.float64)
    values = _fired(codes).astype(np.float64)
    contributions: Doubles = values * np.einsum("nkd,nd->nk", w_dec[codes.indices].astype(np.float64), centred)
    return contributions


def contributions_by_removal(x: Floats, codes: Codes, w_dec: Floats, score: Score, items: Ints) -> Doubles:
    """What a row's item loses above the catalogue's mean when each code alone is removed, float64 [n, k]: any head."""
    rows = np.arange(len(x))
    whole = _above_mean(score, x, rows, items)[0]
    lost = np.zeros((len(x), codes.k))
    for column in range(codes.k):
        without = x - _fired(codes)[:, [column]] * w_dec[codes.indices[:, column]]
        lost[:, column] = whole - _above_mean(score, without, rows, items)[0]
    return lost


def top_items(x: Floats, score: Score) -> Ints:
    """The best item of each row of `x` [n, d], n >= 1: int64 [n]."""
    rows = np.arange(len(x))
    parts = _parts(len(x), score(x[:1], rows[:1]).shape[1])
    return np.concatenate([score(x[part], rows[part]).argmax(axis=1) for part in parts]).astype(np.int64)


def delete_in_order(
    x: Floats,
    codes: Codes,
    w_dec: Floats,
    contributions: Doubles,
    score: Score,
    *,
    users: NDArray[np.integer[Any]],
    items: Ints | None = None,
    seed: int = 0,
) -> Deletion:
    """Compares orders of deletion on rows `x` [n, d]; `contributions` float64 [n, k] belong to the codes.

    `items` [n] are the items watched (the best ones where not given); `users` [n] own the rows. InvalidRequestError
    for no rows or arrays that do not fit.
    """
    if not len(x) or contributions.shape != codes.values.shape or len(users) != len(x):
        raise InvalidRequestError(
            f"{len(x)} activations, {len(users)} owners, codes {codes.values.shape} and contributions "
            f"{contributions.shape} do not belong together; pass one row of each per activation, and at least one"
        )
    watched = top_items(x, score) if items is None else items
    rng = np.random.default_rng(seed)
    guides = {"attributed": contributions, "strength": codes.values.astype(np.float64)}
    curves = {name: _curves(x, codes, w_dec, guide, score, watched) for name, guide in guides.items()}
    drawn = [_curves(x, codes, w_dec, rng.random(contributions.shape), score, watched) for _ in range(_RANDOM_ORDERS)]
    curves["random"] = Curves(
        np.mean([one.score for one in drawn], axis=0), np.mean([one.gain for one in drawn], axis=0)
    )
    group = group_users(users.astype(np.int32), seed)
    weights = resampling_weights(int(group.max()) + 1, resamples=_RESAMPLES, seed=seed)
    areas = {
        f"{measure}_over_{other}": _area(
            getattr(curves[other], measure), getattr(curves["attributed"], measure), group, weights
        )
        for other in ("random", "strength")
        for measure in ("score", "gain")
    }
    return Deletion(curves, areas, len(x), curves["random"].score.shape[1])


def validate_attribution(
    sae: Autoencoder, x: Floats, users: NDArray[np.integer[Any]], vectors: Floats, biases: Floats | None = None
) -> Deletion:
    """Exact attribution of a dot-product head on at most 1,000 of the rows `x` [n, d]: what a stage can afford.

    `vectors`, `biases` as in `dot_product_score`; items a user has consumed are not left out here. InvalidRequestError
    for no rows.
    """
    rows = evenly_chosen(len(x))
    score, chosen, codes = dot_product_score(vectors, biases), x[rows], sae.encode(x[rows])
    items = top_items(chosen, score) if len(rows) else np.zeros(0, np.int64)
    contributions = linear_contributions(codes, sae.w_dec, vectors, items)
    return delete_in_order(chosen, codes, sae.w_dec, contributions, score, users=users[rows], items=items)


def evenly_chosen(n: int, most: int = MOST_ROWS) -> Ints:
    """At most `most` of n rows, spread evenly, int64."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64)) if n else np.zeros(0, np.int64)


def _curves(x: Floats, codes: Codes, w_dec: Floats, guide: Doubles, score: Score, items: Ints) -> Curves:
    """Deletes in falling order of `guide` [n, k]; what does not fire comes last and changes nothing."""
    rows = np.arange(len(x))
    order = np.argsort(np.where(codes.fired, -guide, np.inf), axis=1, kind="stable")
    steps = min(MOST_STEPS, codes.k)
    whole, _ = _above_mean(score, x, rows, items)
    left, share, gain = x.astype(np.float32), np.zeros((len(x), steps)), np.zeros((len(x), steps))
    for step in range(steps):
        at = order[:, [step]]
        latent = np.take_along_axis(codes.indices, at, axis=1)[:, 0]
        left = left - np.take_along_axis(_fired(codes), at, axis=1) * w_dec[latent]
        above, place = _above_mean(score, left, rows, items)
        share[:, step] = above / np.where(np.abs(whole) > _TINY, whole, 1.0)
        gain[:, step] = 1 / np.log2(place + 1.0)
    return Curves(share, gain)


def _above_mean(score: Score, x: Floats, rows: Ints, items: Ints) -> tuple[Doubles, Ints]:
    """The item's score above the mean of the items that may be listed, float64 [n], and its place from 1, int64 [n]."""
    above, place = np.zeros(len(x)), np.zeros(len(x), np.int64)
    for part in _parts(len(x), score(x[:1], rows[:1]).shape[1]):
        scores = score(x[part], rows[part]).astype(np.float64)
        listed = np.isfinite(scores)
        mean = np.where(listed, scores, 0).sum(axis=1) / np.maximum(listed.sum(axis=1), 1)
        own = scores[np.arange(len(scores)), items[part]]
        above[part], place[part] = own - mean, (scores >= own[:, None]).sum(axis=1)
    return above, place


def _fired(codes: Codes) -> Floats:
    """The values, 0 where nothing fires, float32 [n, k]."""
    return np.where(codes.fired, codes.values, np.float32(0)).astype(np.float32)


def _parts(n: int, n_items: int) -> list[slice]:
    """Rows in parts whose scores fit the scratch."""
    step = max(1, _SCORES_AT_ONCE // n_items)
    return [slice(at, min(at + step, n)) for at in range(0, n, step)]


def _area(other: Doubles, attributed: Doubles, group: Ints, weights: NDArray[np.float32]) -> Estimate:
    per_row = (other - attributed).mean(axis=1)
    sums = np.bincount(group, weights=per_row, minlength=len(weights))
    rows = np.bincount(group, minlength=len(weights)).astype(np.float64)
    return estimate((sums @ weights) / np.maximum(rows @ weights, 1e-9))
