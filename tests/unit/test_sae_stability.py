"""Seed stability: what every seed finds again, beside what chance finds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.sae.codes import Codes
from recsae.sae.latents import Latents
from recsae.sae.stability import StableShare, seed_stability

D, WIDTH, ROWS = 32, 40, 3000
FOUND_BY_ALL, FOUND_BY_ONE = 10, 20  # latents below the first are in all seeds, below the second in one of two others

Array = NDArray[np.float32]


def codes_of(dense: Array) -> Codes:
    most = int((dense > 0).sum(axis=1).max())
    indices = np.argsort(-dense, axis=1, kind="stable")[:, :most].astype(np.int32)
    return Codes(indices, np.take_along_axis(dense, indices, axis=1))


def drawn(seed: int, strength: float = 1.0) -> tuple[Array, Array]:
    """Decoder and values of random latents; the first ten fire `strength` times as strongly."""
    rng = np.random.default_rng(seed)
    w_dec = rng.normal(size=(WIDTH, D))
    values = np.where(rng.random((ROWS, WIDTH)) < 0.05, rng.gamma(4.0, size=(ROWS, WIDTH)), 0)
    values[:, :FOUND_BY_ALL] *= strength
    return (w_dec / np.linalg.norm(w_dec, axis=1, keepdims=True)).astype(np.float32), values.astype(np.float32)


def seeds(strength: float = 1.0) -> tuple[Latents, list[Latents]]:
    """One SAE and two others that share its first latents, in an order of their own."""
    w_dec, values = drawn(0, strength)
    others = []
    for seed, kept in ((1, FOUND_BY_ONE), (2, FOUND_BY_ALL)):
        other_dec, other_values = drawn(seed, strength)
        other_dec[:kept], other_values[:, :kept] = w_dec[:kept], values[:, :kept]
        order = np.random.default_rng(10 + seed).permutation(WIDTH)
        others.append(Latents(other_dec[order], codes_of(other_values[:, order])))
    return Latents(w_dec, codes_of(values)), others


def test_a_latent_is_stable_when_every_seed_finds_it() -> None:
    reference, others = seeds()
    found = seed_stability(reference, others)
    assert np.flatnonzero(found.stable).tolist() == list(range(FOUND_BY_ALL))
    assert ((found.partner >= 0).sum(axis=0) == [2] * 10 + [1] * 10 + [0] * 20).all()
    assert found.share().count == pytest.approx(FOUND_BY_ALL / WIDTH)
    np.testing.assert_allclose(found.cosine[:FOUND_BY_ALL], 1.0, atol=1e-5)
    np.testing.assert_allclose(found.correlation[:FOUND_BY_ALL], 1.0, atol=1e-5)
    assert (found.cosine[FOUND_BY_ALL:] < 0.7).all()


def test_the_least_over_seeds_is_reported_also_where_it_is_too_little() -> None:
    reference, (first, second) = seeds()
    latent = int(np.argmax(second.w_dec @ reference.w_dec[0]))
    aside = np.random.default_rng(5).normal(size=D)
    aside -= (aside @ reference.w_dec[0]) * reference.w_dec[0]
    second.w_dec[latent] = 0.6 * reference.w_dec[0] + 0.8 * aside / np.linalg.norm(aside)
    found = seed_stability(reference, [first, second])
    assert not found.stable[0]
    assert found.partner[:, 0].tolist()[1] == -1
    assert (found.cosine[0], found.correlation[0]) == pytest.approx((0.6, 1.0), abs=1e-5)


def test_the_share_of_mass_counts_what_stable_latents_hold() -> None:
    reference, others = seeds(strength=9.0)
    share = seed_stability(reference, others).share()
    assert share.count == pytest.approx(0.25)
    assert share.mass == pytest.approx(9 * 10 / (9 * 10 + 30), abs=0.02)


def test_the_share_can_be_taken_of_verified_latents_only() -> None:
    reference, others = seeds()
    found = seed_stability(reference, others)
    verified = np.zeros(WIDTH, bool)
    verified[5:15] = True
    assert found.share(verified).count == pytest.approx(0.5)
    assert found.share(np.zeros(WIDTH, bool)) == StableShare(0.0, 0.0)


def test_an_sae_is_wholly_stable_against_itself_and_chance_finds_nothing() -> None:
    reference, _ = seeds()
    found = seed_stability(reference, [reference, reference])
    assert (found.share().count, found.share().mass) == pytest.approx((1.0, 1.0))
    assert found.chance() == StableShare(0.0, 0.0)
    assert found.chance_per_seed() < 0.05


def test_silent_latents_are_left_out_of_the_share() -> None:
    reference, others = seeds()
    w_dec, values = reference.w_dec, reference.codes.dense(WIDTH)
    values[:, 20:] = 0
    found = seed_stability(Latents(w_dec, codes_of(values)), others)
    assert found.judged.tolist() == [True] * 20 + [False] * 20
    assert found.share().count == pytest.approx(0.5)


def test_one_sae_alone_has_no_stability() -> None:
    reference, others = seeds()
    with pytest.raises(InvalidRequestError, match="at least one more seed"):
        seed_stability(reference, [])
    with pytest.raises(InvalidRequestError, match="same probe rows"):
        seed_stability(reference, [Latents(others[0].w_dec, others[0].codes.take(slice(5)))])
