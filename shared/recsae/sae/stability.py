"""Which latents an SAE finds again when it is trained from other seeds: docs/method.md, section 6.

A latent that another seed does not find is one of many ways to cut the same activations up, not a fact about the
recommender. Not here: how latents are matched (`matching`) and training the seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.sae.chance import unrelated
from recsae.sae.latent_pairs import LatentPairs, latent_pairs
from recsae.sae.latents import Doubles, Ints, Latents
from recsae.sae.matching import one_to_one, same


@dataclass(frozen=True)
class StableShare:
    """Share of the latents asked for (`count`), and of the activation these hold (`mass`)."""

    count: float
    mass: float


@dataclass(frozen=True)
class SeedStability:
    """Stability of the w latents of one SAE over s other seeds.

    `partner` int64 [s, w]: the latent found again in each seed, -1 where none. `cosine` and `correlation` float64 [w]:
    the least over seeds, of the partner or else of the closest latent (0 where nothing comes near). `stable` bool [w]:
    found in every seed. `judged` bool [w]: fires on at least 10 probe rows. `mass` float64 [w]: share of activation.
    `by_chance` bool [s, w]: found in an unrelated dictionary of that seed's shape.
    """

    partner: Ints
    cosine: Doubles
    correlation: Doubles
    stable: NDArray[np.bool_]
    judged: NDArray[np.bool_]
    mass: Doubles
    by_chance: NDArray[np.bool_]

    def share(self, among: NDArray[np.bool_] | None = None) -> StableShare:
        """Of the judged latents, or of those `among` [w] that are judged, e.g. the verified ones."""
        return self._share(self.stable, among)

    def chance(self, among: NDArray[np.bool_] | None = None) -> StableShare:
        """The same beside it: found by chance in every unrelated dictionary."""
        return self._share(np.asarray(self.by_chance.all(axis=0)), among)

    def chance_per_seed(self) -> float:
        """Share of judged latents that one unrelated dictionary has, the mean over seeds."""
        return float(self.by_chance[:, self.judged].mean()) if self.judged.any() else 0.0

    def _share(self, which: NDArray[np.bool_], among: NDArray[np.bool_] | None) -> StableShare:
        asked = self.judged if among is None else self.judged & among
        held = float(self.mass[asked].sum())
        if not asked.any() or held <= 0:
            return StableShare(0.0, 0.0)
        return StableShare(float(which[asked].mean()), float(self.mass[asked & which].sum()) / held)


def seed_stability(reference: Latents, others: Sequence[Latents], seed: int = 0) -> SeedStability:
    """Finds the latents of `reference` again in SAEs of other seeds, one to one at cosine >= .7 and correlation >= .5.

    All SAEs read the same activations of one base model; `codes` are of the same probe rows. Two other seeds are the
    usual number. `seed` draws the unrelated dictionaries. InvalidRequestError without another SAE, or when probe rows
    or dimensions differ.
    """
    if not others:
        raise InvalidRequestError("seed stability compares an SAE with others; name at least one more seed")
    # Effects on scores follow from decoders within one base model, so they would ask the same question twice.
    reference, others = replace(reference, items=None), [replace(other, items=None) for other in others]
    found = [_found(reference, other) for other in others]
    chance = [_partners(reference, unrelated(other, seed + at)) >= 0 for at, other in enumerate(others)]
    partner = np.stack([each[0] for each in found])
    return SeedStability(
        partner=partner,
        cosine=np.min([each[1] for each in found], axis=0),
        correlation=np.min([each[2] for each in found], axis=0),
        stable=np.asarray((partner >= 0).all(axis=0)),
        judged=~reference.silent,
        mass=reference.mass,
        by_chance=np.stack(chance),
    )


def _partners(reference: Latents, other: Latents) -> Ints:
    pairs = latent_pairs(reference, other)
    return one_to_one(pairs, same(pairs), reference.width, other.width)


def _found(reference: Latents, other: Latents) -> tuple[Ints, Doubles, Doubles]:
    """Partner, and cosine and correlation of the partner or else the closest latent, [w] each."""
    pairs = latent_pairs(reference, other)
    partner = one_to_one(pairs, same(pairs), reference.width, other.width)
    shown = np.where(partner >= 0, partner, _closest(pairs, reference.width))
    chosen = pairs.take(shown[pairs.new] == pairs.old)
    cosine, correlation = np.zeros(reference.width), np.zeros(reference.width)
    cosine[chosen.new], correlation[chosen.new] = chosen.cosine, chosen.correlation
    return partner, cosine, correlation


def _closest(pairs: LatentPairs, width: int) -> Ints:
    closest = np.full(width, -1, np.int64)
    weakest_first = np.argsort(pairs.score, kind="stable")
    closest[pairs.new[weakest_first]] = pairs.old[weakest_first]
    return closest
