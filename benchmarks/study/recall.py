"""User attributes and facets that single latents tell: a reading of the dictionary beyond genres.

Not here: genres (`probing`), what is read (`readings`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.study.readings import LEAST_ROWS, RESAMPLES, Reading, recent_shares, rounded
from recsae.concepts.cases import resampling_weights
from recsae.concepts.cluster_intervals import aucs, f1s
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.inputs import DictionaryInputs
from recsae.concepts.readouts import all_of, best_single, best_thresholds, few
from recsae.concepts.records import ConceptStatus
from recsae.concepts.recovery import asks_for
from recsae.datasets.facet_names import CROSSED, LIKE

Columns = Mapping[str, Sequence[str]]

SPARSE_K = (1, 2, 5)
_SHARE = 0.4  # of the recent items: what a facet's presence means here
_RECALLED_F1 = 0.5
_LEAST_ATTRIBUTE_SHARE = 0.05


def user_attributes(features: Reading, attributes: Columns) -> dict[str, Any]:
    """AUC of each user attribute from the mean of a user's features, by method and number of features read."""
    sides = (features.construction, features.verification)
    users = [np.unique(side.part.sample.user) for side in sides]
    weights = resampling_weights(len(users[1]), resamples=RESAMPLES)
    group = np.arange(len(users[1]))
    found: dict[str, Any] = {}
    for name, values in _attribute_columns(attributes, users).items():
        truth, positive = values[0].astype(np.float64), values[1] > 0
        found[name] = {}
        for method in ("sae", "raw"):
            means = [_user_means(side.methods[method], side.part.sample.user) for side in sides]
            readouts = {f"k{k}": few(means[0], truth, k) for k in SPARSE_K}
            readouts |= {"linear_probe": all_of(means[0], truth)} if method == "raw" else {}
            for reads, readout in readouts.items():
                auc = aucs(readout.predict(means[1]), positive, group, weights).mean(axis=0)
                found[name].setdefault(method, {})[reads] = rounded(auc)
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


def facet_recall(inputs: DictionaryInputs, features: Reading, dictionary: Dictionary | None) -> dict[str, Any]:
    """Of the facets present often enough, the share that one latent tells (F1), and that a verified label asks for."""
    single_values = np.flatnonzero(~np.isin(inputs.facets.families, ("popularity", CROSSED, LIKE)))
    sides = (features.construction, features.verification)
    every = [recent_shares(inputs, side.part, single_values) >= _SHARE for side in sides]
    kept = np.flatnonzero((np.stack([share.sum(axis=0) for share in every]) >= LEAST_ROWS).all(axis=0))
    asked, shares = single_values[kept], [share[:, kept] for share in every]
    if not len(asked):
        return {"facets": 0}
    single = best_single(features.construction.methods["sae"], shares[0].astype(np.float64))
    construction, verification = (side.methods["sae"] for side in (features.construction, features.verification))
    thresholds = best_thresholds(single.predict(construction), shares[0])
    f1 = f1s(single.predict(verification) >= thresholds, shares[1], features.group, features.weights)
    found: dict[str, Any] = {"facets": len(asked), "single_latent": rounded((f1 >= _RECALLED_F1).mean(axis=0))}
    if dictionary:
        rules = [one.rule for one in dictionary.concepts if one.status is ConceptStatus.VERIFIED]
        named = [any(asks_for(rule, inputs.facets.names[at]) for rule in rules) for at in asked.tolist()]
        found["verified_label"] = round(float(np.mean(named)), 4)
    return found
