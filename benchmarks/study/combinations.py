"""Whether several safe changes together cost no more than their bounds add up to, which policies take for granted.

Random pairs and quadruples of measured concepts, each at a share of its safe dose, moved at once on the whole panel:
what they cost together against the sum of their upper bounds (`recsae.steering.safety`). Not here: single concepts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.study.material import Material
from benchmarks.study.steering_panels import SteeringPanels
from recsae.concepts.causal.directions import try_directions
from recsae.concepts.causal.measuring import measure
from recsae.concepts.causal.panel import build_panel
from recsae.concepts.causal.turning import Turntable
from recsae.concepts.effects import MOST_NDCG_LOSS, MOST_OFF_TARGET, CausalRecord

_SIZES = (2, 4)


def combination_study(material: Material, draws: int = 300, seed: int = 0) -> dict[str, Any]:
    """By number of concepts: how often the point estimate of what they cost together lies within the summed bounds."""
    inputs, panels = material.inputs, SteeringPanels.of(material)
    panel = build_panel(inputs.shards, inputs.histories, material.split.test, inputs.pseudonyms, inputs.parts[:-1])
    records = measure(panel, panels.head, inputs.facets, material.sae, material.dictionary).records
    doses = {latent: _safe_dose(record) for latent, record in records.items()}
    usable = np.array([latent for latent, dose in doses.items() if dose != 0.0], np.int64)
    table = Turntable(panel, panels.head, inputs.facets.matrix)
    random, p95 = np.random.default_rng(seed), material.dictionary.arrays.p95
    found: dict[str, Any] = {"usable": len(usable), "measured": len(records), "users": len(panel)}
    for size in _SIZES:
        if len(usable) < size:
            continue
        groups = [random.choice(usable, size, replace=False).tolist() for _ in range(draws)]
        directions = [
            np.sum([doses[one] / size * float(p95[one]) * material.sae.w_dec[one] for one in group], axis=0)
            for group in groups
        ]
        costs = try_directions(table, np.array(directions, np.float32), [1.0], np.zeros(len(groups), np.int64)).costs
        spent = [[records[one].spent("add", doses[one] / size) for one in group] for group in groups]
        loss = np.array([sum(one.loss for one in each) for each in spent])
        off_target = np.array([sum(one.off_target for one in each) for each in spent])
        changed = 1 - costs.kept.value[:, 0]
        found[f"{size} concepts"] = {
            "within_summed_loss": round(float((changed <= loss).mean()), 4),
            "within_loss_limit": round(float((changed <= MOST_NDCG_LOSS).mean()), 4),
            "mean_loss": round(float(changed.mean()), 4),
            "mean_summed_bound": round(float(loss.mean()), 4),
            # Of no facet: everything that changed counts as off target, more than any record would say.
            "lists_off_target": round(float(costs.off_target.value[:, 0].mean()), 4),
            "mean_summed_off_target": round(float(off_target.mean()), 4),
            "off_target_limit": MOST_OFF_TARGET,
        }
    return found


def _safe_dose(record: CausalRecord) -> float:
    """The end of a concept's safe range that lies further from nothing added."""
    safe = record.safe_range("add")
    if safe is None or safe.empty:
        return 0.0
    return safe.high if safe.high >= -safe.low else safe.low
