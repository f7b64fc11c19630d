"""Splits and merges of planted latents, and what looks like one and is none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.sae.codes import Codes
from recsae.sae.latent_pairs import latent_pairs
from recsae.sae.latents import Latents
from recsae.sae.lineage import wholes_of
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

    def __init__(self, density: float = 0.05) -> None:
        rng = np.random.default_rng(0)
        self.w_dec = unit(rng.normal(size=(WIDTH, D)))
        fires = rng.random((ROWS, WIDTH)) < density
        self.values = np.where(fires, rng.gamma(4.0, size=(ROWS, WIDTH)), 0).astype(np.float32)

    def latents(self) -> Latents:
        return Latents(self.w_dec, codes_of(self.values))

    def disturbed(self, noise: float) -> Planted:
        """The same latents, each with another direction and other values, but not by much."""
        rng, other = np.random.default_rng(9), Planted()
        other.w_dec = unit(self.w_dec + noise * unit(rng.normal(size=self.w_dec.shape)))
        other.values = self.values * np.exp(noise * rng.normal(size=self.values.shape)).astype(np.float32)
        return other


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


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_a_latent_that_came_apart_is_split_and_the_reverse_is_merged(parts: int) -> None:
    whole = Planted()
    broken = whole.disturbed(noise=0.05)
    share = np.random.default_rng(5).integers(0, parts, ROWS)
    pieces = np.stack([np.where(share == part, whole.values[:, 0], 0) for part in range(parts)], axis=1)
    directions = unit(whole.w_dec[:1] + 0.5 * unit(np.random.default_rng(6).normal(size=(parts, D))))
    broken.w_dec = np.concatenate([broken.w_dec[1:], directions])
    broken.values = np.concatenate([broken.values[:, 1:], pieces], axis=1)
    at = list(range(WIDTH - 1, WIDTH - 1 + parts))

    split = match_latents(broken.latents(), whole.latents())
    assert of(split.new, *at) == ["split"] * parts
    assert of(split.old, 0) == ["split"]
    assert split.new.partner[at].tolist() == [0] * parts
    assert split.old.partner[0] in at
    assert (split.new.counts()["stable"], split.new.counts()["merged"]) == (WIDTH - 1, 0)
    check_sides_agree(split)

    merged = match_latents(whole.latents(), broken.latents())
    assert of(merged.old, *at) == ["merged"] * parts
    assert of(merged.new, 0) == ["merged"]
    assert merged.old.partner[at].tolist() == [0] * parts
    assert (merged.new.counts()["stable"], merged.new.counts()["split"]) == (WIDTH - 1, 0)
    check_sides_agree(merged)


def test_a_special_case_beside_its_whole_is_new_and_splits_nothing() -> None:
    old = Planted()
    new = old.disturbed(noise=0.05)
    special = np.where(np.random.default_rng(5).random(ROWS) < 0.2, old.values[:, 0], 0)
    new.w_dec = np.concatenate([new.w_dec, old.w_dec[:1]])
    new.values = np.concatenate([new.values, special[:, None]], axis=1).astype(np.float32)
    matching = match_latents(new.latents(), old.latents())
    assert of(matching.new, 0, WIDTH) == ["stable", "new"]
    assert of(matching.old, 0) == ["stable"]


def test_parts_that_leave_most_of_a_latent_uncovered_do_not_make_it_split() -> None:
    old = Planted()
    new = old.disturbed(noise=0.05)
    share = np.random.default_rng(5).integers(0, 4, ROWS)
    new.values[:, :2] = np.stack([np.where(share == part, old.values[:, 0], 0) for part in (0, 1)], axis=1)
    new.w_dec[1] = unit(old.w_dec[:1] + 0.3 * old.w_dec[1:2])[0]
    matching = match_latents(new.latents(), old.latents())
    assert matching.old.counts()["split"] == matching.new.counts()["split"] == 0


def test_a_latent_that_one_other_covers_is_not_split_into_the_rest() -> None:
    """A broader latent covers it whole, beside two halves of it."""
    old = Planted(density=0.0)
    old.values[:400, 0] = 1
    new = Planted(density=0.0)
    new.values[:200, 0] = new.values[200:400, 1] = new.values[:800, 2] = 1
    new.w_dec[:3] = unit(old.w_dec[:1] + 0.5 * new.w_dec[3:6])
    matching = match_latents(new.latents(), old.latents())
    assert of(matching.old, 0) == ["stable"]
    assert sorted(of(matching.new, 0, 1, 2)) == ["new", "new", "stable"]


def test_a_latent_that_keeps_most_of_its_firings_is_stable_and_the_rest_is_new() -> None:
    old = Planted()
    new = old.disturbed(noise=0.02)
    rest = np.random.default_rng(5).random(ROWS) < 0.3
    new.values[:, 1] = np.where(rest, old.values[:, 0], 0)
    new.values[rest, 0] = 0
    new.w_dec[1] = old.w_dec[0]
    matching = match_latents(new.latents(), old.latents())
    assert 0.8 < matching.new.correlation[0] < 0.9
    assert of(matching.new, 0, 1) == ["stable", "new"]


def test_a_latent_with_an_equal_is_not_split_by_what_came_beside_it() -> None:
    old = Planted()
    new = old.disturbed(noise=0.02)
    drawn = np.random.default_rng(5).random(ROWS)
    new.values[drawn < 0.3, 0] = 0
    for latent, half in ((1, drawn < 0.5), (2, drawn >= 0.5)):
        new.values[:, latent] = np.where(half, old.values[:, 0], 0)
        new.w_dec[latent] = old.w_dec[0]
    assert of(match_latents(new.latents(), old.latents()).new, 0, 1, 2) == ["stable", "new", "new"]


def test_a_part_of_two_latents_goes_to_the_closer_one_and_the_other_stays_whole() -> None:
    old, new = Planted(density=0.0), Planted(density=0.0)
    first, second = np.eye(D, dtype=np.float32)[:2]
    old.w_dec[:2] = unit(np.stack([first, 0.6 * first + 0.8 * second]))
    new.w_dec[:3] = unit(np.stack([first + 0.3 * second, first, 0.6 * first + 0.8 * second]))
    old.values[:400, 0] = old.values[400:800, 1] = 1
    new.values[200:600, 0] = new.values[:200, 1] = new.values[600:800, 2] = 1
    matching = match_latents(new.latents(), old.latents())
    assert of(matching.new, 0, 1, 2) == ["split", "split", "stable"]
    assert of(matching.old, 0, 1) == ["split", "stable"]


def test_a_latent_takes_part_in_a_split_or_in_a_merge_but_not_in_both() -> None:
    """One half of an old latent also took over another old latent: the split is told, the other one is lost."""
    old, new = Planted(density=0.0), Planted(density=0.0)
    first, second = np.eye(D, dtype=np.float32)[:2]
    old.w_dec[:2] = unit(np.stack([first, 0.5 * first + second]))
    new.w_dec[:2] = unit(np.stack([first + 0.5 * second, first - 0.5 * second]))
    old.values[:400, 0] = old.values[400:533, 1] = 1
    new.values[:200, 0] = new.values[400:533, 0] = new.values[200:400, 1] = 1
    matching = match_latents(new.latents(), old.latents())
    assert of(matching.old, 0, 1) == ["split", "lost"]
    assert of(matching.new, 0, 1) == ["split", "split"]
    assert wholes_of(old.latents(), new.latents(), latent_pairs(old.latents(), new.latents()))[:2].tolist() == [0, 0]


def test_a_latent_with_an_equal_is_no_part_of_a_broader_one() -> None:
    """A broad latent no longer fires where a special one does that was there before: nothing came apart."""
    old = Planted()
    special = np.random.default_rng(5).random(ROWS) < 0.4
    old.values[:, 1] = np.where(special, old.values[:, 0], 0)
    old.w_dec[1:2] = unit(old.w_dec[:1] + 0.8 * old.w_dec[1:2])
    new = old.disturbed(noise=0.05)
    new.values[special, 0] = 0
    matching = match_latents(new.latents(), old.latents())
    assert of(matching.new, 0, 1) == ["stable", "stable"]
    assert matching.new.partner[:2].tolist() == [0, 1]
