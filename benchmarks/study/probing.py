"""Genres and user attributes in single latents: correlation, k-sparse probing and facet recall, beside their baselines.

Everything is chosen and fitted on construction users and scored on verification users; intervals resample users.
Baselines: the linear probe (every coordinate), single coordinates ("raw"), data points as directions with the SAE's own
k ("data_points") and without ("data_points_dense"), an SAE on an untrained network.
Not here: how few or all features are read (`recsae.concepts.readouts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.study.material import Material
from recsae.concepts.cases import group_users, resampling_weights
from recsae.concepts.cluster_intervals import aucs, correlations, estimate, f1s
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.inputs import DictionaryInputs, PartRows, read_part
from recsae.concepts.readouts import Readout, all_of, as_features, best_single, best_thresholds, few, sparse_projection
from recsae.concepts.records import ConceptStatus
from recsae.concepts.recovery import asks_for
from recsae.concepts.sampling import sample_rows
from recsae.concepts.splits import UserPart

Doubles = NDArray[np.float64]
Columns = Mapping[str, Sequence[str]]

_PROPERTY_FAMILIES = ("genre", "category")
_RESAMPLES, _AUC_RESAMPLES = 200, 50
_SPARSE_K = (1, 2, 5)
# A property must be there, and not there, on this many rows of both parts.
_LEAST_ROWS = 100
_SHARE = 0.4  # of the recent items: what a facet's presence means in facet recall
_RECALLED_F1 = 0.5
_LEAST_ATTRIBUTE_SHARE = 0.05


def probing_study(material: Material, untrained: Material | None = None) -> dict[str, Any]:
    """All of it for one base model; `untrained` is the same network as initialised with an SAE of the same settings."""
    return probing(
        material.inputs,
        material.dataset.users.columns,
        k=material.sae.k,
        dictionary=material.dictionary,
        untrained=untrained.inputs if untrained else None,
    )


def probing(
    inputs: DictionaryInputs,
    attributes: Columns,
    *,
    k: int,
    dictionary: Dictionary | None = None,
    untrained: DictionaryInputs | None = None,
) -> dict[str, Any]:
    """`genre_corr` by what is asked of a row, `k_sparse`, `user_attributes` (where there are any), `facet_recall`."""
    features = _read(inputs, k)
    control = _read(untrained, k, only_latents=True) if untrained else None
    found: dict[str, Any] = {"properties": len(features.properties)}
    found["genre_corr"] = {
        asked: _genre_correlations(features, control, asked) for asked in ("recent", "newest", "next")
    }
    found["genre_corr"]["on_construction"] = _on_construction(features, "recent")
    found["k_sparse"] = _k_sparse(features, "newest")
    if users := _user_attributes(features, attributes):
        found["user_attributes"] = users
    found["facet_recall"] = _facet_recall(inputs, features, dictionary)
    return found


@dataclass(frozen=True)
class _Side:
    """Rows of one part: features by method and properties by what is asked, all of the same rows."""

    part: PartRows
    methods: dict[str, Any]
    targets: dict[str, Doubles]


@dataclass(frozen=True)
class _Features:
    """Both parts, and how verification users are resampled."""

    construction: _Side
    verification: _Side
    properties: tuple[str, ...]
    group: NDArray[np.int64]
    weights: NDArray[np.float32]


def _read(inputs: DictionaryInputs, k: int, *, only_latents: bool = False) -> _Features:
    parts = [read_part(inputs, part) for part in (UserPart.CONSTRUCTION, UserPart.VERIFICATION)]
    columns = _properties(inputs, parts)
    sides = [
        _Side(part, {"sae": as_features(part.firings.by_latent)}, _targets(inputs, part, columns)) for part in parts
    ]
    if not only_latents:
        directions = _data_points(inputs)
        centre = parts[0].sample.x.mean(axis=0)
        for side in sides:
            x = side.part.sample.x
            side.methods["raw"] = x
            side.methods["data_points"] = sparse_projection(x, centre, directions, k)
            side.methods["data_points_dense"] = (x - centre) @ directions.T
    group = group_users(parts[1].sample.user, inputs.seed)
    weights = resampling_weights(int(group.max()) + 1, resamples=_RESAMPLES, seed=inputs.seed)
    return _Features(sides[0], sides[1], tuple(inputs.facets.names[at] for at in columns), group, weights)


def _properties(inputs: DictionaryInputs, parts: list[PartRows]) -> NDArray[np.int64]:
    """Genres, or categories, that are on enough newest items of both parts."""
    families = np.array(inputs.facets.families)
    family = next((name for name in _PROPERTY_FAMILIES if name in families), families[0] if len(families) else "")
    counts = np.stack([np.asarray(part.features.last.sum(axis=0)).ravel() for part in parts])
    sizes = np.array([[len(part.features)] for part in parts])
    enough = ((counts >= _LEAST_ROWS) & (sizes - counts >= _LEAST_ROWS)).all(axis=0)
    return np.flatnonzero((families == family) & enough)


def _targets(inputs: DictionaryInputs, part: PartRows, columns: NDArray[np.int64]) -> dict[str, Doubles]:
    """Recency-weighted share among the last ten items; on the newest item; on the one that follows (0 for the last)."""
    facets = inputs.facets.matrix[:, columns]
    histories = inputs.histories
    follows = part.windows.end < histories.offsets[part.sample.user.astype(np.int64) + 1]
    following = np.where(follows, histories.items[np.minimum(part.windows.end, len(histories.items) - 1)], 0)
    return {
        "recent": part.features.recent[:, columns].astype(np.float64),
        "newest": facets[part.features.newest[:, 0]].toarray().astype(np.float64),
        "next": facets[following].toarray().astype(np.float64),
    }


def _data_points(inputs: DictionaryInputs) -> NDArray[np.float32]:
    """As many unit directions as there are latents: activations of SAE users, drawn evenly, about their mean."""
    sample = sample_rows(inputs.shards, inputs.parts == UserPart.SAE, cap=inputs.sae.width, seed=inputs.seed)
    centred = sample.x - sample.x.mean(axis=0)
    directions: NDArray[np.float32] = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return directions


def _genre_correlations(features: _Features, control: _Features | None, asked: str) -> dict[str, Any]:
    """Mean over properties of the correlation on verification users, by method, with paired differences."""
    resampled = {
        name: _mean_correlation(features, name, asked, best_single(side, features.construction.targets[asked]))
        for name, side in features.construction.methods.items()
    }
    probe = all_of(features.construction.methods["raw"], features.construction.targets[asked])
    resampled["linear_probe"] = _mean_correlation(features, "raw", asked, probe)
    if control:
        single = best_single(control.construction.methods["sae"], control.construction.targets[asked])
        resampled["untrained"] = _mean_correlation(control, "sae", asked, single)
    sae = resampled["sae"]
    found: dict[str, Any] = {name: _rounded(values) for name, values in resampled.items()}
    found["sae_over_linear_probe"] = _rounded(sae / np.maximum(resampled["linear_probe"], 1e-9))
    for other in ("raw", "data_points", "data_points_dense", "untrained"):
        if other in resampled and len(resampled[other]) == len(sae):
            found[f"sae_minus_{other}"] = _rounded(sae - resampled[other])
    return found


def _on_construction(features: _Features, asked: str) -> dict[str, float]:
    """What the choice between SAEs goes by: no verification user is read."""
    side = features.construction
    readouts = {"sae": best_single(side.methods["sae"], side.targets[asked])}
    readouts["raw"] = all_of(side.methods["raw"], side.targets[asked])
    alone = np.zeros(len(side.part.features), np.int64)
    once = np.ones((1, 1), np.float32)
    found = {
        name: float(correlations(readout.predict(side.methods[name]), side.targets[asked], alone, once).mean())
        for name, readout in readouts.items()
    }
    return {"sae": round(found["sae"], 4), "linear_probe": round(found["raw"], 4)}


def _mean_correlation(features: _Features, method: str, asked: str, readout: Readout) -> Doubles:
    predicted = readout.predict(features.verification.methods[method])
    found = correlations(predicted, features.verification.targets[asked], features.group, features.weights)
    mean: Doubles = found.mean(axis=0)
    return mean


def _k_sparse(features: _Features, asked: str) -> dict[str, Any]:
    """Mean F1 and AUC over properties by method and number of features read; the linear probe reads all.

    F1 is at the natural mix, its threshold the best on construction users. AUC asks for an order of all rows, which a
    latent that is silent on most of them does not give.
    """
    truth = features.construction.targets[asked]
    found: dict[str, Any] = {}
    for name in ("sae", "raw", "data_points"):
        for k in _SPARSE_K:
            readout = few(features.construction.methods[name], truth, k)
            found.setdefault(name, {})[f"k{k}"] = _classified(features, name, asked, readout)
    probe = all_of(features.construction.methods["raw"], truth)
    return found | {"linear_probe": _classified(features, "raw", asked, probe)}


def _classified(features: _Features, method: str, asked: str, readout: Readout) -> dict[str, Any]:
    before, after = features.construction, features.verification
    thresholds = best_thresholds(readout.predict(before.methods[method]), before.targets[asked] > 0)
    predicted, positive = readout.predict(after.methods[method]), after.targets[asked] > 0
    f1 = f1s(predicted >= thresholds, positive, features.group, features.weights)
    auc = aucs(predicted, positive, features.group, features.weights[:, : 1 + _AUC_RESAMPLES])
    return {"f1": _rounded(f1.mean(axis=0)), "auc": _rounded(auc.mean(axis=0))}


def _user_attributes(features: _Features, attributes: Columns) -> dict[str, Any]:
    """AUC of each user attribute from the mean of a user's features, by method and number of features read."""
    sides = (features.construction, features.verification)
    users = [np.unique(side.part.sample.user) for side in sides]
    weights = resampling_weights(len(users[1]), resamples=_RESAMPLES)
    group = np.arange(len(users[1]))
    found: dict[str, Any] = {}
    for name, values in _attribute_columns(attributes, users).items():
        truth, positive = values[0].astype(np.float64), values[1] > 0
        found[name] = {}
        for method in ("sae", "raw"):
            means = [_user_means(side.methods[method], side.part.sample.user) for side in sides]
            readouts = {f"k{k}": few(means[0], truth, k) for k in _SPARSE_K}
            readouts |= {"linear_probe": all_of(means[0], truth)} if method == "raw" else {}
            for reads, readout in readouts.items():
                auc = aucs(readout.predict(means[1]), positive, group, weights).mean(axis=0)
                found[name].setdefault(method, {})[reads] = _rounded(auc)
    return found


def _attribute_columns(attributes: Columns, users: list[NDArray[np.int32]]) -> dict[str, list[NDArray[np.bool_]]]:
    """Per attribute, for the users of each part, a column 0/1 per value; one of two values says both."""
    found = {}
    for name, cells in attributes.items():
        values, counts = np.unique([cell for cell in cells if cell], return_counts=True)
        common = values[counts >= _LEAST_ATTRIBUTE_SHARE * len(cells)]
        if 2 <= len(common) <= 10:
            asked = common[:1] if len(common) == 2 else common
            column = np.array(cells)
            found[name] = [column[part][:, None] == asked[None, :] for part in users]
    return found


def _user_means(features: Any, user: NDArray[np.int32]) -> NDArray[np.float32]:
    _, dense, counts = np.unique(user, return_inverse=True, return_counts=True)
    share = (1.0 / counts[dense]).astype(np.float32)
    average = sparse.csr_matrix((share, (dense, np.arange(len(user)))), shape=(len(counts), len(user)))
    means = average @ features
    return np.asarray(means.toarray() if sparse.issparse(means) else means, np.float32)


def _facet_recall(inputs: DictionaryInputs, features: _Features, dictionary: Dictionary | None) -> dict[str, Any]:
    """Of the facets present often enough, the share that one latent tells (F1), and that a verified label asks for."""
    shares = [side.part.features.recent >= _SHARE for side in (features.construction, features.verification)]
    counts = np.stack([share.sum(axis=0) for share in shares])
    asked = np.flatnonzero((counts >= _LEAST_ROWS).all(axis=0) & (np.array(inputs.facets.families) != "popularity"))
    if not len(asked):
        return {"facets": 0}
    single = best_single(features.construction.methods["sae"], shares[0][:, asked].astype(np.float64))
    construction, verification = (side.methods["sae"] for side in (features.construction, features.verification))
    thresholds = best_thresholds(single.predict(construction), shares[0][:, asked])
    f1 = f1s(single.predict(verification) >= thresholds, shares[1][:, asked], features.group, features.weights)
    found: dict[str, Any] = {"facets": len(asked), "single_latent": _rounded((f1 >= _RECALLED_F1).mean(axis=0))}
    if dictionary:
        rules = [one.rule for one in dictionary.concepts if one.status is ConceptStatus.VERIFIED]
        named = [any(asks_for(rule, inputs.facets.names[at]) for rule in rules) for at in asked.tolist()]
        found["verified_label"] = round(float(np.mean(named)), 4)
    return found


def _rounded(resampled: Doubles) -> dict[str, Any]:
    found = estimate(resampled)
    return {"value": round(found.value, 4), "ci": [round(found.low, 4), round(found.high, 4)]}
