"""Effects of concepts on the panel, dose by dose, with intervals, safe ranges and nulls (docs/method.md, section 7).

Nothing is fitted here: doses are the same for all, a concept's facet comes from item vectors, its unit of strength from
construction users. So all panel users score. Not here: the loop over users and items (`turning`), handles (`handles`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.causal.board import DEPTH, Head
from recsae.concepts.causal.costs import costs
from recsae.concepts.causal.doses import ADDED, COMPARED, GRID, OPERATIONS, deltas, same_as
from recsae.concepts.causal.intervals import user_draws
from recsae.concepts.causal.nulls import (
    Curves,
    alike_latents,
    norm_grid,
    percentile,
    random_directions,
    shares_as_log_odds,
)
from recsae.concepts.causal.output_sets import OutputSets, labels_agree, output_sets
from recsae.concepts.causal.panel import Panel
from recsae.concepts.causal.turning import Outcomes, Turntable
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.effects import CausalRecord, DoseEffect, range_of
from recsae.concepts.firings import encode_rows
from recsae.concepts.inputs import Autoencoder
from recsae.concepts.records import ConceptStatus
from recsae.datasets.facets import FacetTable

# A microsecond a user and dose: a minute or so for the largest catalogue of 4,000 items, all five operations.
MOST_CONCEPTS = 2_048
_AT_ONCE = 32
_ENCODED_USERS = 16

Progress = Callable[[str, float], None]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Effects:
    """Records by latent, of the `measured` of `live` concepts with the most activation mass."""

    records: Mapping[int, CausalRecord]
    live: int

    @property
    def measured(self) -> int:
        """How many were measured."""
        return len(self.records)


def measure(
    panel: Panel,
    head: Head,
    facets: FacetTable,
    sae: Autoencoder,
    dictionary: Dictionary,
    *,
    most: int = MOST_CONCEPTS,
    seed: int = 0,
    progress: Progress = lambda _message, _share: None,
) -> Effects:
    """Effects of the live concepts with the most mass, at most `most`."""
    latents, live = _chosen(dictionary, most)
    if not len(latents):
        return Effects({}, live)
    concepts = [dictionary.concepts[latent] for latent in latents]
    w_dec, p95 = np.ascontiguousarray(sae.w_dec[latents]), dictionary.arrays.p95[latents]
    sets = output_sets(concepts, facets, w_dec, head.vectors)
    table = Turntable(panel, head, sets.member)
    weights, repeated = user_draws(len(panel), seed), same_as()
    by_latent = encode_rows(sae, panel.x).by_latent
    effects: list[tuple[DoseEffect, ...]] = []
    shares = np.zeros((len(latents), len(ADDED), sets.member.shape[1]), np.float32)
    base = np.zeros(sets.member.shape[1], np.int64)
    for begin in range(0, len(latents), _AT_ONCE):
        progress(f"turning {len(latents):,} concepts on {len(panel):,} users", begin / len(latents))
        span = slice(begin, begin + _AT_ONCE)
        z = np.asarray(by_latent[latents[span]].todense(), np.float32)
        made = table.turn(w_dec[span], deltas(z, p95[span]), sets.own[span], repeated)
        survived = _survived(sae, panel, latents[span], w_dec[span], p95[span], z)
        # Draws are some 20 MB a block: they go with it.
        figures = costs(made, _inside(panel, sets, span), weights)
        effects += [figures.effects(row, GRID, survived[row]) for row in range(len(z))]
        shares[span] = shares_as_log_odds(made.totals[:, : len(ADDED)], DEPTH * len(panel))
        base = made.base_totals
    curves = _curves(shares, base, p95, len(panel))
    beside = _random_curves(table, p95, seed)
    density = dictionary.arrays.density[latents].astype(np.float64)
    alike = alike_latents(density)
    moved = COMPARED * p95.astype(np.float64)
    standing = [_standing(curves, beside, at, int(sets.own[at]), moved[at], alike[at]) for at in range(len(latents))]
    found = {}
    for at, latent in enumerate(latents.tolist()):
        found[latent] = CausalRecord(
            facet=sets.facet[at],
            panel_users=len(panel),
            doses=effects[at],
            safe_ranges=tuple(range_of(operation, effects[at]) for operation in OPERATIONS),
            agreement=labels_agree(concepts[at]),
            null_percentile=standing[at][0],
            direction_percentile=standing[at][1],
            facet_share=float(base[sets.own[at]] / (DEPTH * len(panel))),
            panel=panel.fingerprint,
        )
    return Effects(found, live)


def _standing(curves: Curves, beside: Curves, at: int, column: int, size: float, alike: Ints) -> tuple[float, float]:
    """Where the gain of a concept moved by `size` lies among latents alike and random directions, moved as far."""
    own = float(curves.gain(np.array([at]), column, size)[0])
    every = np.arange(len(beside.size))
    return (
        percentile(own, curves.gain(alike, column, size)),
        percentile(own, beside.gain(every, column, size)),
    )


def _chosen(dictionary: Dictionary, most: int) -> tuple[Ints, int]:
    alive = np.array([one.status is not ConceptStatus.DEAD for one in dictionary.concepts])
    mass = dictionary.arrays.density.astype(np.float64) * dictionary.arrays.mean
    live = np.flatnonzero(alive)
    return np.sort(live[np.argsort(-mass[live], kind="stable")][:most]).astype(np.int64), len(live)


def _inside(panel: Panel, sets: OutputSets, span: slice) -> NDArray[np.bool_]:
    """True where the target of a user belongs to the set of a concept, bool [c, n]."""
    return np.asarray(sets.member[panel.target][:, sets.own[span]].todense() > 0).T


def _survived(
    sae: Autoencoder, panel: Panel, latents: Ints, w_dec: Floats, p95: Floats, z: Floats
) -> NDArray[np.float64]:
    """Share of an added strength that the encoder finds again, float64 [c, doses], mean over a few users.

    The encoder sees the changed activation, where other latents compete for the k places.
    """
    users = np.unique(np.linspace(0, len(panel) - 1, _ENCODED_USERS).astype(np.int64))
    added = np.asarray(ADDED, np.float32)[None, :] * p95[:, None]
    moved = panel.x[users][None, None] + added[:, :, None, None] * w_dec[:, None, None, :]
    codes = sae.encode(np.ascontiguousarray(moved.reshape(-1, panel.x.shape[1]), np.float32))
    owner = np.repeat(latents, len(ADDED) * len(users))
    after = np.where(codes.indices == owner[:, None], np.maximum(codes.values, 0), 0).sum(axis=1)
    change = after.reshape(len(latents), len(ADDED), len(users)) - z[:, None, users]
    share: NDArray[np.float64] = (change / added[:, :, None]).mean(axis=2)
    return share


def _curves(log_odds: Floats, base: Ints, p95: Floats, users: int) -> Curves:
    """What adding to each concept does to all sets, from nothing added upwards."""
    up = [at for at, added in enumerate(ADDED) if added > 0]
    start = np.broadcast_to(shares_as_log_odds(base, DEPTH * users), (len(p95), 1, len(base)))
    size = np.concatenate([[0.0], np.asarray(ADDED)[up]])[None, :] * p95[:, None].astype(np.float64)
    return Curves(size, np.concatenate([start, log_odds[:, up]], axis=1))


def _random_curves(table: Turntable, p95: Floats, seed: int) -> Curves:
    """The same for random directions, at sizes that cover what is compared."""
    norms = norm_grid(COMPARED * p95.astype(np.float64))
    directions = random_directions(table.panel.x.shape[1], seed)
    n = len(table.panel)
    moves = np.broadcast_to(norms[None, :, None].astype(np.float32), (len(directions), len(norms), n))
    made: Outcomes = table.turn(directions, moves, np.zeros(len(directions), np.int64))
    after = shares_as_log_odds(made.totals, DEPTH * n)
    start = np.broadcast_to(shares_as_log_odds(made.base_totals, DEPTH * n), (len(directions), 1, after.shape[2]))
    size = np.broadcast_to(np.concatenate([[0.0], norms]), (len(directions), len(norms) + 1))
    return Curves(size, np.concatenate([start, after], axis=1))
