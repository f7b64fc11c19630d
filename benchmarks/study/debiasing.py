"""Two worked cases of steering by concepts: less popularity in lists, less of the users' gender in activations.

Everything chosen is chosen on construction users; figures are of verification users. Beside each: what the same loss
buys without concepts. Not here: facets (`steering`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.study.frontiers import GRID
from benchmarks.study.material import Material
from benchmarks.study.steering_panels import SteeringPanels, widened
from recsae.concepts.causal.attributes import nearest_combination, probe_auc, separating_latents, without
from recsae.concepts.causal.board import Head
from recsae.concepts.causal.directions import crossing, try_directions
from recsae.concepts.causal.exposure import chance_gap, exposure, list_gap, long_tail
from recsae.concepts.causal.handles import best_combination
from recsae.concepts.causal.intervals import ratio, totals, user_draws
from recsae.concepts.causal.panel import Panel
from recsae.concepts.causal.turning import Turntable
from recsae.concepts.causal.weights import FacetObjective
from recsae.concepts.firings import encode_rows
from recsae.concepts.handles import MOST_LATENTS
from recsae.concepts.records import ConceptStatus

LOSSES = (0.01, 0.02, 0.05)
_CANDIDATES = 64
_LONGEST = 0.6  # of the mean |x|
_LONGEST_BONUS = 4.0  # score units per unit of ln(1 + count)
_ABLATED = (1, 2, 4, 8, 16)

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Lists = Callable[[float], Ints]


def debiasing_study(material: Material, seed: int = 0) -> dict[str, Any]:
    """`popularity`, and `gender` where users have one."""
    found: dict[str, Any] = {"popularity": popularity_study(material, seed)}
    if "gender" in material.dataset.users.columns:
        found["gender"] = gender_study(material, seed)
    return found


def popularity_study(material: Material, seed: int = 0) -> dict[str, Any]:
    """Long-tail share, Gini and mean ln(1 + count) of lists at losses of 1, 2 and 5 % of NDCG@10, by three methods."""
    panels = SteeringPanels.of(material)
    counts = np.bincount(material.split.train.items, minlength=panels.head.n_items + 1)
    tail = long_tail(counts)
    sets = sparse.csr_matrix(tail[:, None].astype(np.float32))
    logs = np.log1p(counts.astype(np.float32))
    both = (panels.fit, panels.size)
    x = np.concatenate([one.x for one in both])
    rare = tail[np.concatenate([one.target for one in both])]
    directions = {
        "concepts": _tail_handle(material, panels, tail, logs),
        "difference_of_means": x[rare].mean(axis=0) - x[~rare].mean(axis=0),
    }
    longest = _LONGEST * float(np.linalg.norm(panels.score.x, axis=1).mean())
    found = {
        name: _tail_frontier(panels.score, panels.head, sets, direction, longest, counts, seed)
        for name, direction in directions.items()
    }
    panel, head = widened(panels.score, panels.head, -logs)
    bonus = np.zeros(panel.x.shape[1], np.float32)
    bonus[-1] = 1
    found["reranking"] = _tail_frontier(panel, head, sets, bonus, _LONGEST_BONUS, counts, seed)
    plain = exposure(Turntable(panels.score, panels.head, sets).unsteered(), counts)
    return {"unsteered": _rounded(vars(plain)), "users": len(panels.score), **found}


def _tail_handle(material: Material, panels: SteeringPanels, tail: Bools, logs: Floats) -> Floats:
    """At most 16 of the concepts whose effects go most with popularity, weighted to raise the tail's share."""
    live = np.array([one.latent for one in material.dictionary.concepts if one.status is not ConceptStatus.DEAD])
    effects: Floats = (material.sae.w_dec[live] @ panels.head.vectors.T).astype(np.float32)
    effects[:, 0] = 0
    centred = effects[:, 1:] - effects[:, 1:].mean(axis=1, keepdims=True)
    match = centred @ (logs[1:] - logs[1:].mean()) / np.maximum(np.linalg.norm(centred, axis=1), 1e-12)
    near = np.sort(np.argsort(-np.abs(match), kind="stable")[:_CANDIDATES])
    sizing = Turntable(panels.size, panels.head, sparse.csr_matrix(tail[:, None].astype(np.float32)))
    longest = _LONGEST * float(np.linalg.norm(panels.size.x, axis=1).mean())
    objective = FacetObjective(panels.fit, panels.head, tail)
    found = best_combination(objective, material.sae.w_dec, live[near], sizing, 0, longest)
    return np.zeros(panels.size.x.shape[1], np.float32) if found is None else found.direction


def _tail_frontier(
    panel: Panel, head: Head, sets: sparse.csr_matrix, direction: Floats, longest: float, counts: Ints, seed: int
) -> dict[str, Any]:
    table = Turntable(panel, head, sets)
    unit = direction / max(float(np.linalg.norm(direction)), 1e-12)
    sizes = longest * GRID
    costs = try_directions(table, unit[None], sizes.tolist(), np.zeros(1, np.int64), seed).costs
    kept = costs.kept.value[0]
    at_loss = {}
    for loss in LOSSES:
        size = crossing(sizes, 1 - kept, loss)
        lists = Turntable(panel.moved(np.float32(size) * unit), head, sets).unsteered()
        there = try_directions(table, unit[None], [size], np.zeros(1, np.int64), seed).costs
        low, high = there.kept.interval()
        at_loss[f"{loss:.0%}"] = {
            **_rounded(vars(exposure(lists, counts))),
            "ndcg_kept": _rounded({"value": there.kept.value[0, 0], "low": low[0, 0], "high": high[0, 0]}),
            "dlogodds_tail": round(float(there.log_odds.value[0, 0]), 4),
            "size": round(size, 4),
        }
    points = [
        {"dose": round(float(size), 4), "tail_share": round(float(share), 4), "loss": round(float(1 - one), 4)}
        for size, share, one in zip(sizes, costs.share.value[0], kept, strict=True)
    ]
    return {"at_loss": at_loss, "frontier": points}


def gender_study(material: Material, seed: int = 0) -> dict[str, Any]:
    """AUC of a linear probe for gender, difference of the genders' lists, and NDCG@10 kept, for three interventions.

    "ablated": the concepts whose firing separates the genders most, taken out of everybody's activation (a policy of
    ablations; needs no attribute). "equalised": half the difference of means, made of at most 16 concepts, added to one
    gender and taken from the other (two policies on a segment). "projected": the same direction projected out, without
    concepts. A fresh probe is fitted on the changed activations each time.
    """
    panels = SteeringPanels.of(material)
    women = np.array([value == "F" for value in material.dataset.users.columns["gender"]])
    encoded = {name: encode_rows(material.sae, panel.x).by_latent for name, panel in _both(panels).items()}
    group = {name: women[panel.user] for name, panel in _both(panels).items()}
    order = separating_latents(encoded["size"], group["size"], max(_ABLATED))
    difference = panels.size.x[group["size"]].mean(axis=0) - panels.size.x[~group["size"]].mean(axis=0)
    chosen, weights = nearest_combination(difference, material.sae.w_dec, MOST_LATENTS)
    handle: Floats = (weights @ material.sae.w_dec[chosen]).astype(np.float32)
    unit = difference / np.linalg.norm(difference)

    def ablated(count: int) -> Callable[[str, Panel], Floats]:
        return lambda name, panel: without(panel.x, encoded[name], order[:count], material.sae.w_dec)

    def equalised(name: str, panel: Panel) -> Floats:
        return panel.x + np.where(group[name], -0.5, 0.5).astype(np.float32)[:, None] * handle

    def projected(name: str, panel: Panel) -> Floats:
        centre = panels.size.x.mean(axis=0)
        return panel.x - np.outer((panel.x - centre) @ unit, unit).astype(np.float32)

    changes: dict[str, Callable[[str, Panel], Floats]] = {
        "unsteered": lambda _, panel: panel.x,
        **{f"ablated_{count}": ablated(count) for count in _ABLATED},
        "equalised": equalised,
        "projected": projected,
    }
    found: dict[str, Any] = {"users": len(panels.score), "women": int(group["score"].sum())}
    for name, change in changes.items():
        found[name] = _judged(panels, group, {side: change(side, one) for side, one in _both(panels).items()}, seed)
    found["separating"] = [material.dictionary.concepts[latent].label for latent in order.tolist()]
    return found


def _both(panels: SteeringPanels) -> dict[str, Panel]:
    return {"size": panels.size, "score": panels.score}


def _judged(panels: SteeringPanels, group: dict[str, Bools], x: dict[str, Floats], seed: int) -> dict[str, Any]:
    sets = panels.facets
    before = Turntable(panels.score, panels.head, sets)
    after = Turntable(panels.score.moved(x["score"] - panels.score.x), panels.head, sets)
    lists, n_items = after.unsteered(), panels.head.n_items
    weights = user_draws(len(panels.score), seed)
    kept = ratio(totals(weights, after.base_gains()[:, None]), totals(weights, before.base_gains()[:, None]))
    low, high = kept.interval()
    return {
        "probe_auc": round(probe_auc(x["size"], group["size"], x["score"], group["score"]), 4),
        "list_gap": round(list_gap(lists, group["score"], n_items), 4),
        "chance_gap": round(chance_gap(lists, group["score"], n_items, seed), 4),
        "ndcg_kept": _rounded({"value": kept.value[0], "low": low[0], "high": high[0]}),
    }


def _rounded(values: dict[str, Any]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in values.items()}
