"""Handles: for a facet, at most 16 concepts in whose promoted items it stands out, with weights.

Three groups of rows, so that nothing is scored on what it was fitted on: weights on construction users one item before
their newest; the size of a dose on their newest rows; effects and the safe range on verification users. Only concepts
that promote the facet take part, so that a handle can be read; letting all latents take part gains nothing on
MovieLens-1M. Not here: the objective (`weights`), the record (`recsae.concepts.handles`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.causal.board import Head
from recsae.concepts.causal.directions import size_at_loss, try_directions
from recsae.concepts.causal.panel import Panel
from recsae.concepts.causal.turning import Turntable
from recsae.concepts.causal.weights import PRICES, FacetObjective, find_weights
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.effects import range_of
from recsae.concepts.handles import MOST_LATENTS, Handle
from recsae.concepts.records import ConceptRecord, ConceptStatus
from recsae.datasets.facet_names import CROSSED, LIKE
from recsae.datasets.facets import FacetTable

HANDLE_DOSES = (-2.0, -1.0, -0.5, -0.25, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
DOSE_LOSS = 0.02
MOST_HANDLES = 12
_MOST_CANDIDATES = 64
_LEAST_SHARE, _MOST_SHARE = 0.002, 0.6
_LONGEST = 0.6  # of the mean |x|: beyond it hardly an item of a list is left
_NEARLY = 0.75
_NO_HANDLE = ("title", "popularity", CROSSED, LIKE)

Progress = Callable[[str, float], None]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class HandlePanels:
    """Rows to find weights on, to size a dose on, and to score on."""

    fit: Panel
    size: Panel
    score: Panel


@dataclass(frozen=True)
class Found:
    """Latents int64 [m], how much of each a dose of 1 adds, float64 [m], in latent units, and the whole, [d]."""

    latents: Ints
    amounts: NDArray[np.float64]
    direction: Floats


class HandleFinder:
    """Finds handles of one dictionary on given panels. Keeps the scores of the panels."""

    def __init__(self, panels: HandlePanels, head: Head, facets: FacetTable, w_dec: Floats, dictionary: Dictionary):
        """`w_dec` [w, d] are the decoder rows of the dictionary's SAE."""
        self._panels, self._head, self._facets = panels, head, facets
        self._w_dec, self._dictionary = w_dec, dictionary
        self.sizing = Turntable(panels.size, head, facets.matrix)
        self.scoring = Turntable(panels.score, head, facets.matrix)
        self._longest = _LONGEST * float(np.linalg.norm(panels.size.x, axis=1).mean())

    def find(self, facet: str, *, raises: bool = True) -> Found | None:
        """Weights that raise a facet's share, or lower it; None where no live concept promotes it."""
        latents = promoters(self._dictionary.concepts, facet)
        if not len(latents):
            return None
        column = self._facets.names.index(facet)
        member = np.asarray(self._facets.matrix[:, [column]].todense()).ravel() > 0
        objective = FacetObjective(self._panels.fit, self._head, member, raises=raises)
        return best_combination(objective, self._w_dec, latents, self.sizing, column, self._longest)

    def measured(self, facet: str, found: Found, seed: int = 0) -> Handle:
        """The handle with its effects on the scoring users."""
        column = self._facets.names.index(facet)
        tried = try_directions(self.scoring, found.direction[None], HANDLE_DOSES, np.array([column]), seed)
        doses = tried.effects(0)
        p95 = self._dictionary.arrays.p95[found.latents]
        concepts = [self._dictionary.concepts[latent] for latent in found.latents.tolist()]
        hits = np.asarray(self._facets.matrix[:, [column]].todense()).ravel()
        listed = self.scoring.unsteered()
        return Handle(
            facet=facet,
            concept_ids=tuple(concept.id for concept in concepts),
            weights=tuple((found.amounts / p95).tolist()),
            doses=doses,
            safe_range=range_of("add", doses),
            panel_users=len(self._panels.score),
            facet_share=float(hits[listed].mean()),
        )


def best_combination(
    objective: FacetObjective, w_dec: Floats, latents: Ints, sizing: Turntable, column: int, longest: float
) -> Found | None:
    """At most 16 of `latents` weighted by an objective, `direction` being what a dose of 1 adds.

    The dearest price is taken whose gain at a dose of 1 is at least three quarters of the best price's: gains there are
    uncertain by about a fifth, and dear weights are the smaller ones. Size and gain are of the users of `sizing`;
    `column` is the set whose share counts there. None where nothing moves.
    """
    effects: Floats = (w_dec[latents] @ sizing.head.vectors.T).astype(np.float32)
    effects[:, 0] = 0
    tried: list[tuple[float, Found]] = []
    for price in PRICES:
        kept, amounts = find_weights(objective, effects, MOST_LATENTS, price)
        direction = amounts @ w_dec[latents[kept]].astype(np.float64)
        length = float(np.linalg.norm(direction))
        if length <= 0:
            continue
        size = size_at_loss(sizing, direction.astype(np.float32), column, DOSE_LOSS, longest)
        scaled = (size / length * direction).astype(np.float32)
        gain = try_directions(sizing, scaled[None], [1.0], np.array([column])).costs.log_odds.value[0, 0]
        gain = gain if objective.raises else -gain
        tried.append((gain, Found(latents[kept], size / length * amounts, scaled)))
    best = max((gain for gain, _ in tried), default=0.0)
    return next((found for gain, found in reversed(tried) if gain >= _NEARLY * best), None)


def find_handles(
    finder: HandleFinder,
    facets: Iterable[str],
    progress: Progress = lambda _message, _share: None,
) -> tuple[Handle, ...]:
    """The handles of `facets`, those without a concept left out."""
    handles = []
    wanted = list(facets)
    for at, facet in enumerate(wanted):
        progress(f"a handle for {facet}", at / len(wanted))
        found = finder.find(facet)
        if found is not None:
            handles.append(finder.measured(facet, found))
    return tuple(handles)


def handle_facets(dictionary: Dictionary, facets: FacetTable, table: Turntable, most: int = MOST_HANDLES) -> list[str]:
    """Facets worth a handle: promoted by three concepts or more, and in .2 to 60 % of listed places; the commonest."""
    shares = np.asarray(facets.matrix[table.unsteered().ravel()].mean(axis=0)).ravel()
    wanted = []
    for name, family, share in zip(facets.names, facets.families, shares.tolist(), strict=True):
        usable = family not in _NO_HANDLE and _LEAST_SHARE <= share <= _MOST_SHARE
        if usable and len(promoters(dictionary.concepts, name)):
            wanted.append((-share, name))
    return [name for _, name in sorted(wanted)[:most]]


def promoters(concepts: Iterable[ConceptRecord], facet: str) -> Ints:
    """Latents of live concepts in whose promoted items the facet stands out, at most 64, those it fits best first."""
    found = []
    for concept in concepts:
        named = {one.facet: one.low for one in concept.output_facets}
        if facet in named and concept.status is not ConceptStatus.DEAD:
            found.append((-named[facet], concept.latent))
    return np.array([latent for _, latent in sorted(found)[:_MOST_CANDIDATES]], np.int64)
