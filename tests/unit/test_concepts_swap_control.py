"""The control of wrong labels: it must be able to say that the thresholds let everything pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.cases import Cases, resampling_weights
from recsae.concepts.verification import Labels, judge

ROWS, WIDTH, USERS = 4_000, 60, 200


def swapped_share(truths: NDArray[np.bool_]) -> float:
    """Share of concepts a wrong label passes for, when each concept's own label is nearly its firing."""
    rng = np.random.default_rng(0)
    labels = sparse.csr_matrix((truths ^ (rng.random(truths.shape) < 0.02)).astype(np.float32))
    user = np.repeat(np.arange(USERS), ROWS // USERS).astype(np.int64)
    none = sparse.csr_matrix((WIDTH, ROWS), dtype=np.float32)
    cases = Cases(
        strong=sparse.csr_matrix(truths.astype(np.float32)),
        weak=none,
        user=user,
        group=user,
        unseen=np.zeros(ROWS, bool),
        stratum=np.zeros(ROWS, np.int32),
        n_strata=1,
        groups=USERS,
        neighbours=((np.arange(WIDTH)[:, None] + np.arange(1, 6)) % WIDTH).astype(np.int32),
    )
    verdict = judge(
        cases,
        Labels(lambda latents: labels[latents], np.ones(WIDTH, bool)),
        Labels(lambda latents: none[latents], np.zeros(WIDTH, bool)),
        lambda latents: none[latents],
        prefers_set=np.zeros(WIDTH, bool),
        density=np.full(WIDTH, 0.3, np.float32),
        weights=resampling_weights(USERS),
    )
    return float(verdict.swapped_passes.mean())


def test_wrong_labels_pass_where_all_concepts_fire_alike() -> None:
    rng = np.random.default_rng(1)
    # One thing sixty times, each time with rows of its own, which are the hard negatives of the others.
    shared = rng.random(ROWS) < 0.3
    truths = shared[None, :] | (rng.random((WIDTH, ROWS)) < 0.03)
    assert swapped_share(truths) > 0.5


def test_wrong_labels_do_not_pass_where_concepts_differ() -> None:
    assert swapped_share(np.random.default_rng(2).random((WIDTH, ROWS)) < 0.3) == 0
