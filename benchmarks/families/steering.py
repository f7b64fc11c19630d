"""What steering by one concept does to a facet's share of the lists, through the head that serves the model.

`dose` x p95 of the concept is added to each of a subject's rows, and the head ranks again. Of pairs the concept is
scaled by 1 + dose instead: what is added to every candidate alike raises them all nearly alike.
Concept and dose of a facet are chosen on construction users, where NDCG@10 may lose 2 % at most; gain and loss are
those of verification users, two requests each. Gain = log-odds of the facet's share of the first ten places, steered
minus unsteered (docs/method.md, section 7). One concept, because handles of several need a dot-product head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.dictionary import Dictionary
from recsae.recommenders.inputs import ModelInputs, stack_indices
from recsae.recommenders.metrics import ndcg_gains, ranks_in_lists
from recsae.recommenders.ranked import Ranked
from recsae.recommenders.runtime import OnnxRecommender
from recsae.sae.codes import Codes
from recsae.sae.runtime import SparseAutoencoder

MOST_LOSS = 0.02
DOSES = (0.5, 1.0, 2.0, 4.0)
_PLACES = 10
# Concepts tried for a facet, those that add most of it to lists at dose 1 on a part of the construction users.
_TRIED = 4
_MOST_REQUESTS, _MOST_PAIRS = 20_000, 1_000_000

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Users:
    """Requests of some users: what the model reads, consumed items and the target, int64 [n, e] and [n]."""

    inputs: ModelInputs
    consumed: NDArray[np.int64]
    targets: NDArray[np.int64]

    @classmethod
    def of(cls, inputs: ModelInputs, histories: Sequence[NDArray[np.int32]], targets: NDArray[np.int32]) -> Users:
        """Requests from histories and the items that follow them."""
        return cls(inputs, stack_indices(histories), targets.astype(np.int64))

    def __len__(self) -> int:
        """Number of requests, n."""
        return len(self.targets)

    def take(self, rows: NDArray[np.int64] | slice) -> Users:
        """Some of the requests."""
        return Users(self.inputs.take(rows), self.consumed[rows], self.targets[rows])


@dataclass(frozen=True)
class Steered:
    """One facet: what was chosen; on verification users the gain in log-odds, the loss of NDCG@10 and the shares."""

    facet: str
    concept: str
    dose: float
    gain: float
    loss: float
    share_before: float
    share_after: float


@dataclass(frozen=True)
class _Lists:
    """Lists of n requests: share of each facet in each, float64 [n, F], and NDCG@10 float64 [n]."""

    shares: Doubles
    ndcg: Doubles


class SteeringPanel:
    """Requests embedded once, ranked again for every change."""

    def __init__(
        self, recommender: OnnxRecommender, users: Users, facets: sparse.csr_matrix, sae: SparseAutoencoder
    ) -> None:
        """`facets` 0/1 [n_items + 1, F]: those whose shares are counted."""
        self._recommender, self._users, self._facets, self._sae = recommender, users, facets, sae
        self._codes: Codes | None = None
        hook = recommender.hooks[0]
        self._candidates: NDArray[np.int64] | None = None
        if hook.rows == "pair":
            self._candidates = np.tile(np.arange(1, recommender.n_items + 1), (len(users), 1))
            self._embedded = recommender.embed_pairs(users.inputs, self._candidates)
            self._codes = sae.encode(self._embedded.activation.reshape(-1, hook.dim))
        else:
            self._embedded = recommender.embed(users.inputs)
        self.before = self._ranked(self._embedded.activation)

    def after(self, latent: int, unit: float, dose: float) -> _Lists:
        """The lists when a latent is turned up in every row: by `dose` x `unit`, or of pairs to 1 + dose of itself."""
        x, row = self._embedded.activation, self._sae.w_dec[latent]
        if self._codes is None:
            return self._ranked(x + np.float32(dose * unit) * row)
        z = self._codes.strengths_of(latent).reshape(*x.shape[:2], 1)
        return self._ranked(x + np.float32(dose) * z * row)

    def _ranked(self, x: Floats) -> _Lists:
        ranked = self._recommender.rank(
            x.astype(np.float32, copy=False),
            self._embedded.passthrough,
            k=_PLACES,
            exclude=self._users.consumed,
            candidates=self._candidates,
        )
        return self._lists(ranked)

    def _lists(self, ranked: Ranked) -> _Lists:
        filled = np.isfinite(ranked.scores)
        items = np.where(filled, ranked.items, 0)
        pointers = np.arange(0, items.size + 1, items.shape[1])
        shown = sparse.csr_matrix(
            (np.ones(items.size), items.ravel(), pointers), shape=(len(items), self._facets.shape[0])
        )
        counts = np.asarray((shown @ self._facets).todense())
        ranks = ranks_in_lists(ranked.items, ranked.scores, self._users.targets)
        return _Lists(counts / np.maximum(filled.sum(axis=1), 1)[:, None], ndcg_gains(ranks, _PLACES))


def panel_size(recommender: OnnxRecommender) -> int:
    """Requests a panel holds at most: of a pair model as many as make some hundred thousand pairs."""
    return _MOST_REQUESTS if recommender.hooks[0].rows != "pair" else max(1, _MOST_PAIRS // recommender.n_items)


def steer_facets(
    construction: SteeringPanel,
    screening: SteeringPanel,
    verification: SteeringPanel,
    dictionary: Dictionary,
    names: Sequence[str],
) -> list[Steered]:
    """The gain of each facet `names` [F]; a facet no concept raises within the loss allowed gains 0."""
    p95 = dictionary.arrays.p95
    alive = np.flatnonzero(p95 > 0)
    # One pass over the concepts says what each adds to every facet.
    raised = np.stack([screening.after(one, float(p95[one]), 1.0).shares.mean(axis=0) for one in alive.tolist()])
    raised -= screening.before.shares.mean(axis=0)
    found = []
    for column, facet in enumerate(names):
        best = alive[np.argsort(-raised[:, column])[:_TRIED]]
        chosen = _choose(construction, p95, best, column)
        if chosen is None:
            share = float(verification.before.shares[:, column].mean())
            found.append(Steered(facet, "", 0.0, 0.0, 0.0, share, share))
            continue
        latent, dose = chosen
        after = verification.after(latent, float(p95[latent]), dose)
        found.append(_measured(facet, dictionary, latent, dose, verification.before, after, column))
    return found


def _choose(panel: SteeringPanel, p95: Floats, tried: NDArray[np.int64], column: int) -> tuple[int, float] | None:
    """The latent and dose that raise a facet most while NDCG@10 loses 2 % at most; None when none does."""
    best, chosen = 0.0, None
    for latent in tried.tolist():
        for dose in DOSES:
            lists = panel.after(latent, float(p95[latent]), dose)
            gain = _log_odds(lists, column) - _log_odds(panel.before, column)
            if _loss(panel.before, lists) <= MOST_LOSS and gain > best:
                best, chosen = gain, (latent, dose)
    return chosen


def _measured(
    facet: str, dictionary: Dictionary, latent: int, dose: float, before: _Lists, after: _Lists, column: int
) -> Steered:
    concept = dictionary.concepts[latent]
    return Steered(
        facet,
        concept.label or concept.id,
        dose,
        _log_odds(after, column) - _log_odds(before, column),
        _loss(before, after),
        float(before.shares[:, column].mean()),
        float(after.shares[:, column].mean()),
    )


def _log_odds(lists: _Lists, column: int) -> float:
    """Log-odds of a facet's mean share, half a place added on both sides so that it is finite."""
    n = _PLACES * len(lists.shares)
    shown = float(lists.shares[:, column].mean()) * n
    return float(np.log((shown + 0.5) / (n - shown + 0.5)))


def _loss(before: _Lists, after: _Lists) -> float:
    """Share of NDCG@10 lost."""
    had = float(before.ndcg.mean())
    return 1 - float(after.ndcg.mean()) / had if had else 0.0
