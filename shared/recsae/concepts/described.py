"""Described NDCG: how much of a recommender's quality its dictionary's words alone carry (docs/method.md, section 5).

Every latent is replaced by the strength its description predicts for a history, the latents are decoded, and items are
ranked. Beside it: the SAE itself, descriptions given to the wrong latents (fitted anew to them), descriptions of other
users, and facets mapped to activations without any SAE at equal description length.

    score = (described - permuted) / (SAE - permuted)

0: words say nothing that their mere number does not; 1: words say all the SAE does. Not here: how levels and the linear
map are fitted (construction users), who ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.features import RowFeatures
from recsae.concepts.firings import Encoder
from recsae.concepts.linear_facets import LinearFacets
from recsae.concepts.records import RuleRecord
from recsae.concepts.rules import compile_item_sets, compile_rules
from recsae.sae.codes import Codes
from recsae.sae.fidelity import gains
from recsae.sae.rankings import Rankings, agreement
from recsae.sae.user_sums import Interval, Resamples, UserSums

Floats = NDArray[np.float32]
_LATENTS_AT_ONCE = 512
_PRIOR_ROWS = 5.0
_NDCG, _OVERLAP = "ndcg@10", "overlap@10"
_TIMES = 2_000
_LOW, _HIGH = 2.5, 97.5


class Decoder(Encoder, Protocol):
    """What is needed of an SAE: encode and decode, decoder rows [w, d] and their bias [d]."""

    @property
    def w_dec(self) -> Floats:
        """Decoder rows [w, d]."""
        ...

    @property
    def b_dec(self) -> Floats:
        """Decoder bias [d]."""
        ...

    def decode(self, codes: Codes) -> Floats:
        """Reconstructions [n, d]."""
        ...


@dataclass(frozen=True)
class RankedRows:
    """Rows of verification users that predict an item: `x` [n, d], whose they are, their histories, and who ranks.

    `sae` is what encodes and decodes them.
    """

    sae: Decoder
    x: Floats
    user: NDArray[np.int64]
    features: RowFeatures
    rank: Callable[[Floats], Rankings]


@dataclass(frozen=True)
class Descriptions:
    """What is tested: rules of all latents, the same given to the wrong latents, item sets where they are shown.

    `silent` float32 [w] is the mean strength of each latent, which stands where there is no rule; `bits` the rules'
    length; `linear` what the same bits buy without an SAE.
    """

    rules: Sequence[RuleRecord]
    permuted: Sequence[RuleRecord]
    sets: Sequence[RuleRecord]
    shows_set: NDArray[np.bool_]
    silent: Floats
    p95: Floats
    linear: LinearFacets
    bits: float


@dataclass(frozen=True)
class DescribedNdcg:
    """NDCG@10 kept and overlap@10 by side ("sae", "described", "labelled", "permuted", "shuffled", "linear").

    "described" are facet rules alone, the headline; "labelled" has item sets where these are shown. `score` is that of
    the rules, `linear_score` the linear map's on the same scale. `bits` is the rules' length.
    """

    kept: Mapping[str, Interval]
    overlap: Mapping[str, Interval]
    score: Interval
    linear_score: Interval
    bits: float
    linear_features: int

    def as_json(self) -> dict[str, object]:
        """Plain numbers."""

        def plain(interval: Interval) -> dict[str, float]:
            return {name: round(value, 4) for name, value in vars(interval).items()}

        return {
            "score": plain(self.score),
            **{side: plain(interval) for side, interval in self.kept.items()},
            "overlap@10": {side: plain(interval) for side, interval in self.overlap.items()},
            "linear_score": plain(self.linear_score),
            "bits": round(self.bits),
            "linear_features": self.linear_features,
        }


def described_ndcg(
    told: Descriptions, rows: RankedRows, item_ids: Sequence[str], seed: int = 0
) -> DescribedNdcg | None:
    """All sides on the same rows, users resampled together; None where the model itself finds no target to keep.

    InvalidRequestError when there are no rows.
    """
    original = rows.rank(rows.x)
    if len(rows.x) and not gains(original.ranks)[_NDCG].any():
        return None
    sae, rules = rows.sae, _strengths(told, told.rules, rows.features)
    x_hat = {
        "sae": sae.decode(sae.encode(rows.x)),
        "described": _decoded(sae, told.p95, rules),
        "labelled": _decoded(sae, told.p95, _with_sets(told, rules, rows.features, item_ids)),
        "permuted": _decoded(sae, told.p95, _strengths(told, told.permuted, rows.features)),
        "linear": told.linear.predict(rows.features),
    }
    x_hat["shuffled"] = x_hat["described"][_other_users(rows.user, seed)]
    columns: dict[str, NDArray[np.float64]] = {"rows": np.ones(len(rows.x)), _NDCG: gains(original.ranks)[_NDCG]}
    for side, predicted in x_hat.items():
        ranked = rows.rank(np.ascontiguousarray(predicted, np.float32))
        columns[f"{side}/{_NDCG}"] = gains(ranked.ranks)[_NDCG]
        columns[f"{side}/{_OVERLAP}"] = agreement(original.items, ranked.items)[_OVERLAP]
    drawn = UserSums.of(rows.user, columns).resample(seed, _TIMES)
    return DescribedNdcg(
        kept={side: drawn.ratio(f"{side}/{_NDCG}", _NDCG) for side in x_hat},
        overlap={side: drawn.ratio(f"{side}/{_OVERLAP}", "rows") for side in x_hat},
        score=_score(drawn, "described"),
        linear_score=_score(drawn, "linear"),
        bits=told.bits,
        linear_features=len(told.linear.columns),
    )


def permute_rules(
    rules: Sequence[RuleRecord], features: RowFeatures, values: sparse.csr_matrix, p95: Floats, seed: int = 0
) -> tuple[RuleRecord, ...]:
    """The rules given to other latents at random, their levels fitted to these on `values` CSR [w, n]."""
    order = np.random.default_rng(seed).permutation(len(rules))
    compiled = compile_rules([rules[at] for at in order])
    predict = compiled.patterns(features)
    level = np.zeros((len(rules), compiled.rules.level.shape[1]), np.float32)
    for latents in _blocks(len(rules)):
        level[latents] = _levels(predict(latents), values[latents], level.shape[1])
    compiled.rules.level[:] = level
    return tuple(compiled.rules.records(compiled.literals, p95))


def set_levels(
    sets: Sequence[RuleRecord],
    features: RowFeatures,
    values: sparse.csr_matrix,
    p95: Floats,
    item_ids: Sequence[str],
) -> tuple[RuleRecord, ...]:
    """Item sets with their levels: the mean strength where a set does not hold and where it does."""
    predict = compile_item_sets(sets, item_ids).predictor(features, len(item_ids))
    level = np.zeros((len(sets), 2), np.float32)
    for latents in _blocks(len(sets)):
        level[latents] = _levels(predict(latents).toarray().astype(np.uint8), values[latents], 2)
    pairs = zip(sets, (level / p95[:, None]).round(6).tolist(), strict=True)
    return tuple(replace(rule, levels=tuple(levels)) if rule.item_ids else rule for rule, levels in pairs)


def _levels(pattern: NDArray[np.uint8], values: sparse.csr_matrix, patterns: int) -> Floats:
    """Mean value of each latent on each pattern of its rule, drawn a little towards its overall mean, [m, patterns]."""
    m, n = pattern.shape
    owner = np.repeat(np.arange(m), np.diff(values.indptr))
    key = owner * patterns + pattern[owner, values.indices]
    sums = np.bincount(key, weights=values.data, minlength=m * patterns).reshape(m, patterns)
    rows = np.stack([(pattern == at).sum(axis=1) for at in range(patterns)], axis=1)
    mean = sums.sum(axis=1, keepdims=True) / max(1, n)
    return np.asarray((sums + _PRIOR_ROWS * mean) / (rows + _PRIOR_ROWS), np.float32)


def _strengths(
    told: Descriptions, rules: Sequence[RuleRecord], features: RowFeatures
) -> Callable[[NDArray[np.int64]], Floats]:
    """Predicted strengths of latents [m], float32 [m, n]."""
    predict = compile_rules(rules).strengths(features)
    bare = np.array([not rule.literals for rule in rules])

    def strengths(latents: NDArray[np.int64]) -> Floats:
        return np.where(bare[latents][:, None], told.silent[latents][:, None], predict(latents))

    return strengths


def _with_sets(
    told: Descriptions, rules: Callable[[NDArray[np.int64]], Floats], features: RowFeatures, item_ids: Sequence[str]
) -> Callable[[NDArray[np.int64]], Floats]:
    predict = compile_item_sets(told.sets, item_ids).predictor(features, len(item_ids))
    level = np.array([rule.levels or (0.0, 0.0) for rule in told.sets], np.float32)

    def strengths(latents: NDArray[np.int64]) -> Floats:
        holds = predict(latents).toarray().astype(np.int64)
        of_sets = np.take_along_axis(level[latents], holds, axis=1)
        return np.where(told.shows_set[latents][:, None], of_sets, rules(latents))

    return strengths


def _decoded(sae: Decoder, p95: Floats, strengths: Callable[[NDArray[np.int64]], Floats]) -> Floats:
    """x_hat [n, d] of predicted strengths, a block of latents at a time."""
    parts = ((strengths(latents) * p95[latents][:, None]).T @ sae.w_dec[latents] for latents in _blocks(len(p95)))
    return np.asarray(sae.b_dec + sum(parts), np.float32)


def _other_users(user: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """For each row, a row of another user."""
    known, owner = np.unique(user, return_inverse=True)
    shift = np.random.default_rng(seed).permutation(len(known))
    following = np.empty(len(known), np.int64)
    following[shift] = np.roll(shift, 1)
    first = np.unique(owner, return_index=True)[1]
    return np.asarray(first[following[owner]], np.int64)


def _score(drawn: Resamples, side: str) -> Interval:
    def column(name: str) -> NDArray[np.float64]:
        at = drawn.names.index(f"{name}/{_NDCG}")
        return np.append(drawn.totals[at], drawn.samples[:, at])

    span = column("sae") - column("permuted")
    ratio = np.divide(column(side) - column("permuted"), span, out=np.zeros(len(span)), where=span > 0)
    low, high = np.percentile(ratio[1:], (_LOW, _HIGH))
    return Interval(float(ratio[0]), float(low), float(high))


def _blocks(width: int) -> list[NDArray[np.int64]]:
    return [np.arange(at, min(at + _LATENTS_AT_ONCE, width)) for at in range(0, width, _LATENTS_AT_ONCE)]
