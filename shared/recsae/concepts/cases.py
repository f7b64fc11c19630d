"""The cases a label is judged on: verification rows, who fires, whose rows they are, and how alike they are.

Positives have strength >= .5; weak firings are counted apart; negatives are silent. Rows of one user belong
together: intervals resample users (in at most 1,000 groups), never rows. Not here: the scores (`scoring`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

# A bootstrap over 1,000 groups of users gains nothing from more groups, and its tables stay small.
_MAX_GROUPS = 1000
RESAMPLES = 300


@dataclass(frozen=True)
class Cases:
    """Verification rows of all latents.

    `strong`, `weak` 0/1 CSR [w, n]; per row [n]: `user`, its `group` in 0..groups-1, `unseen` (the newest item is one
    no label was built from), `stratum` in 0..n_strata-1; `neighbours` int32 [w, 5] nearest latents (-1 = none).
    """

    strong: sparse.csr_matrix
    weak: sparse.csr_matrix
    user: NDArray[np.int64]
    group: NDArray[np.int64]
    unseen: NDArray[np.bool_]
    stratum: NDArray[np.int32]
    n_strata: int
    groups: int
    neighbours: NDArray[np.int32]

    @property
    def width(self) -> int:
        """Number of latents."""
        return int(self.strong.shape[0])

    @property
    def rows(self) -> int:
        """Number of rows, n."""
        return int(self.strong.shape[1])

    def restricted(self, rows: NDArray[np.int64]) -> Cases:
        """The cases on some rows, in ascending order; groups keep their numbers."""
        return replace(
            self,
            strong=self.strong[:, rows],
            weak=self.weak[:, rows],
            user=self.user[rows],
            group=self.group[rows],
            unseen=self.unseen[rows],
            stratum=self.stratum[rows],
        )

    @property
    def positives(self) -> NDArray[np.int64]:
        """Rows of strength >= .5 per latent, int64 [w]."""
        positives: NDArray[np.int64] = np.diff(self.strong.indptr).astype(np.int64)
        return positives

    @property
    def negatives(self) -> NDArray[np.int64]:
        """Rows on which the latent is silent, int64 [w]."""
        negatives: NDArray[np.int64] = self.rows - self.positives - np.diff(self.weak.indptr)
        return negatives

    def fired(self, latents: NDArray[np.int64]) -> sparse.csr_matrix:
        """0/1 CSR [m, n] of all firings, strong and weak."""
        return (self.strong[latents] + self.weak[latents]).tocsr()

    def users(self) -> NDArray[np.int64]:
        """Distinct users with a positive row per latent, int64 [w]."""
        latents = np.repeat(np.arange(self.width), np.diff(self.strong.indptr))
        pairs = np.unique(np.stack([latents, self.user[self.strong.indices]]), axis=1)
        return np.bincount(pairs[0], minlength=self.width).astype(np.int64)

    def hard(self, latents: NDArray[np.int64]) -> sparse.csr_matrix:
        """0/1 CSR [m, n]: the latent is silent and one of its near neighbours fires at strength >= .5."""
        near = self.neighbours[latents]
        row, _ = np.nonzero(near >= 0)
        shape = (len(latents), self.width)
        adjacency = sparse.csr_matrix((np.ones(len(row), np.float32), (row, near[near >= 0])), shape=shape)
        reached = (adjacency @ self.strong).tocsr()
        reached.data[:] = 1
        silent = (reached - reached.multiply(self.fired(latents))).tocsr()
        silent.eliminate_zeros()
        return silent


def matched_weights(
    strong: sparse.csr_matrix, fired: sparse.csr_matrix, stratum: NDArray[np.int32], n_strata: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a silent row of each stratum weighs, so that negatives are spread as positives are, float64 [m, strata].

    And the silent rows themselves [m, strata]. Weight = positives / silent rows of the stratum, 0 without any.
    """
    silent = np.bincount(stratum, minlength=n_strata)[None, :] - by_stratum(fired, stratum, n_strata)
    positives = by_stratum(strong, stratum, n_strata)
    return np.divide(positives, silent, out=np.zeros(silent.shape), where=silent > 0), silent


def by_stratum(rows: sparse.csr_matrix, stratum: NDArray[np.int32], n_strata: int) -> NDArray[np.float64]:
    """Entries of 0/1 CSR [m, n] in each stratum, float64 [m, strata]."""
    latent = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    counts = np.bincount(latent * n_strata + stratum[rows.indices], minlength=rows.shape[0] * n_strata)
    return counts.reshape(rows.shape[0], n_strata).astype(np.float64)


def group_users(user: NDArray[np.int32], seed: int = 0) -> NDArray[np.int64]:
    """The group of each row, int64 [n]: one per user, or 1,000 random groups of users when there are more."""
    known, dense = np.unique(user, return_inverse=True)
    if len(known) <= _MAX_GROUPS:
        return dense.astype(np.int64)
    groups = np.random.default_rng(seed).permutation(len(known)) % _MAX_GROUPS
    return groups[dense].astype(np.int64)


def resampling_weights(groups: int, *, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float32]:
    """How often each group is drawn, float32 [groups, 1 + resamples]; column 0 takes every group once."""
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(groups, np.full(groups, 1 / max(1, groups)), size=resamples).T
    return np.concatenate([np.ones((groups, 1)), draws], axis=1).astype(np.float32)
