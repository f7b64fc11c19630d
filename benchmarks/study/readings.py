"""What probing reads: features of construction and verification rows by method, and what is asked of every row.

Not here: fitting and scoring (`probing`, `recall`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.cases import group_users, resampling_weights
from recsae.concepts.cluster_intervals import estimate
from recsae.concepts.features import RECENCY_DECAY, RECENT_ITEMS, RowFeatures
from recsae.concepts.inputs import DictionaryInputs, PartRows, read_part
from recsae.concepts.readouts import as_features, sparse_projection
from recsae.concepts.sampling import sample_rows
from recsae.concepts.splits import UserPart
from recsae.datasets.facets import FacetTable

Doubles = NDArray[np.float64]

RESAMPLES = 200
# A property must be there, and not there, on this many rows of both parts.
LEAST_ROWS = 100
# Which data points are drawn moves the mean correlation by some .02: three draws are averaged.
DATA_POINTS = ("data_points", "data_points_2", "data_points_3")
_PROPERTY_FAMILIES = ("genre", "category")
_MOST_PROPERTIES = 40
_MOST_ROWS = 50_000


@dataclass(frozen=True)
class Side:
    """Rows of one part: features by method and properties by what is asked, all of the same rows."""

    part: PartRows
    methods: dict[str, Any]
    targets: dict[str, Doubles]


@dataclass(frozen=True)
class Reading:
    """Both parts, and how verification users are resampled."""

    construction: Side
    verification: Side
    properties: tuple[str, ...]
    group: NDArray[np.int64]
    weights: NDArray[np.float32]


def read(inputs: DictionaryInputs, k: int, *, only_latents: bool = False) -> Reading:
    """Both parts, at most 50,000 rows of each; baselines code data points with `k` of them per row.

    `only_latents` leaves the baselines out. Coordinates along every data point are dense: rows x width float32.
    """
    inputs = replace(inputs, rows_per_part=min(inputs.rows_per_part, _MOST_ROWS))
    parts = [read_part(inputs, part) for part in (UserPart.CONSTRUCTION, UserPart.VERIFICATION)]
    columns = _properties(inputs, parts)
    sides = [
        Side(part, {"sae": as_features(part.firings.by_latent)}, _targets(inputs, part, columns)) for part in parts
    ]
    if not only_latents:
        drawn = [_data_points(inputs, inputs.seed + number) for number in range(len(DATA_POINTS))]
        centre = parts[0].sample.x.mean(axis=0)
        for side in sides:
            x = side.part.sample.x
            side.methods["raw"] = x
            side.methods["data_points_dense"] = (x - centre) @ drawn[0].T
            for name, directions in zip(DATA_POINTS, drawn, strict=True):
                side.methods[name] = sparse_projection(x, centre, directions, k)
    group = group_users(parts[1].sample.user, inputs.seed)
    weights = resampling_weights(int(group.max()) + 1, resamples=RESAMPLES, seed=inputs.seed)
    return Reading(sides[0], sides[1], tuple(inputs.facets.names[at] for at in columns), group, weights)


def _properties(inputs: DictionaryInputs, parts: list[PartRows]) -> NDArray[np.int64]:
    """Genres, or categories, on enough newest items of both parts; the 40 most frequent where there are more."""
    families = np.array(inputs.facets.families)
    family = next((name for name in _PROPERTY_FAMILIES if name in families), families[0] if len(families) else "")
    carried = [inputs.facets.matrix[part.features.newest[:, 0]] for part in parts]
    counts = np.stack([np.asarray(each.sum(axis=0)).ravel() for each in carried])
    sizes = np.array([[len(part.features)] for part in parts])
    enough = ((counts >= LEAST_ROWS) & (sizes - counts >= LEAST_ROWS)).all(axis=0)
    fit = np.flatnonzero((families == family) & enough)
    return np.sort(fit[np.argsort(-counts[0, fit], kind="stable")[:_MOST_PROPERTIES]])


def _targets(inputs: DictionaryInputs, part: PartRows, columns: NDArray[np.int64]) -> dict[str, Doubles]:
    """Recency-weighted share among the last ten items; on the newest item; on the one that follows (0 for the last)."""
    facets = inputs.facets.matrix[:, columns]
    histories = inputs.histories
    follows = part.windows.end < histories.offsets[part.sample.user.astype(np.int64) + 1]
    following = np.where(follows, histories.items[np.minimum(part.windows.end, len(histories.items) - 1)], 0)
    return {
        "recent": recent_shares(inputs, part, columns).astype(np.float64),
        "newest": facets[part.features.newest[:, 0]].toarray().astype(np.float64),
        "next": facets[following].toarray().astype(np.float64),
    }


def recent_shares(inputs: DictionaryInputs, part: PartRows, columns: NDArray[np.int64]) -> NDArray[np.float32]:
    """Recency-weighted share of some facets among the newest ten items of each row, float32 [n, len(columns)]."""
    names = tuple(inputs.facets.names[at] for at in columns)
    families = tuple(inputs.facets.families[at] for at in columns)
    asked = FacetTable(names, families, inputs.facets.matrix[:, columns].tocsr())
    return RowFeatures(part.windows, asked, inputs.log_counts).shares(RECENT_ITEMS, RECENCY_DECAY)


def _data_points(inputs: DictionaryInputs, seed: int) -> NDArray[np.float32]:
    """As many unit directions as there are latents: activations of SAE users, drawn evenly, about their mean."""
    sample = sample_rows(inputs.shards, inputs.parts == UserPart.SAE, cap=inputs.sae.width, seed=seed)
    centred = sample.x - sample.x.mean(axis=0)
    directions: NDArray[np.float32] = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return directions


def rounded(resampled: Doubles) -> dict[str, Any]:
    """Value and 95 % interval of float64 [1 + resamples], for JSON."""
    found = estimate(resampled)
    return {"value": round(found.value, 4), "ci": [round(found.low, 4), round(found.high, 4)]}
