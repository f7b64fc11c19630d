"""The intruder test of a whole dictionary, on verification users: what judgement and the study call.

Not here: trials and judges (`intruder`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.estimates import Estimate
from recsae.concepts.inputs import DictionaryInputs, PartRows
from recsae.concepts.intruder import (
    CHANCE,
    Intruder,
    draw_trials,
    families_said,
    judge_by_facets,
    judge_by_users,
    shuffled,
    user_vectors,
)
from recsae.concepts.records import ConceptRecord
from recsae.concepts.splits import UserPart


@dataclass(frozen=True)
class IntruderScores:
    """The same trials by two judges: metadata the label is silent about, and which users took the items.

    `control_facets` and `control_users`: the same judges where the four items come from four concepts.
    """

    by_facets: Intruder
    by_users: Intruder
    control_facets: Intruder
    control_users: Intruder

    def summary(self, verified: NDArray[np.bool_]) -> dict[str, Any]:
        """Over the whole dictionary and over `verified` latents [w], with the control; plain JSON, rounded.

        A judge
        that could judge nothing is absent.
        """
        found: dict[str, Any] = {"chance": CHANCE, "trials": len(self.by_facets.trials)}
        for name in ("facets", "users"):
            judge: Intruder = getattr(self, f"by_{name}")
            control: Intruder = getattr(self, f"control_{name}")
            judged = judge.counts > 0
            if not judged.any():
                continue
            found[name] = {
                "all": _rounded(judge.overall()),
                "verified": _rounded(judge.overall(verified)),
                "control": _rounded(control.overall()),
                "latents_judged": int(judged.sum()),
                "above_chance_share": round(float((judge.scores().low > CHANCE)[judged].mean()), 4),
            }
        return found

    def as_scores(self) -> dict[str, NDArray[np.float64]]:
        """For records, float64 [w] by name; NaN where a latent had no trial that could be judged."""
        found: dict[str, NDArray[np.float64]] = {}
        for name, judge in (("intruder", self.by_facets), ("intruder_users", self.by_users)):
            scores, counts = judge.scores(), judge.counts
            for suffix, values in (("", scores.value), ("_low", scores.low)):
                found[f"{name}{suffix}"] = np.where(counts > 0, values, np.nan)
            found[f"{name}_trials"] = np.where(counts > 0, counts.astype(np.float64), np.nan)
        return found


def intruder_scores(
    inputs: DictionaryInputs,
    part: PartRows,
    p95: NDArray[np.float32],
    typical_lag: NDArray[np.int64],
    concepts: Sequence[ConceptRecord],
) -> IntruderScores:
    """Tests all latents on the rows of `part` (verification users); `concepts` hold the labels as shown.

    A firing's deciding item stands where it most often stands in the latent's evidence, `typical_lag` [w]. Who took
    what is read from the users the SAE was trained on. About 10 s at 512 latents, 50,000 rows and 600,000 interactions.
    """
    strong = part.firings.strong(p95)
    latent = np.repeat(np.arange(part.firings.width), np.diff(strong.indptr))
    items = part.windows.take(strong.indices.astype(np.int64)).item_at(typical_lag[latent]).astype(np.int64)
    all_latents = part.firings.latents()
    values = part.firings.by_latent.data
    values = values[values >= 0.5 * p95[all_latents]].astype(np.float64)
    trials = draw_trials(strong, values, part.sample.user.astype(np.int64), items, inputs.deciles, inputs.seed)
    takers = user_vectors(inputs.histories, inputs.parts[:-1] == UserPart.SAE, inputs.n_items)
    said, control = families_said(concepts, inputs.facets), shuffled(trials, inputs.seed)
    return IntruderScores(
        by_facets=judge_by_facets(trials, inputs.facets, said),
        by_users=judge_by_users(trials, takers, said),
        control_facets=judge_by_facets(control, inputs.facets, said),
        control_users=judge_by_users(control, takers, said),
    )


def _rounded(found: Estimate) -> dict[str, Any]:
    return {"value": round(found.value, 4), "ci": [round(found.low, 4), round(found.high, 4)]}
