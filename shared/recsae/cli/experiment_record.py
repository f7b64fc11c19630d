"""What an experiment found, in one value, and that as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recsae.steering.arms import Arm, Comparison, Place
from recsae.steering.experiment import Doubles

INTERVAL = "95 % t interval over users (paired: of their own differences; unpaired: Welch)"


@dataclass(frozen=True, eq=False)
class Experiment:
    """Comparisons of one policy's arms in `measures`, of which the first `quality` are HR and NDCG, the rest facets.

    `source` is "replay" or "log". `outside` counts who is in no arm by reason: users of a replay, exposures of a log.
    `overlaps` are means and intervals of shadow lists' overlap with what was served, by revision.
    """

    policy_id: str
    source: str
    measures: Sequence[str]
    quality: int
    arms: Mapping[Place, Arm]
    comparisons: Sequence[Comparison]
    outside: Mapping[str, int]
    notes: Sequence[str]
    overlaps: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)
    name: str = ""

    @property
    def facets(self) -> slice:
        """Where the facets are among the measures."""
        return slice(self.quality, len(self.measures))

    def adjusted(self, one: Comparison) -> Doubles:
        """P of each measure of a comparison, those of facets adjusted for how many there are."""
        return one.found.adjusted(self.facets)


def as_record(experiment: Experiment) -> dict[str, Any]:
    """For scripts: every measure of every comparison."""
    return {
        "policy": experiment.policy_id,
        "name": experiment.name,
        "source": experiment.source,
        "interval": INTERVAL,
        "arms": [
            {"arm": place.role.value, "revision": place.revision, "users": len(arm)}
            for place, arm in experiment.arms.items()
        ],
        "outside": dict(experiment.outside),
        "comparisons": [_comparison(experiment, one) for one in experiment.comparisons],
        "shadow_overlap": [
            {"revision": revision, "mean": mean, "low": low, "high": high}
            for revision, (mean, low, high) in experiment.overlaps.items()
        ],
        "notes": list(experiment.notes),
    }


def _comparison(experiment: Experiment, one: Comparison) -> dict[str, Any]:
    found, adjusted = one.found, experiment.adjusted(one)
    return {
        "comparing": one.comparing.value,
        "revision": one.revision,
        "users": [found.n_after, found.n_before],
        "measures": [
            {
                "name": name,
                "kind": "quality" if at < experiment.quality else "facet",
                "after": float(found.after[at]),
                "before": float(found.before[at]),
                "difference": float(found.value[at]),
                "low": float(found.low[at]),
                "high": float(found.high[at]),
                "p": float(found.p[at]),
                "p_adjusted": float(adjusted[at]),
                "detectable": float(found.detectable[at]),
            }
            for at, name in enumerate(experiment.measures)
        ],
    }
