"""Near misses, decoder neighbours and the choice of the strongest: each beside a plain loop."""

from __future__ import annotations

import numpy as np

from recsae.concepts.decoder_neighbours import decoder_neighbours
from recsae.concepts.evidence import strongest
from recsae.concepts.evidence_draws import DrawnFirings, Rule, by_value
from recsae.concepts.firings import encode_rows
from recsae.concepts.near_misses import near_misses
from recsae.sae.codes import Codes

_ROWS, _WIDTH, _K = 300, 20, 3


class TopK:
    """x is its own score."""

    width = _WIDTH

    def encode(self, x: np.ndarray) -> Codes:
        order = np.argsort(-x, axis=1, kind="stable")[:, :_K]
        return Codes(order.astype(np.int32), np.maximum(np.take_along_axis(x, order, axis=1), 0))


def test_near_misses_are_the_four_scores_below_the_cut_closest_first_and_of_distinct_users() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(_ROWS, _WIDTH)).astype(np.float32)
    x[:40] -= 3  # rows on which fewer than k fire have no cut
    users = (np.arange(_ROWS) // 3).astype(np.int32)
    found = near_misses(x, encode_rows(TopK(), x), users, lambda rows: rows)
    expected: dict[int, list[tuple[float, int]]] = {latent: [] for latent in range(_WIDTH)}
    for row, scores in enumerate(x):
        order = np.argsort(-scores)
        fires = scores[order[:_K]] > 0
        for latent in order[_K : _K + 4].tolist():
            if scores[latent] > 0 and fires.any():
                expected[latent].append((float(scores[latent] / scores[order[:_K]].min()), row))
    for latent, near in expected.items():
        kept: list[int] = []
        for _, row in sorted(near, key=lambda pair: -pair[0]):
            if users[row] not in users[kept]:
                kept.append(row)
        mine = found.latent == latent
        assert found.row[mine].tolist() == kept[:3]
        np.testing.assert_array_equal(found.score[mine], x[kept[:3], latent])


def test_nothing_nearly_fires_where_everything_that_could_does() -> None:
    x = np.zeros((4, _WIDTH), np.float32)
    x[:, 1] = 1
    found = near_misses(x, encode_rows(TopK(), x), np.arange(4, dtype=np.int32), lambda rows: rows)
    assert len(found.row) == 0


def test_decoder_neighbours_are_the_live_latents_of_highest_cosine() -> None:
    rng = np.random.default_rng(1)
    w_dec = rng.normal(size=(700, 8)).astype(np.float32)  # more than one block
    live = rng.random(700) < 0.8
    near = decoder_neighbours(w_dec, live, nearest=4)
    unit = w_dec / np.linalg.norm(w_dec, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    cosine[:, ~live] = -2
    for latent in np.flatnonzero(live).tolist():
        best = np.argsort(-cosine[latent], kind="stable")[:4]
        np.testing.assert_allclose(near.correlations[latent], cosine[latent, best], atol=1e-6)
        np.testing.assert_allclose(cosine[latent, near.latents[latent]], cosine[latent, best], atol=1e-6)
    assert (near.latents[~live] == -1).all()


def test_a_lone_live_latent_has_no_neighbours() -> None:
    live = np.array([False, True, False])
    assert (decoder_neighbours(np.eye(3, dtype=np.float32), live).latents == -1).all()


def test_the_strongest_give_up_firings_of_a_user_or_item_already_taken() -> None:
    rng = np.random.default_rng(2)
    n = 400
    latent, value = rng.integers(0, 5, n), rng.random(n).astype(np.float32)
    user, item = (rng.integers(0, size, n).astype(np.int32) for size in (30, 12))
    pool = DrawnFirings(
        latent, by_value(value, np.zeros(n, np.uint64)), user, np.zeros(n, np.int32), item, value
    ).drawn(Rule(n))
    found = strongest(pool)
    for one in range(5):
        kept: list[int] = []
        for at in np.flatnonzero(pool.group == one).tolist():
            if pool.user[at] not in pool.user[kept] and pool.item[at] not in pool.item[kept]:
                kept.append(at)
        assert found.row[found.latent == one].tolist() == kept[:8]
