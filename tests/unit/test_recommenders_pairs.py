"""Lists from scores of pairs."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsae.recommenders.pairs import rank_pairs


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_pairs_are_ranked_as_sorting_one_row_after_the_other_would(seed: int, k: int) -> None:
    random = np.random.default_rng(seed)
    candidates = np.stack([random.permutation(30)[:8] for _ in range(4)])  # 0 may be among them: no candidate
    exclude = random.integers(0, 30, size=(4, 3))
    scores = random.integers(0, 4, size=candidates.shape).astype(np.float32)
    ranked = rank_pairs(scores, candidates, exclude, k)
    for row in range(4):
        allowed = [
            (-score, item)
            for score, item in zip(scores[row].tolist(), candidates[row].tolist(), strict=True)
            if item and item not in exclude[row]
        ]
        items, best = ranked.row(row)
        assert list(zip((-best).tolist(), items.tolist(), strict=True)) == sorted(allowed)[:k]
    assert ranked.items.shape == ranked.scores.shape == (4, k)
