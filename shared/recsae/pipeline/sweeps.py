"""What a sweep varies and what it found: the grid, its points, and the mean and spread over seeds.

Pure values, part of the run record. Not here: training and scoring a point (`stages.sweep`), tables and plots
(`recsae.cli`).
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from recsae.errors import InvalidRequestError
from recsae.sae.config import VARIANTS

MAX_POINTS = 256
MAX_WIDTH, MAX_K = 1_048_576, 1_024
NDCG_KEPT = "rank.ndcg@10_kept"
# What a run record keeps of a point's scores; the run's work folder has all of them.
RECORDED = (
    "sae.fvu", "sae.fvu_items", "sae.explained_variance", "sae.l0", "sae.dead", "sae.dead_users", "sae.rare",
    NDCG_KEPT, f"{NDCG_KEPT}_low", f"{NDCG_KEPT}_high", f"{NDCG_KEPT}_pca", f"{NDCG_KEPT}_adaptive_pca",
    "rank.users", "sae.k", "sae.d", "activations_per_s",
)  # fmt: skip


@dataclass(frozen=True)
class SweepPoint:
    """One SAE of a grid."""

    width: int
    k: int
    variant: str
    seed: int

    @property
    def name(self) -> str:
        """Unique within a grid and fit for a file name, e.g. "w1024-k16-topk-s0"."""
        return f"w{self.width}-k{self.k}-{self.variant}-s{self.seed}"


@dataclass(frozen=True)
class SweepGrid:
    """Every combination of these is a point. Zeros stand for defaults until `completed` fills them in."""

    widths: tuple[int, ...] = (0,)
    ks: tuple[int, ...] = (0,)
    variants: tuple[str, ...] = ("topk",)
    seeds: tuple[int, ...] = (0,)

    @classmethod
    def of(
        cls, widths: Iterable[int] = (), ks: Iterable[int] = (), variants: Iterable[str] = (), seeds: Iterable[int] = ()
    ) -> SweepGrid:
        """The grid of these values, each once, in the order given; an empty list is one default."""
        return cls(
            tuple(dict.fromkeys(widths)) or (0,),
            tuple(dict.fromkeys(ks)) or (0,),
            tuple(dict.fromkeys(variants)) or ("topk",),
            tuple(dict.fromkeys(seeds)) or (0,),
        )

    @property
    def size(self) -> int:
        """Number of points."""
        return len(self.widths) * len(self.ks) * len(self.variants) * len(self.seeds)

    def points(self) -> tuple[SweepPoint, ...]:
        """Seeds of one configuration lie together."""
        return tuple(
            SweepPoint(width, k, variant, seed)
            for variant, width, k, seed in itertools.product(self.variants, self.widths, self.ks, self.seeds)
        )

    def point(self, name: str) -> SweepPoint:
        """The point of that name; KeyError when the grid has none."""
        for point in self.points():
            if point.name == name:
                return point
        raise KeyError(name)

    def validate(self) -> None:
        """InvalidRequestError names the first value that can never work, or the size of a grid that is too large."""
        if self.size > MAX_POINTS:
            raise InvalidRequestError(
                f"the grid has {self.size} points ({len(self.widths)} widths x {len(self.ks)} k x "
                f"{len(self.variants)} variants x {len(self.seeds)} seeds); a sweep takes at most {MAX_POINTS}"
            )
        for width in self.widths:
            if width and not 16 <= width <= MAX_WIDTH:
                raise InvalidRequestError(f"width {width} is out of range; give 16 to {MAX_WIDTH}")
        for k in self.ks:
            if k and not 1 <= k <= MAX_K:
                raise InvalidRequestError(f"k {k} is out of range; give 1 to {MAX_K}")
        smallest = min((width for width in self.widths if width), default=0)
        if smallest and max(self.ks) > smallest:
            raise InvalidRequestError(f"k {max(self.ks)} is larger than width {smallest}; leave one of them out")
        for variant in self.variants:
            if variant not in VARIANTS:
                raise InvalidRequestError(f"variant {variant!r} is unknown; choose from {', '.join(VARIANTS)}")
        for seed in self.seeds:
            if not 0 <= seed < 1 << 63:
                raise InvalidRequestError(f"seed {seed} is out of range; give 0 to 2^63 - 1")

    def completed(self, dim: int) -> SweepGrid:
        """The grid for activations of length `dim`: width 4 x d and k = d / 8 where they were left 0."""
        widths = [width or min(MAX_WIDTH, max(16, 4 * dim)) for width in self.widths]
        ks = [k or min(*widths, MAX_K, max(1, dim // 8)) for k in self.ks]
        return SweepGrid.of(widths, ks, self.variants, self.seeds)


@dataclass(frozen=True)
class PointResult:
    """A point that is done: its scores by name, or why it could not be trained."""

    point: SweepPoint
    scores: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over `n` seeds; the deviation is 0 for one."""

    mean: float
    deviation: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))


@dataclass(frozen=True)
class Configuration:
    """A width, k and variant: its points, one per seed, and the spread of each score they all have."""

    width: int
    k: int
    variant: str
    results: tuple[PointResult, ...]
    scores: Mapping[str, Spread]


def by_configuration(results: Iterable[PointResult]) -> list[Configuration]:
    """Points that differ in their seed alone, together, in the order they come; points that failed have no scores."""
    groups: dict[tuple[int, int, str], list[PointResult]] = {}
    for result in results:
        groups.setdefault((result.point.width, result.point.k, result.point.variant), []).append(result)
    return [Configuration(*key, tuple(group), _spreads(group)) for key, group in groups.items()]


def best_per_k(configurations: Iterable[Configuration]) -> dict[int, Configuration]:
    """Of each k the configuration that keeps most NDCG@10, on average over seeds; FVU decides where nothing ranks."""
    best: dict[int, Configuration] = {}
    for configuration in configurations:
        if configuration.scores and (
            configuration.k not in best or _merit(configuration) > _merit(best[configuration.k])
        ):
            best[configuration.k] = configuration
    return best


def with_result(results: Sequence[PointResult], grid: SweepGrid, added: PointResult) -> tuple[PointResult, ...]:
    """`results` with `added` in place of an older one of its point, in the grid's order."""
    by_name = {result.point.name: result for result in (*results, added)}
    return tuple(by_name[point.name] for point in grid.points() if point.name in by_name)


def _spreads(group: Sequence[PointResult]) -> dict[str, Spread]:
    done = [result for result in group if not result.failure]
    if not done:
        return {}
    names = [name for name in done[0].scores if all(name in result.scores for result in done)]
    return {name: Spread.of([result.scores[name] for result in done]) for name in names}


def _merit(configuration: Configuration) -> tuple[float, float]:
    worst = Spread(float("-inf"), 0.0, 0)
    kept, fvu = configuration.scores.get(NDCG_KEPT, worst), configuration.scores.get("sae.fvu")
    return kept.mean, -fvu.mean if fvu else float("-inf")
