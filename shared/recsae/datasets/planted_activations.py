"""A recommender whose representation is known: planted concepts with correlations and noise, at the activation level.

Every concept is one facet of the planted items, or two together. It fires on a history when the recency-weighted
share of its facet (of both) among the newest items exceeds a threshold, with a strength that grows with the (lesser)
share, and adds its own direction:

    x(h) = offset + sum_c strength_c(h) direction_c + noise(h)

Noise is white and a function of the history alone, so that embedding a history again gives the same activation, as a
real model does. Facets of one item are correlated (a genre has its usual mood), so concepts fire together; directions
may share a common part. Not here: SAEs, describing, and scores of what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from recsae.datasets.facets import FacetSpec, FacetTable, build_facets
from recsae.datasets.planted import make_planted
from recsae.datasets.schema import Dataset
from recsae.errors import InvalidRequestError
from recsae.mixing import splitmix64

Floats = NDArray[np.float32]

# Shares weigh the newest ten items by .75^age, as the literals of rules do: a rule can say what was planted.
_RECENT, _DECAY = 10, 0.75
# The share above which a concept fires, with a strength that grows from 0: one item alone is a weak firing at most.
_THRESHOLD = 0.25
_STRENGTH = 8.0
# Standard deviation of the log of what a strength is multiplied by.
_SPREAD = 0.2
_GENRE = "genre"


@dataclass(frozen=True)
class PlantedSpec:
    """What is planted. `families` = values per facet family, genres first: one concept for each value.

    `pairs` more concepts ask for a genre and the value of the second family that most of its items have, both.

    With chance `correlation` an item takes, in every further family, the value that belongs to its genre, else any.
    `shared` is the cosine every pair of directions has on average; `noise_share` the part of the power (about the
    offset) that is noise; histories are `n_users` of about `mean_length` items.
    """

    d: int = 32
    families: tuple[int, ...] = (16, 12, 12)
    pairs: int = 0
    n_users: int = 2_000
    n_items: int = 480
    mean_length: int = 50
    correlation: float = 0.3
    shared: float = 0.05
    noise_share: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        """InvalidRequestError names the value that cannot work."""
        if not self.families or min(self.families) < 2:
            raise InvalidRequestError(f"every facet family needs at least 2 values, not {list(self.families)}")
        if self.pairs and (len(self.families) < 2 or not 0 <= self.pairs <= self.families[0]):
            raise InvalidRequestError(
                f"{self.pairs} pairs need a second family and at most one for each of {self.families[0]} genres"
            )
        for name in ("correlation", "shared", "noise_share"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidRequestError(f"{name} must be within [0, 1), not {getattr(self, name)}")
        if self.d < 2:
            raise InvalidRequestError(f"d must be at least 2, not {self.d}")

    @property
    def concepts(self) -> int:
        """Number of planted concepts."""
        return sum(self.families) + self.pairs


@dataclass(frozen=True)
class PlantedActivations:
    """The data set, the truth, and the model that holds it.

    `facets` is the table describers see; concept c asks for the facets named `concept_facets[c]`, whose columns are
    `columns[c]` (int64 [C, 2], twice the same where it asks for one). `directions` float32 [C, d] of unit length,
    `offset` float32 [d].
    """

    spec: PlantedSpec
    dataset: Dataset
    facets: FacetTable
    concept_facets: tuple[tuple[str, ...], ...]
    columns: NDArray[np.int64]
    directions: Floats
    offset: Floats

    def strengths(self, histories: Sequence[NDArray[np.int32]]) -> Floats:
        """How strongly each concept fires on each history, float32 [B, C]; 0 where it is silent."""
        return self._strengths(newest_items(histories))

    def embed(self, histories: Sequence[NDArray[np.int32]]) -> Floats:
        """Activations float32 [B, d] of histories; the same history always gives the same."""
        newest = newest_items(histories)
        signal = self._strengths(newest) @ self.directions + self.offset
        noise: Floats = self._noise_scale * _normal(_mixed(newest, self.spec.seed), self.spec.d)
        return signal + noise

    @cached_property
    def item_vectors(self) -> Floats:
        """A head's item vectors float32 [n_items + 1, d]: the directions of an item's concepts."""
        carried = self.facets.matrix.toarray()[:, self.columns].min(axis=2)
        vectors: Floats = np.asarray(carried @ self.directions, np.float32)
        return vectors

    def _strengths(self, newest: NDArray[np.int64]) -> Floats:
        weights = np.where(newest > 0, _DECAY ** np.arange(_RECENT), 0.0)
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        pointers = np.arange(0, newest.size + 1, _RECENT)
        mix = sparse.csr_matrix(
            (weights.ravel(), newest.ravel(), pointers), shape=(len(newest), self.facets.matrix.shape[0])
        )
        share = np.asarray((mix @ self.facets.matrix).toarray(), np.float32)[:, self.columns].min(axis=2)
        vary = np.exp(_SPREAD * _normal(_mixed(newest, self.spec.seed + 1), self.spec.concepts))
        strengths: Floats = (_STRENGTH * np.maximum(share - _THRESHOLD, 0) * vary).astype(np.float32)
        return strengths

    @cached_property
    def _noise_scale(self) -> np.float32:
        """So that noise is `noise_share` of the power, measured on whole histories."""
        histories = self.dataset.histories
        sample = [histories.of(user) for user in range(histories.n_users)]
        signal = self._strengths(newest_items(sample)) @ self.directions
        power = float(np.square(signal - signal.mean(axis=0)).sum(axis=1).mean())
        share = self.spec.noise_share
        return np.float32(np.sqrt(power * share / (1 - share) / self.spec.d))


def make_planted_activations(spec: PlantedSpec | None = None) -> PlantedActivations:
    """Draws items, histories, directions and offset from the seed; the same spec gives the same world."""
    spec = spec or PlantedSpec()
    rng = np.random.default_rng((spec.seed, spec.d, spec.concepts))
    base = make_planted(spec.seed, spec.n_users, spec.n_items, spec.families[0], mean_length=spec.mean_length)
    values = _item_values(rng, base.concept_of_item[1:], spec)
    columns = {
        _family(number): tuple(f"{_family(number)} {value}" for value in row) for number, row in enumerate(values)
    }
    dataset = replace(base.dataset, name="planted activations", items=replace(base.dataset.items, columns=columns))
    facets = build_facets(dataset.items, dataset.histories, FacetSpec(min_items=1, title_tokens=0))
    asked = _asked(values, spec)
    column = {name: at for at, name in enumerate(facets.names)}
    if missing := [name for names in asked for name in names if name not in column]:
        raise InvalidRequestError(f"no item carries {missing[0]!r}; give more than {spec.n_items} items")
    return PlantedActivations(
        spec=spec,
        dataset=dataset,
        facets=facets,
        concept_facets=asked,
        columns=np.array([[column[names[0]], column[names[-1]]] for names in asked], np.int64),
        directions=_directions(rng, spec),
        offset=rng.normal(size=spec.d).astype(np.float32),
    )


def _asked(values: list[NDArray[np.int64]], spec: PlantedSpec) -> tuple[tuple[str, ...], ...]:
    """The facets each concept asks for: every value of every family, then pairs of the first two families."""
    single = [(_facet(number, value),) for number, size in enumerate(spec.families) for value in range(size)]
    pairs = []
    for genre in range(spec.pairs):
        most = int(np.bincount(values[1][values[0] == genre]).argmax())
        pairs.append((_facet(0, genre), _facet(1, most)))
    return (*single, *pairs)


def _facet(number: int, value: int) -> str:
    return f"{_family(number)}={_family(number)} {value}"


def newest_items(histories: Sequence[NDArray[np.int32]]) -> NDArray[np.int64]:
    """The newest ten items of each history, newest first, int64 [B, 10], 0 where the history is shorter."""
    flat = np.concatenate([np.zeros(1, np.int64), *(np.asarray(history, np.int64) for history in histories)])
    lengths = np.array([len(history) for history in histories], np.int64)
    at = np.cumsum(lengths)[:, None] - np.arange(_RECENT)[None, :]
    return np.where(np.arange(_RECENT)[None, :] < lengths[:, None], flat[np.maximum(at, 0)], 0)


def _item_values(rng: np.random.Generator, genre: NDArray[np.int64], spec: PlantedSpec) -> list[NDArray[np.int64]]:
    """The value of each item in each family; every value is taken by some item."""
    rows = [genre]
    for size in spec.families[1:]:
        usual = rng.permutation(spec.families[0])[genre] % size
        any_value = rng.permutation(len(genre)) % size
        rows.append(np.where(rng.random(len(genre)) < spec.correlation, usual, any_value))
    return rows


def _family(number: int) -> str:
    return _GENRE if number == 0 else f"mood{number}"


def _directions(rng: np.random.Generator, spec: PlantedSpec) -> Floats:
    own = rng.normal(size=(spec.concepts, spec.d))
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    common = rng.normal(size=spec.d)
    rows = np.sqrt(1 - spec.shared) * own + np.sqrt(spec.shared) * common / np.linalg.norm(common)
    directions: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return directions


def _mixed(newest: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """A well-mixed number per row of item indices, uint64 [B]: the finaliser of splitmix64 over the items in order."""
    state = np.full(len(newest), seed + 1, np.uint64)
    for column in newest.T:
        state = splitmix64(state ^ column.astype(np.uint64))
    return state


def _normal(state: NDArray[np.uint64], columns: int) -> Floats:
    """Standard normal numbers float32 [B, columns] that depend on `state` [B] alone."""
    counted = splitmix64(state[:, None] + np.arange(1, columns + 1, dtype=np.uint64)[None, :])
    uniform = ((counted >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    normal: Floats = special.ndtri(uniform).astype(np.float32)
    return normal
