"""Intruder test without a language model: which of five items does not belong, by what the label does not say.

A trial (docs/method.md, section 5) shows the deciding items of four strong firings of one concept, by distinct users,
and an intruder of the popularity of one of them on which the concept never fires. A judge sees metadata of the families
the label is silent about, or which users took the items, and picks the item least like the other four. Chance is 1 in
5; where several are equally unlike, the judge is right by their share. Trials of one concept share no user and no item.
Not here: where labels come from (`describing`), records (`judgement`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.coherence import facet_vectors, unit
from recsae.concepts.estimates import Estimate
from recsae.concepts.evidence_draws import first_of_each, rank_in_group
from recsae.concepts.records import ConceptRecord, RuleRecord
from recsae.concepts.scoring import Scores
from recsae.datasets.facet_names import BOTH, CROSSED, LIKE
from recsae.datasets.facets import FacetTable
from recsae.datasets.schema import Histories
from recsae.significance import wilson

CHANCE = 0.2
_SHOWN = 4
# Twenty trials of four: strong firings beyond the eighty strongest of a latent are not needed for an interval.
_MOST_TRIALS = 20
_CANDIDATES = 32
_RESAMPLES = 500
# What popularity matching has made equal cannot tell anything apart; pairs repeat what single values say, and who took
# the items is the other judge's matter.
_NEVER_SEEN = ("popularity", CROSSED, LIKE)

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Trials:
    """`latent` int64 [t]; `items` int64 [t, 5], the intruder last; `users` int64 [t, 4] whose firings are shown."""

    latent: Ints
    items: Ints
    users: Ints

    def __len__(self) -> int:
        """Number of trials."""
        return len(self.latent)


@dataclass(frozen=True)
class Intruder:
    """Outcome of all trials of one judge: `hit` float64 [t] in 0..1, NaN where the judge had nothing to go by."""

    trials: Trials
    hit: Doubles
    width: int

    @property
    def counts(self) -> Ints:
        """Trials judged per latent, int64 [w]."""
        return np.bincount(self.trials.latent[self._judged], minlength=self.width).astype(np.int64)

    def scores(self) -> Scores:
        """Share of intruders found per latent with Wilson's interval; 0 where no trial was judged (see `counts`).

        The trials of a latent have no user in common, so they are independent.
        """
        judged = self._judged
        n = self.counts.astype(np.float64)
        hits = np.bincount(self.trials.latent[judged], weights=self.hit[judged], minlength=self.width)
        share = hits / np.maximum(n, 1)
        return Scores(*(np.where(n > 0, each, 0.0) for each in (share, *wilson(share, n))))

    def overall(self, latents: NDArray[np.bool_] | None = None, seed: int = 0) -> Estimate:
        """Share found over all trials of the `latents` bool [w] asked for; the interval resamples users.

        A trial belongs in quarters to the four users whose firings it shows.
        """
        kept = self._judged if latents is None else self._judged & latents[self.trials.latent]
        if not kept.any():
            return Estimate()
        users, owner = np.unique(self.trials.users[kept], return_inverse=True)
        owner = owner.reshape(-1, _SHOWN)
        hits = np.bincount(owner.ravel(), np.repeat(self.hit[kept], _SHOWN), minlength=len(users))
        shown = np.bincount(owner.ravel(), minlength=len(users)).astype(np.float64)
        drawn = np.random.default_rng(seed).multinomial(len(users), np.full(len(users), 1 / len(users)), _RESAMPLES)
        low, high = np.percentile(drawn @ hits / np.maximum(drawn @ shown, 1e-9), (2.5, 97.5))
        return Estimate(float(self.hit[kept].mean()), float(low), float(high))

    @property
    def _judged(self) -> NDArray[np.bool_]:
        return np.isfinite(self.hit)


def draw_trials(
    strong: sparse.csr_matrix, values: Doubles, users: Ints, items: Ints, deciles: NDArray[np.int32], seed: int = 0
) -> Trials:
    """Trials of all latents: at most 20 each, and none for a latent with fewer than four distinct items.

    `strong` CSR [w, n] holds the firings; for each of its entries, in order, `values` says how strong it is and `items`
    which item decided it (0 = not known); `users` [n] whose row it is. `deciles` [n_items + 1] of popularity.
    """
    rng = np.random.default_rng(seed)
    latent = np.repeat(np.arange(strong.shape[0]), np.diff(strong.indptr)).astype(np.int64)
    fires_on = sparse.csr_matrix(
        (np.ones(len(latent), np.int8), (latent, items)), shape=(strong.shape[0], len(deciles))
    )
    # Entries of one place are added up, and 256 of them would be 0 again.
    fires_on.data[:] = 1
    order = np.lexsort((-values, latent))
    order = order[items[order] > 0]
    for owner in (users[strong.indices].astype(np.int32), items.astype(np.int32)):
        order = order[first_of_each(latent[order], owner[order])]
    order = order[rank_in_group(latent[order]) < _SHOWN * _MOST_TRIALS]
    # Which of them meet is left to chance: the strongest four of a latent would often be the most alike.
    order = order[np.lexsort((rng.random(len(order)), latent[order]))]
    whole = np.bincount(latent[order], minlength=strong.shape[0]) // _SHOWN * _SHOWN
    order = order[rank_in_group(latent[order]) < whole[latent[order]]]
    shown = items[order].reshape(-1, _SHOWN)
    owners = latent[order].reshape(-1, _SHOWN)[:, 0]
    intruder = _intruders(rng, owners, shown, fires_on, deciles)
    found = intruder > 0
    by_trial = users[strong.indices[order]].reshape(-1, _SHOWN)
    return Trials(owners[found], np.column_stack([shown, intruder])[found], by_trial[found])


def judge_by_facets(trials: Trials, facets: FacetTable, said: Sequence[frozenset[str]]) -> Intruder:
    """Judged by metadata; `said` [w] are the facet families each latent's label names, which the judge may not see.

    Nor may it see popularity, pairs of values, or groups of items consumed together. A latent whose label names every
    family there is has no judge.
    """
    families = np.array(facets.families)
    hit = np.full(len(trials), np.nan)
    kinds = sorted({tuple(sorted(said[latent])) for latent in np.unique(trials.latent).tolist()})
    kind_of = np.array([kinds.index(key) if key in kinds else -1 for key in (tuple(sorted(one)) for one in said)])
    for number, kind in enumerate(kinds):
        columns = np.flatnonzero(~np.isin(families, [*kind, *_NEVER_SEEN]))
        rows = np.flatnonzero(kind_of[trials.latent] == number)
        if len(columns):
            hit[rows] = told_apart(trials.items[rows], facet_vectors(facets.matrix[:, columns].tocsr()))
    return Intruder(trials, hit, len(said))


def judge_by_users(trials: Trials, vectors: sparse.csr_matrix, said: Sequence[frozenset[str]]) -> Intruder:
    """Judged by which users took the items; `vectors` from `user_vectors`.

    Latents whose label speaks of items consumed together (`said` [w]) have no such judge.
    """
    hidden = np.array([LIKE in families for families in said], bool)
    hit = np.where(hidden[trials.latent], np.nan, told_apart(trials.items, vectors))
    return Intruder(trials, hit, len(said))


def user_vectors(histories: Histories, users: NDArray[np.bool_], n_items: int) -> sparse.csr_matrix:
    """Unit vectors CSR [n_items + 1, n_users] of who took an item, among `users` [n_users]; rare takers weigh more."""
    owner = histories.users
    kept = users[owner]
    shape = (n_items + 1, histories.n_users)
    taken = sparse.csr_matrix((np.ones(int(kept.sum())), (histories.items[kept], owner[kept])), shape=shape)
    taken.data[:] = 1
    length = np.asarray(taken.sum(axis=0)).ravel()
    return unit(taken @ sparse.diags(np.log(n_items / np.maximum(length, 1))))


def shuffled(trials: Trials, seed: int = 0) -> Trials:
    """The control: the same items, users and intruders, but each item shown comes from another trial.

    Four items of four concepts have nothing in common but their popularity; a judge must then be right by chance.
    """
    rng = np.random.default_rng(seed)
    columns = [rng.permutation(trials.items[:, at]) for at in range(_SHOWN)]
    return Trials(trials.latent, np.column_stack([*columns, trials.items[:, _SHOWN]]), trials.users)


def told_apart(items: Ints, vectors: sparse.csr_matrix) -> Doubles:
    """For each row of five items the chance that the last is named: 1 / ties where it is least like the others, else 0.

    NaN where no two of the five have anything in common, so that there is nothing to judge by.
    """
    t, shown = items.shape
    rows = vectors[items.ravel()].tocsr()
    trial = sparse.csr_matrix(
        (np.ones(t * shown), np.arange(t * shown), np.arange(0, t * shown + 1, shown)), shape=(t, t * shown)
    )
    others = (trial.T @ (trial @ rows)).tocsr() - rows
    like = np.asarray(rows.multiply(others).sum(axis=1)).reshape(t, shown)
    like = np.round(like, 9)  # equal sums differ in their last digits
    least = like == like.min(axis=1, keepdims=True)
    return np.where(like.max(axis=1) > 0, least[:, -1] / least.sum(axis=1), np.nan)


def families_said(concepts: Sequence[ConceptRecord], facets: FacetTable) -> list[frozenset[str]]:
    """The facet families that each concept's rule speaks of, both of a pair's; an item set speaks of none."""
    family = dict(zip(facets.names, facets.families, strict=True))
    return [_families_of(concept.rule, family) for concept in concepts]


def _families_of(rule: RuleRecord, family: dict[str, str]) -> frozenset[str]:
    named = [(literal.facet, *literal.facet.split(BOTH)) for literal in rule.literals]
    return frozenset(family[name] for names in named for name in names if name in family)


def _intruders(
    rng: np.random.Generator, owners: Ints, shown: Ints, fires_on: sparse.csr_matrix, deciles: NDArray[np.int32]
) -> Ints:
    """An item of the decile of one of the four, on which the trial's latent never fires; 0 where none was drawn."""
    if not len(owners):
        return np.zeros(0, np.int64)
    by_decile = np.argsort(deciles, kind="stable")
    starts = np.searchsorted(deciles[by_decile], np.arange(int(deciles.max()) + 2))
    like = deciles[shown[np.arange(len(shown)), rng.integers(0, _SHOWN, len(shown))]]
    size = (starts[like + 1] - starts[like])[:, None]
    drawn = by_decile[starts[like][:, None] + (rng.random((len(owners), _CANDIDATES)) * size).astype(np.int64)]
    taken = np.asarray(fires_on[np.repeat(owners, _CANDIDATES), drawn.ravel()]).reshape(drawn.shape) > 0
    first = (~taken).argmax(axis=1)
    return np.where(taken.all(axis=1), 0, drawn[np.arange(len(drawn)), first]).astype(np.int64)
