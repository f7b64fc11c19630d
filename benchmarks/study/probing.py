"""Genres and user attributes in single latents: correlation, k-sparse probing and facet recall, beside their baselines.

Everything is chosen and fitted on construction users and scored on verification users; intervals resample users.
Baselines: the linear probe (every coordinate), single coordinates ("raw"), data points as directions with the SAE's own
k ("data_points") and without ("data_points_dense"), an SAE on an untrained network.
Not here: how few or all features are read (`recsae.concepts.readouts`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.study.material import Material
from benchmarks.study.readings import DATA_POINTS, Reading, read, rounded
from benchmarks.study.recall import SPARSE_K, Columns, facet_recall, user_attributes
from recsae.concepts.cluster_intervals import aucs, correlations, f1s
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.inputs import DictionaryInputs
from recsae.concepts.readouts import Readout, all_of, best_single, best_thresholds, few

Doubles = NDArray[np.float64]

_AUC_RESAMPLES = 50


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
    features = read(inputs, k)
    control = read(untrained, k, only_latents=True) if untrained else None
    found: dict[str, Any] = {"properties": len(features.properties)}
    found["genre_corr"] = {
        asked: _genre_correlations(features, control, asked) for asked in ("recent", "newest", "next")
    }
    found["genre_corr"]["on_construction"] = _on_construction(features, "recent")
    found["k_sparse"] = _k_sparse(features, "newest")
    if users := user_attributes(features, attributes):
        found["user_attributes"] = users
    found["facet_recall"] = facet_recall(inputs, features, dictionary)
    return found


def _genre_correlations(features: Reading, control: Reading | None, asked: str) -> dict[str, Any]:
    """Mean over properties of the correlation on verification users, by method, with paired differences."""
    resampled = {
        name: _mean_correlation(features, name, asked, best_single(side, features.construction.targets[asked]))
        for name, side in features.construction.methods.items()
    }
    draws = [resampled.pop(name) for name in DATA_POINTS if name in resampled]
    if draws:
        resampled["data_points"] = np.mean(draws, axis=0)
    probe = all_of(features.construction.methods["raw"], features.construction.targets[asked])
    resampled["linear_probe"] = _mean_correlation(features, "raw", asked, probe)
    if control:
        single = best_single(control.construction.methods["sae"], control.construction.targets[asked])
        resampled["untrained"] = _mean_correlation(control, "sae", asked, single)
    sae = resampled["sae"]
    found: dict[str, Any] = {name: rounded(values) for name, values in resampled.items()}
    found["sae_over_linear_probe"] = rounded(sae / np.maximum(resampled["linear_probe"], 1e-9))
    for other in ("raw", "data_points", "data_points_dense", "untrained"):
        if other in resampled and len(resampled[other]) == len(sae):
            found[f"sae_minus_{other}"] = rounded(sae - resampled[other])
    return found


def _on_construction(features: Reading, asked: str) -> dict[str, float]:
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


def _mean_correlation(features: Reading, method: str, asked: str, readout: Readout) -> Doubles:
    predicted = readout.predict(features.verification.methods[method])
    found = correlations(predicted, features.verification.targets[asked], features.group, features.weights)
    mean: Doubles = found.mean(axis=0)
    return mean


def _k_sparse(features: Reading, asked: str) -> dict[str, Any]:
    """Mean F1 and AUC over properties by method and number of features read; the linear probe reads all.

    F1 is at the natural mix, its threshold the best on construction users. AUC asks for an order of all rows, which a
    latent that is silent on most of them does not give.
    """
    truth = features.construction.targets[asked]
    found: dict[str, Any] = {}
    for name in ("sae", "raw", "data_points"):
        for k in SPARSE_K:
            readout = few(features.construction.methods[name], truth, k)
            found.setdefault(name, {})[f"k{k}"] = _classified(features, name, asked, readout)
    probe = all_of(features.construction.methods["raw"], truth)
    return found | {"linear_probe": _classified(features, "raw", asked, probe)}


def _classified(features: Reading, method: str, asked: str, readout: Readout) -> dict[str, Any]:
    before, after = features.construction, features.verification
    thresholds = best_thresholds(readout.predict(before.methods[method]), before.targets[asked] > 0)
    predicted, positive = readout.predict(after.methods[method]), after.targets[asked] > 0
    f1 = f1s(predicted >= thresholds, positive, features.group, features.weights)
    auc = aucs(predicted, positive, features.group, features.weights[:, : 1 + _AUC_RESAMPLES])
    return {"f1": rounded(f1.mean(axis=0)), "auc": rounded(auc.mean(axis=0))}
