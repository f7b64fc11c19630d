"""What became of planted latents: the statuses, the alignment of two base models, and matches by chance."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.sae.alignment import align
from recsae.sae.chance import false_match_rate, unrelated
from recsae.sae.codes import Codes
from recsae.sae.latent_pairs import latent_pairs
from recsae.sae.latents import Latents
from recsae.sae.matching import LatentMatching, LatentStatus, MatchedSide, match_latents

D, WIDTH, ROWS = 32, 60, 4000

Array = NDArray[np.float32]


def unit(rows: NDArray[np.float64] | Array) -> Array:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / lengths, np.float32)


def codes_of(dense: Array) -> Codes:
    """Codes of dense latent values [n, w] >= 0."""
    most = max(1, int((dense > 0).sum(axis=1).max()))
    indices = np.argsort(-dense, axis=1, kind="stable")[:, :most].astype(np.int32)
    return Codes(indices, np.take_along_axis(dense, indices, axis=1))


class Planted:
    """A dictionary of known latents: decoder [w, d], and values [n, w] of each on the probe rows."""

    def __init__(self, seed: int = 0, d: int = D, width: int = WIDTH, density: float = 0.05) -> None:
        rng = np.random.default_rng(seed)
        self.w_dec = unit(rng.normal(size=(width, d)))
        fires = rng.random((ROWS, width)) < density
        self.values = np.where(fires, rng.gamma(4.0, size=(ROWS, width)), 0).astype(np.float32)

    def latents(self, items: Array | None = None) -> Latents:
        return Latents(self.w_dec, codes_of(self.values), items)

    def permuted(self, order: NDArray[np.int64], noise: float, seed: int = 9) -> Planted:
        """The same latents in another order, each with a disturbed direction and disturbed values."""
        rng, other = np.random.default_rng(seed), Planted()
        other.w_dec = unit(self.w_dec[order] + noise * unit(rng.normal(size=self.w_dec.shape)))
        factor = np.exp(noise * rng.normal(size=self.values.shape)).astype(np.float32)
        other.values = self.values[:, order] * factor
        return other


def shuffled(width: int = WIDTH, seed: int = 3) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(width)


def check_sides_agree(matching: LatentMatching) -> None:
    """What one side says of a one-to-one pair, the other says too."""
    for mine, theirs in ((matching.new, matching.old), (matching.old, matching.new)):
        pairs = np.flatnonzero(mine.found)
        assert (theirs.partner[mine.partner[pairs]] == pairs).all()
        assert (theirs.status[mine.partner[pairs]] == mine.status[pairs]).all()
        np.testing.assert_array_equal(theirs.cosine[mine.partner[pairs]], mine.cosine[pairs])
        alone = np.isin(mine.status, [LatentStatus.NEW, LatentStatus.LOST, LatentStatus.SILENT])
        np.testing.assert_array_equal(mine.partner < 0, alone)


def of(side: MatchedSide, *latents: int) -> list[str]:
    return [str(side.status[latent]) for latent in latents]


def test_the_same_latents_permuted_and_disturbed_are_stable() -> None:
    old, order = Planted(), shuffled()
    matching = match_latents(old.permuted(order, noise=0.2).latents(), old.latents())
    assert matching.new.counts()["stable"] == WIDTH
    np.testing.assert_array_equal(matching.new.partner, order)
    assert (matching.new.cosine > 0.95).all()
    assert (matching.new.correlation > 0.9).all()
    assert np.isnan(matching.new.fingerprint).all()
    check_sides_agree(matching)
    assert matching.old.masses()["stable"] == pytest.approx(1.0)


def test_a_rotated_base_space_is_found_again_only_after_alignment() -> None:
    rng, old, order = np.random.default_rng(1), Planted(), shuffled()
    rotation = np.linalg.qr(rng.normal(size=(D, D)))[0].astype(np.float32)
    x_old = old.values @ old.w_dec
    new = old.permuted(order, noise=0.1)
    new.w_dec = new.w_dec @ rotation.T
    assert not match_latents(new.latents(), old.latents()).new.found.any()
    alignment = align(3.0 * x_old @ rotation.T + 5.0, x_old)
    assert alignment.explained > 0.999
    np.testing.assert_allclose(alignment.rotation, rotation, atol=1e-4)
    matching = match_latents(new.latents(), old.latents(), alignment)
    assert matching.new.counts()["stable"] == WIDTH
    np.testing.assert_array_equal(matching.new.partner, order)


def test_a_base_model_of_another_dimension_is_aligned_too() -> None:
    rng, old, order = np.random.default_rng(2), Planted(), shuffled()
    wider = np.linalg.qr(rng.normal(size=(D + 8, D)))[0].astype(np.float32)  # orthonormal columns
    x_old = old.values @ old.w_dec
    new = old.permuted(order, noise=0.1)
    new.w_dec = new.w_dec @ wider.T
    with pytest.raises(InvalidRequestError, match=r"40 and 32 dimensions .* paired activations"):
        match_latents(new.latents(), old.latents())
    matching = match_latents(new.latents(), old.latents(), align(x_old @ wider.T, x_old))
    np.testing.assert_array_equal(matching.new.partner, order)


def test_unrelated_base_spaces_explain_nothing_of_each_other() -> None:
    rng = np.random.default_rng(0)
    assert align(rng.normal(size=(9000, 8)), rng.normal(size=(9000, 8))).explained < 0.01


def test_one_weak_signal_makes_a_latent_drifted() -> None:
    old = Planted()
    new = old.permuted(np.arange(WIDTH), noise=0.0)
    rng = np.random.default_rng(4)
    sideways = unit(rng.normal(size=(1, D)) - (rng.normal(size=(1, D)) @ old.w_dec[:1].T) * old.w_dec[:1])
    sideways = unit(sideways - (sideways @ old.w_dec[0])[:, None] * old.w_dec[:1])
    new.w_dec[0] = 0.5 * old.w_dec[0] + np.sqrt(0.75) * sideways[0]  # cosine .5, the same firings
    moved = rng.random(ROWS) < 0.6  # most firings of latent 1 go elsewhere, its direction stays
    new.values[moved, 1] = rng.permutation(old.values[moved, 1])
    matching = match_latents(new.latents(), old.latents())
    assert of(matching.new, 0, 1, 2) == ["drifted", "drifted", "stable"]
    assert matching.new.partner[:3].tolist() == [0, 1, 2]
    assert matching.new.cosine[0] == pytest.approx(0.5, abs=1e-5)
    assert 0.25 <= matching.new.correlation[1] < 0.5
    check_sides_agree(matching)


def test_a_latent_gone_and_a_latent_come_are_lost_and_new() -> None:
    old, other = Planted(), Planted(seed=7)
    new = old.permuted(np.arange(WIDTH), noise=0.1)
    new.w_dec[5], new.values[:, 5] = other.w_dec[5], other.values[:, 5]
    matching = match_latents(new.latents(), old.latents())
    assert of(matching.new, 5) == ["new"]
    assert of(matching.old, 5) == ["lost"]
    assert (matching.new.partner[5], matching.old.partner[5], matching.new.cosine[5]) == (-1, -1, 0.0)
    assert matching.new.counts()["stable"] == WIDTH - 1
    check_sides_agree(matching)


def test_no_stable_pair_is_given_up_for_two_weak_ones() -> None:
    old, new = Planted(density=0.0), Planted(density=0.0)
    for planted, angles in ((old, (20, -40)), (new, (0, 60))):
        for latent, angle in enumerate(np.radians(angles)):
            planted.w_dec[latent] = np.eye(D)[0] * np.cos(angle) + np.eye(D)[1] * np.sin(angle)
    old.values[:400, 0] = old.values[400:800, 1] = 1
    new.values[150:550, 0] = 1  # shares 250 rows with the first old latent, 150 with the second
    new.values[:150, 1] = new.values[900:1150, 1] = 1  # 150 with the first
    matching = match_latents(new.latents(), old.latents())
    assert of(matching.new, 0, 1) == ["stable", "new"]
    assert of(matching.old, 0, 1) == ["stable", "lost"]
    pairs = latent_pairs(new.latents(), old.latents())
    assert sorted(zip(pairs.new.tolist(), pairs.old.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0)]
    assert pairs.score[1:].sum() > pairs.score[0]


def test_a_latent_that_hardly_fires_on_the_probe_rows_is_not_judged() -> None:
    old = Planted()
    new = old.permuted(np.arange(WIDTH), noise=0.0)
    new.values[np.flatnonzero(new.values[:, 3])[9:], 3] = 0
    matching = match_latents(new.latents(), old.latents())
    assert of(matching.new, 3) == ["silent"]
    assert of(matching.old, 3) == ["lost"]


def test_effects_on_scores_tell_latents_apart_that_items_see_differently() -> None:
    """A catalogue that only varies along one axis: directions that differ there do different things."""
    rng, old = np.random.default_rng(8), Planted()
    new = old.permuted(np.arange(WIDTH), noise=0.0)
    items = rng.normal(size=(300, D)).astype(np.float32)
    same = match_latents(new.latents(items), old.latents(items))
    np.testing.assert_allclose(same.new.fingerprint, 1.0, atol=1e-5)
    line = np.outer(rng.normal(size=300), np.eye(D)[0]).astype(np.float32)
    flipped = line.copy()
    flipped[:, 0] *= -1
    against = match_latents(new.latents(flipped), old.latents(line))
    np.testing.assert_allclose(against.new.fingerprint, -1.0, atol=1e-5)
    assert against.new.counts()["drifted"] == WIDTH


def test_the_fingerprint_is_the_cosine_of_the_effects_on_all_items() -> None:
    rng, old = np.random.default_rng(8), Planted()
    new = old.permuted(shuffled(), noise=0.5)
    before, after = (rng.normal(size=(200, D)).astype(np.float32) for _ in range(2))
    pairs = latent_pairs(new.latents(after), old.latents(before))
    effect_new = new.w_dec @ (after - after.mean(axis=0)).T
    effect_old = old.w_dec @ (before - before.mean(axis=0)).T
    expected = np.einsum("mi,mi->m", unit(effect_new)[pairs.new], unit(effect_old)[pairs.old])
    np.testing.assert_allclose(pairs.fingerprint, expected, atol=1e-5)


def test_pairs_hold_the_correlations_and_cosines_of_the_formula() -> None:
    old = Planted(width=20, density=0.2)
    new = Planted(seed=1, width=20, density=0.2)
    new.values[:, :10] = np.where(np.random.default_rng(2).random((ROWS, 10)) < 0.7, old.values[:, :10], 0)
    new.w_dec[:10] = unit(new.w_dec[:10] + 2 * old.w_dec[:10])
    pairs = latent_pairs(new.latents(), old.latents())
    correlation = np.corrcoef(new.values.T, old.values.T)[:20, 20:]
    cosine = new.w_dec @ old.w_dec.T
    expected = {(int(i), int(j)) for i, j in np.argwhere((correlation >= 0.25) & (cosine >= 0.35))}
    assert set(zip(pairs.new.tolist(), pairs.old.tolist(), strict=True)) == expected
    assert len(pairs) >= 10
    np.testing.assert_allclose(pairs.correlation, correlation[pairs.new, pairs.old], atol=1e-6)
    np.testing.assert_allclose(pairs.cosine, cosine[pairs.new, pairs.old], atol=1e-6)
    both = (new.values[:, pairs.new] > 0) & (old.values[:, pairs.old] > 0)
    for planted, latents, shared in ((new, pairs.new, pairs.new_shared), (old, pairs.old, pairs.old_shared)):
        values = planted.values[:, latents]
        np.testing.assert_allclose(shared, (values * both).sum(axis=0) / values.sum(axis=0), rtol=1e-5)


@pytest.mark.parametrize("d", [8, 16, 64])
def test_an_unrelated_dictionary_is_matched_for_fewer_than_one_latent_in_twenty(d: int) -> None:
    """Rare and frequent latents; in 8 dimensions many random directions are near each other."""
    for density in (0.004, 0.05, 0.3):
        planted = Planted(d=d, width=200, density=density).latents()
        assert false_match_rate(planted, planted) < 0.05
        assert false_match_rate(planted, planted, seed=1) < 0.05


def test_too_few_probe_rows_show_as_matches_by_chance() -> None:
    planted = Planted(d=2, width=200, density=0.5)
    few = Latents(planted.w_dec, codes_of(planted.values[:30]))
    assert false_match_rate(few, few) > 0.1


def test_an_unrelated_dictionary_keeps_how_much_fires_and_nothing_else() -> None:
    latents = Planted().latents()
    other = unrelated(latents, seed=0)
    np.testing.assert_array_equal(other.firings, latents.firings)
    np.testing.assert_allclose(other.mass, latents.mass)
    np.testing.assert_allclose(np.linalg.norm(other.w_dec, axis=1), 1.0, atol=1e-5)
    assert np.abs(np.einsum("wd,wd->w", other.w_dec, latents.w_dec)).mean() < 0.3


def test_probe_rows_items_and_paired_rows_must_be_the_same() -> None:
    latents = Planted().latents()
    shorter = Latents(latents.w_dec, latents.codes.take(slice(0, 10)))
    items = np.zeros((4, D), np.float32)
    with pytest.raises(InvalidRequestError, match="10 and 4000"):
        match_latents(shorter, latents)
    with pytest.raises(InvalidRequestError, match="both or neither"):
        match_latents(Latents(latents.w_dec, latents.codes, items), latents)
    with pytest.raises(InvalidRequestError, match="not 4 and 3"):
        match_latents(Latents(latents.w_dec, latents.codes, items), Latents(latents.w_dec, latents.codes, items[:3]))
    with pytest.raises(InvalidRequestError, match="one row per history"):
        align(np.zeros((5, 2)), np.zeros((4, 2)))
    with pytest.raises(InvalidRequestError, match="5 paired rows do not determine"):
        align(np.zeros((5, 6)), np.zeros((5, 6)))


def test_latents_of_no_rows_are_all_silent() -> None:
    latents = Latents(Planted().w_dec, Codes(np.zeros((0, 4), np.int32), np.zeros((0, 4), np.float32)))
    matching = match_latents(latents, latents)
    assert matching.new.counts()["silent"] == WIDTH
    assert sum(matching.new.masses().values()) == 0.0
