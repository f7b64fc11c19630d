"""What a concept promotes, found by adding it: the closed form of a dot product, and a loop for any other head."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.concepts.output_differences import Rank, ScoredLists, output_differences
from recsae.concepts.outputs import output_items

_ITEMS, _WIDTH, _D = 120, 20, 6
_RNG = np.random.default_rng(0)
VECTORS = np.concatenate([np.zeros((1, _D)), _RNG.normal(size=(_ITEMS, _D))]).astype(np.float32)
W_DEC = _RNG.normal(size=(_WIDTH, _D)).astype(np.float32)
UNIT = _RNG.uniform(0.5, 2, _WIDTH).astype(np.float32)
X = _RNG.normal(size=(300, _D)).astype(np.float32)

Head = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def dot(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x @ VECTORS[1:].T


def bent(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.tanh(x) @ VECTORS[1:].T


def ranker(head: Head, length: int, asked: list[int]) -> Rank:
    """Lists of a head's best items; `asked` hears how many."""

    def rank(x: NDArray[np.float32]) -> ScoredLists:
        asked.append(len(x))
        scores = head(x)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :length]
        return ScoredLists((order + 1).astype(np.int32), np.take_along_axis(scores, order, axis=1))

    return rank


def test_with_a_dot_product_the_difference_is_the_closed_form() -> None:
    exact = output_items(W_DEC, VECTORS)
    found = output_differences(W_DEC, UNIT, X, ranker(dot, _ITEMS, []), _ITEMS)
    np.testing.assert_array_equal(found.promoted, exact.promoted)
    np.testing.assert_array_equal(found.suppressed, exact.suppressed)
    np.testing.assert_allclose(found.raised, exact.raised, atol=1e-4)
    np.testing.assert_allclose(found.lowered, exact.lowered, atol=1e-4)
    np.testing.assert_allclose(found.effect, exact.effect, atol=1e-4)
    assert (found.labelled != exact.labelled).nnz == 0


def test_with_any_head_it_is_the_mean_change_of_a_panel() -> None:
    asked: list[int] = []
    found = output_differences(W_DEC, UNIT, X, ranker(bent, _ITEMS, asked), _ITEMS)
    panel = X[np.linspace(0, len(X) - 1, 16).astype(np.int64)]
    assert asked[0] == 16
    assert sum(asked) == 16 * (_WIDTH + 1)
    for latent in range(_WIDTH):
        change = (bent(panel + UNIT[latent] * W_DEC[latent]) - bent(panel)).mean(axis=0) / UNIT[latent]
        change -= change.mean()
        assert found.promoted[latent].tolist() == (np.argsort(-change)[:10] + 1).tolist()
        np.testing.assert_allclose(found.lowered[latent], np.sort(change)[:10], atol=1e-5)


@pytest.mark.parametrize("length", [30, 60])
def test_short_lists_understate_changes_and_still_name_what_rises(length: int) -> None:
    exact = output_items(W_DEC, VECTORS)
    found = output_differences(W_DEC, 4 * UNIT, X, ranker(dot, length, []), _ITEMS)
    assert (found.effect < exact.effect).all()
    shared = [len(set(one) & set(two)) for one, two in zip(found.promoted, exact.promoted, strict=True)]
    assert np.mean(shared) > 5


def test_the_panel_shrinks_so_that_lists_are_bounded() -> None:
    asked: list[int] = []
    many = np.repeat(W_DEC, 500, axis=0)  # 10,000 latents: one user each
    output_differences(many, np.ones(len(many), np.float32), X, ranker(dot, 5, asked), _ITEMS)
    assert sum(asked) == len(many) + 1
