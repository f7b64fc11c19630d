"""Steering by concepts on fixed facets, beside difference of means over users and direct re-ranking by tag.

Everything that is chosen or fitted, is on construction users; every figure is of verification users (one row each). A
method is a direction added to everybody; its frontier is what the facet's share gains against what NDCG@10 loses, dose
by dose. Figures "at a loss" are read off the frontier where the point estimate first loses that much, in every draw of
users for itself, so differences between methods are paired. Not here: how handles are found (`recsae.concepts.causal`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.study.frontiers import GRID, Frontier, estimate_of, frontier_of
from benchmarks.study.material import Material
from benchmarks.study.steering_panels import SteeringPanels, tagged
from recsae.concepts.causal.directions import crossing, try_directions
from recsae.concepts.causal.handles import HandleFinder, HandlePanels, promoters
from recsae.concepts.causal.nulls import random_directions
from recsae.concepts.causal.turning import Turntable
from recsae.concepts.records import ConceptStatus

FACETS = ("genre=Sci-Fi", "genre=Horror", "genre=Children's", "genre=Romance", "genre=War")
LOSSES = (0.01, 0.02, 0.05)
_HEADLINE = 0.02
# Non-inferior: the lower end of the paired difference in log-odds stays above this.
MARGIN = -0.1
_LONGEST = 0.6  # of the mean |x|
_NULLS = 60
_RETRIEVED = 50
_TAG_BONUS = 8.0  # in score units: enough to fill any list with the facet

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Steering:
    """`facets`: one dict per facet; `mean`: gains at each loss, averaged over facets, with paired intervals."""

    facets: list[dict[str, Any]]
    mean: dict[str, Any]


def steering(material: Material, facets: Sequence[str] = FACETS, seed: int = 0) -> Steering:
    """By facet the handle's figures at a loss of 2 %, all methods' at 1, 2 and 5 %, and whole frontiers.

    And the mean over facets, which share the draws of users.
    """
    panels = SteeringPanels.of(material)
    finder = HandleFinder(
        HandlePanels(panels.fit, panels.size, panels.score),
        panels.head,
        material.inputs.facets,
        material.sae.w_dec,
        material.dictionary,
    )
    known = [facet for facet in facets if facet in material.inputs.facets.names]
    tried = [_one_facet(material, panels, finder, facet, seed) for facet in known]
    return Steering([facts for facts, _ in tried], _mean([gains for _, gains in tried]))


def _one_facet(
    material: Material, panels: SteeringPanels, finder: HandleFinder, facet: str, seed: int
) -> tuple[dict[str, Any], dict[float, dict[str, Doubles]]]:
    column = material.inputs.facets.names.index(facet)
    found, lowering = finder.find(facet), finder.find(facet, raises=False)
    handle = np.zeros(panels.score.x.shape[1], np.float32) if found is None else found.direction
    single, latent = _best_latent(material, panels, facet, column)
    longest = _LONGEST * float(np.linalg.norm(panels.score.x, axis=1).mean())
    frontiers = {
        "handle": frontier_of(finder.scoring, handle, column, longest, seed),
        "single": frontier_of(finder.scoring, single, column, longest, seed),
        "difference_of_means": frontier_of(finder.scoring, _difference_of_means(panels, column), column, longest, seed),
        "tag": _tag_frontier(panels, column, seed),
    }
    size = frontiers["handle"].at(_HEADLINE)
    gains = {loss: {name: one.gains(loss) for name, one in frontiers.items()} for loss in LOSSES}
    lowered = {name: one.gains(_HEADLINE, down=True) for name, one in frontiers.items()}
    if lowering is not None:
        lowered["lowering_handle"] = frontier_of(finder.scoring, lowering.direction, column, longest, seed).gains(
            _HEADLINE
        )
    share = float(finder.scoring.sets[finder.scoring.unsteered().ravel(), column].mean())
    handle_record = [] if found is None else _members(material, found.latents, found.amounts)
    facts = {
        "facet": facet,
        **_headline(finder.scoring, handle, column, size, seed),
        **_nulls(material, finder.scoring, handle, column, size, [] if found is None else found.latents.tolist(), seed),
        "share": round(share, 4),
        "concepts": len(handle_record),
        "handle": handle_record,
        "single": {"concept": material.dictionary.concepts[latent].label, "latent": latent} if latent >= 0 else {},
        "at_loss": {f"{loss:.0%}": _compared(each) for loss, each in gains.items()},
        "suppression_at_2%": {name: estimate_of(each) for name, each in lowered.items()},
        "retrieval": _retrieval(panels, handle, column, size),
        "frontier": {name: frontier.points() for name, frontier in frontiers.items()},
    }
    return facts, gains


def _mean(gains: Sequence[Mapping[float, Mapping[str, Doubles]]]) -> dict[str, Any]:
    """Gains of each method averaged over facets, draw by draw."""
    if not gains:
        return {}
    averaged = {
        loss: {name: np.mean([facet[loss][name] for facet in gains], axis=0) for name in gains[0][loss]}
        for loss in LOSSES
    }
    return {f"{loss:.0%}": _compared(each) for loss, each in averaged.items()}


def _headline(table: Turntable, handle: Floats, column: int, size: float, seed: int) -> dict[str, float]:
    """The handle at the dose whose point estimate loses 2 % (the least reached where it never does)."""
    unit = handle / max(float(np.linalg.norm(handle)), 1e-12)
    costs = try_directions(table, unit[None], [size], np.array([column]), seed).costs
    reach = 1.959964 * float(costs.kept.error[0, 0])
    return {
        "dlogodds": round(float(costs.log_odds.value[0, 0]), 4),
        "dlogodds_low": round(float(costs.log_odds.interval()[0][0, 0]), 4),
        "loss": round(float(1 - costs.kept.value[0, 0]), 4),
        "loss_upper": round(float(1 - costs.kept.value[0, 0]) + reach, 4),
        "in_facet_loss": round(float(1 - costs.inside.value[0, 0]), 4),
        "out_of_facet_loss": round(float(1 - costs.outside.value[0, 0]), 4),
        "off_target_excess": round(float(costs.off_target.value[0, 0]), 4),
        "share_after": round(float(costs.share.value[0, 0]), 4),
        "size": round(size, 4),
    }


def _tag_frontier(panels: SteeringPanels, column: int, seed: int) -> Frontier:
    """Direct re-ranking: the same bonus on the score of every item of the facet."""
    panel, head = tagged(panels.score, panels.head, panels.facets, column)
    table = Turntable(panel, head, panels.facets)
    direction = np.zeros(panel.x.shape[1], np.float32)
    direction[-1] = 1
    return frontier_of(table, direction, column, _TAG_BONUS, seed)


def _difference_of_means(panels: SteeringPanels, column: int) -> Floats:
    """Mean activation of construction users who chose an item of the facet next, minus that of the others."""
    both = [panels.fit, panels.size]
    x = np.concatenate([panel.x for panel in both])
    chose = (
        np.asarray(panels.facets[np.concatenate([panel.target for panel in both])][:, [column]].todense()).ravel() > 0
    )
    difference: Floats = x[chose].mean(axis=0) - x[~chose].mean(axis=0)
    return difference


def _best_latent(material: Material, panels: SteeringPanels, facet: str, column: int) -> tuple[Floats, int]:
    """The concept that promotes the facet and gains most at a loss of 2 % on construction users; -1 = none does."""
    latents = promoters(material.dictionary.concepts, facet)
    if not len(latents):
        return np.zeros(panels.score.x.shape[1], np.float32), -1
    table = Turntable(panels.size, panels.head, panels.facets)
    sizes = _LONGEST * float(np.linalg.norm(panels.size.x, axis=1).mean()) * GRID[::3]
    own = np.full(len(latents), column)
    tried = try_directions(table, material.sae.w_dec[latents], sizes.tolist(), own).costs
    gains = [
        np.interp(crossing(sizes, 1 - kept, _HEADLINE), np.concatenate([[0.0], sizes]), np.concatenate([[0.0], odds]))
        for kept, odds in zip(tried.kept.value, tried.log_odds.value, strict=True)
    ]
    best = int(latents[int(np.argmax(gains))])
    return material.sae.w_dec[best], best


def _compared(gains: Mapping[str, Doubles]) -> dict[str, Any]:
    compared: dict[str, Any] = {name: estimate_of(each) for name, each in gains.items()}
    difference = gains["handle"] - gains["difference_of_means"]
    compared["handle_minus_difference_of_means"] = estimate_of(difference)
    compared["non_inferior"] = bool(np.quantile(difference[1:], 0.025) > MARGIN)
    compared["handle_minus_tag"] = estimate_of(gains["handle"] - gains["tag"])
    return compared


def _nulls(
    material: Material,
    table: Turntable,
    handle: Floats,
    column: int,
    size: float,
    members: Sequence[int],
    seed: int,
) -> dict[str, float]:
    """Where the handle's gain lies among random live latents of like density, and random directions, moved as far."""
    unit = handle / max(float(np.linalg.norm(handle)), 1e-12)
    latents = _alike(material, members, seed)
    directions = {
        "null_percentile": material.sae.w_dec[latents],
        "direction_percentile": random_directions(len(handle), seed, _NULLS),
    }
    found: dict[str, float] = {}
    for name, others in directions.items():
        every = np.concatenate([unit[None], others]).astype(np.float32)
        odds = try_directions(table, every, [size], np.full(len(every), column), seed).costs.log_odds.value[:, 0]
        found[name] = round(float((odds[1:] < odds[0]).mean()), 4)
        found[f"{name.removesuffix('_percentile')}_p95"] = round(float(np.quantile(odds[1:], 0.95)), 4)
    return found


def _alike(material: Material, members: Sequence[int], seed: int) -> NDArray[np.int64]:
    """Live latents outside the handle, drawn from the tenths of density its concepts are in."""
    live = np.array([one.latent for one in material.dictionary.concepts if one.status is not ConceptStatus.DEAD])
    density = material.dictionary.arrays.density
    edges = np.quantile(density[live], np.arange(1, 10) / 10)
    tenth = np.searchsorted(edges, density)
    others = np.array([latent for latent in live.tolist() if latent not in set(members)])
    pool = others[np.isin(tenth[others], np.unique(tenth[list(members)]))] if members else others
    return np.random.default_rng(seed).choice(pool, min(_NULLS, len(pool)), replace=False)


def _retrieval(panels: SteeringPanels, handle: Floats, column: int, size: float) -> dict[str, float]:
    """Recall of targets in the facet among the 50 first retrieved: what re-ranking by tag can never add to."""
    unit = handle / max(float(np.linalg.norm(handle)), 1e-12)
    inside = np.asarray(panels.facets[panels.score.target][:, [column]].todense()).ravel() > 0
    before, after = (_retrieved(panels, panels.score.moved(change)) for change in (0 * unit, size * unit))
    difference = after[inside].astype(float) - before[inside]
    reach = 1.959964 * float(difference.std(ddof=1)) / np.sqrt(max(1, inside.sum()))
    return {
        "users": int(inside.sum()),
        "unsteered": round(float(before[inside].mean()), 4),
        "handle": round(float(after[inside].mean()), 4),
        "difference_low": round(float(difference.mean() - reach), 4),
        "difference_high": round(float(difference.mean() + reach), 4),
    }


def _retrieved(panels: SteeringPanels, panel: Any) -> NDArray[np.bool_]:
    scores = panels.head.scores(panel.x)
    own = scores[np.arange(len(panel)), panel.target]
    scores[np.repeat(np.arange(len(panel)), np.diff(panel.offsets)), panel.consumed] = -np.inf
    return np.asarray((scores >= own[:, None]).sum(axis=1) <= _RETRIEVED)


def _members(material: Material, latents: NDArray[np.int64], amounts: Doubles) -> list[dict[str, Any]]:
    p95 = material.dictionary.arrays.p95
    return [
        {
            "concept": material.dictionary.concepts[latent].label,
            "latent": latent,
            "strength": round(float(amount / p95[latent]), 4),
        }
        for latent, amount in sorted(zip(latents.tolist(), amounts.tolist(), strict=True), key=lambda one: -abs(one[1]))
    ]


def untagged(material: Material) -> dict[str, float]:
    """How many live concepts promote items that no facet of the data stands for: a tag cannot steer by them."""
    live = [one for one in material.dictionary.concepts if one.status is not ConceptStatus.DEAD]
    bare = [one for one in live if not one.output_facets]
    return {"live": len(live), "untagged": len(bare), "share": round(len(bare) / max(1, len(live)), 4)}
