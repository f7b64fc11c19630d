"""Two hooks of one model beside each other: which concepts of one layer another layer has, too.

Their activations lie in different spaces, so decoder directions are not compared. Two concepts correspond when they
fire on the same histories: Pearson's correlation of their values over probe rows both hooks read. Not here: one SAE
against another of the same hook (`recsae.sae.matching`), and where the rows come from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.sae.codes import Codes
from recsae.sae.latent_pairs import correlated
from recsae.sae.latents import Latents

# As strong as what makes latents of two SAEs of one hook the same (`recsae.sae.matching`).
SAME_CORRELATION = 0.5

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Layer:
    """One hook's SAE on the probe rows: its `latents`, and which of them are `verified` concepts, bool [w]."""

    latents: Latents
    verified: Bools


@dataclass(frozen=True)
class LayerSide:
    """What one layer's latents [w] find in the other.

    `partner` int64 is the latent of the other layer that fires most alike, -1 where none reaches a correlation of .25;
    `correlation` float64 is theirs, 0 without one. `mass` float64 is the share of activation, `judged` bool which
    latents fire on 10 probe rows or more. `by_chance`: `share` when the other layer's rows are shuffled.
    """

    partner: Ints
    correlation: Doubles
    mass: Doubles
    verified: Bools
    judged: Bools
    by_chance: float = 0.0

    @property
    def shared(self) -> Bools:
        """Verified concepts with a counterpart: a correlation of .5 or more."""
        return self.verified & self.judged & (self.correlation >= SAME_CORRELATION)

    @property
    def alone(self) -> Bools:
        """Verified concepts without one: this layer alone has them."""
        return self.verified & self.judged & ~self.shared

    @property
    def share(self) -> float:
        """Share of the judged verified concepts that have a counterpart; 0 when there are none."""
        judged = int((self.verified & self.judged).sum())
        return int(self.shared.sum()) / judged if judged else 0.0

    def strongest_first(self, which: Bools) -> Ints:
        """Latents that `which` [w] names, those with most activation first."""
        named = np.flatnonzero(which)
        return named[np.argsort(-self.mass[named], kind="stable")]


@dataclass(frozen=True)
class LayerComparison:
    """Two layers, each seen from its own latents, over `rows` probe rows."""

    a: LayerSide
    b: LayerSide
    rows: int


def compare_layers(a: Layer, b: Layer, *, seed: int = 0) -> LayerComparison:
    """Counterparts in both directions, beside those found by chance (`seed` shuffles).

    InvalidRequestError when the two do not share their probe rows.
    """
    rows = len(a.latents.codes)
    if rows != len(b.latents.codes):
        raise InvalidRequestError(
            f"layers are compared on the same probe rows, not on {rows} and {len(b.latents.codes)}"
        )
    order = np.random.default_rng(seed).permutation(rows)
    shuffled = replace(b, latents=Latents(b.latents.w_dec, b.latents.codes.take(order)))
    chance_a, chance_b = _side(a, shuffled), _side(shuffled, a)
    return LayerComparison(
        replace(_side(a, b), by_chance=chance_a.share), replace(_side(b, a), by_chance=chance_b.share), rows
    )


def layer_of(codes: Codes, width: int, verified: Bools) -> Layer:
    """A layer by its codes of the probe rows; directions play no part."""
    return Layer(Latents(np.zeros((width, 1), np.float32), codes), verified)


def _side(mine: Layer, other: Layer) -> LayerSide:
    first, second, correlation = correlated(mine.latents, other.latents)
    width = mine.latents.width
    # The last one written is the one that fires most alike.
    order = np.argsort(correlation, kind="stable")
    partner, best = np.full(width, -1, np.int64), np.zeros(width)
    partner[first[order]] = second[order]
    best[first[order]] = correlation[order]
    return LayerSide(partner, best, mine.latents.mass, mine.verified, ~mine.latents.silent)
