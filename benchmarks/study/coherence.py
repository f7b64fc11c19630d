"""How alike the distinct items of a latent are: by evidence, by promoted items, and by RecSAE's own way of choosing.

RecSAE (arXiv 2411.06112) takes for each latent the five (sequence, value) pairs of largest activation and reads the
last item of each: the same user and the same item may come up several times. It is computed here on the same rows, on
the same SAE and, as a rival, on SAEs of its own settings. Similarity: titles (TF-IDF, brand words left out where the
data name brands) and metadata. All latents with two distinct items count, whatever their label says.
Not here: what evidence is (`recsae.concepts.evidence`), the means (`recsae.concepts.coherence`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.study.material import Material
from recsae.concepts.coherence import Coherence, coherence, facet_vectors, members_of, title_vectors
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.estimates import Estimate
from recsae.concepts.evidence_draws import rank_in_group
from recsae.concepts.firings import Firings, encode_rows
from recsae.concepts.inputs import DictionaryInputs, PartRows, read_part
from recsae.concepts.records import ConceptStatus
from recsae.concepts.splits import UserPart
from recsae.datasets.facet_names import CROSSED, LIKE
from recsae.sae.runtime import SparseAutoencoder

PUBLIC_LIFT = 1.68
_PAIRS = 5
_RESAMPLES = 1000
_DOMINATED = 0.5


def coherence_study(material: Material, rivals: Mapping[str, SparseAutoencoder] | None = None) -> dict[str, Any]:
    """Coherence by titles and metadata, effective number of items; `rivals` are SAEs on the same activations."""
    brands = material.dataset.items.columns.get("brand")
    return coherence_of(material.inputs, material.dictionary, brands, rivals)


def coherence_of(
    inputs: DictionaryInputs,
    dictionary: Dictionary,
    brands: tuple[str, ...] | None = None,
    rivals: Mapping[str, SparseAutoencoder] | None = None,
) -> dict[str, Any]:
    """`title` and `metadata` (lift by way of choosing items), `effective_items`, `recsae_evidence` (repetitions)."""
    part = read_part(inputs, UserPart.CONSTRUCTION)
    ways = ways_of_choosing(inputs, dictionary, part)
    competing = {
        name: top_pairs(encode_rows(sae, part.sample.x), part.features.newest[:, 0], inputs.n_items)
        for name, sae in (rivals or {}).items()
    }
    found: dict[str, Any] = {"public_lift": PUBLIC_LIFT}
    for name, vectors in _similarities(inputs, brands).items():
        found[name] = _compared(ways, competing, vectors, inputs.deciles)
    found["effective_items"] = _effective(dictionary)
    found["recsae_evidence"] = _repetitions(part)
    return found


def ways_of_choosing(inputs: DictionaryInputs, dictionary: Dictionary, part: PartRows) -> dict[str, sparse.csr_matrix]:
    """The items of every latent, 0/1 CSR [w, n_items + 1], by way of choosing them.

    Deciding items of the evidence and promoted items: all of them, and ("_matched") as many per latent as RecSAE's way
    finds distinct ones, since the best two or three of any order are more alike than the best five.
    """
    width, n_items = dictionary.width, inputs.n_items
    index = {item_id: at for at, item_id in enumerate(inputs.item_ids, 1)}
    theirs = top_pairs(part.firings, part.features.newest[:, 0], n_items)
    many = np.diff(theirs.indptr)
    ranked = {
        "evidence": [
            (concept.latent, rank, index[item.item_id])
            for concept in dictionary.concepts
            for rank, evidence in enumerate(concept.evidence)
            for item in evidence.items
            if item.deciding
        ],
        "promoted": [
            (concept.latent, rank, index[item.item_id])
            for concept in dictionary.concepts
            for rank, item in enumerate(concept.promoted[:_PAIRS])
        ],
    }
    ways = {"recsae": theirs}
    for name, entries in ranked.items():
        if entries:
            latent, rank, item = np.array(entries, np.int64).T
            few = rank < many[latent]
            ways[name] = members_of(latent, item, width, n_items)
            ways[f"{name}_matched"] = members_of(latent[few], item[few], width, n_items)
    return ways


def top_pairs(firings: Firings, newest: NDArray[np.int32], n_items: int) -> sparse.csr_matrix:
    """RecSAE's choice: the newest items of the five strongest rows of each latent, whoever's they are."""
    latent, row = _strongest(firings)
    return members_of(latent, newest[row].astype(np.int64), firings.width, n_items)


def _strongest(firings: Firings) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    latents = firings.latents().astype(np.int64)
    order = np.lexsort((-firings.by_latent.data, latents))
    order = order[rank_in_group(latents[order]) < _PAIRS]
    return latents[order], firings.by_latent.indices[order].astype(np.int64)


def _similarities(inputs: DictionaryInputs, brands: tuple[str, ...] | None) -> dict[str, sparse.csr_matrix]:
    """Titles, and metadata other than titles and popularity."""
    families = np.array(inputs.facets.families)
    metadata = np.flatnonzero(~np.isin(families, ("title", "popularity", CROSSED, LIKE)))
    found = {"title": title_vectors(inputs.titles, brands)}
    if len(metadata):
        found["metadata"] = facet_vectors(inputs.facets.matrix[:, metadata].tocsr())
    # Titles that share no telling word say nothing about anybody's choice.
    return {name: vectors for name, vectors in found.items() if vectors.count_nonzero()}


def _compared(
    ways: Mapping[str, sparse.csr_matrix],
    rivals: Mapping[str, sparse.csr_matrix],
    vectors: sparse.csr_matrix,
    deciles: NDArray[np.int32],
) -> dict[str, Any]:
    """Figures of each way, and each of ours over RecSAE's: on the same latents, and over the best of the rivals."""
    measured = {name: coherence(members, vectors, deciles) for name, members in ways.items()}
    found: dict[str, Any] = {
        name: _figures(one, ways[name])
        | ({} if name == "recsae" else {"over_recsae": _paired(one, measured["recsae"])})
        for name, one in measured.items()
    }
    competing = {name: coherence(members, vectors, deciles) for name, members in rivals.items()}
    if competing:
        best = max(competing, key=lambda name: competing[name].lift().value)
        found["rivals"] = {name: _figures(one, rivals[name]) for name, one in competing.items()} | {"best": best}
        for name in measured:
            found[name]["over_best_rival"] = _unpaired(measured[name], competing[best])
    return found


def _figures(found: Coherence, members: sparse.csr_matrix) -> dict[str, Any]:
    some = found.measured
    return {
        "lift": _rounded(found.lift()),
        "intra_over_inter": _rounded(found.over_inter()),
        "intra": round(float(found.intra[some].mean()), 4) if some.any() else 0.0,
        "random": round(float(found.random[some].mean()), 4) if some.any() else 0.0,
        "inter": round(found.inter, 4),
        "latents": int(some.sum()),
        "distinct_items": round(float(members.sum() / max(1, int((np.diff(members.indptr) > 0).sum()))), 2),
    }


def _paired(ours: Coherence, theirs: Coherence) -> dict[str, Any]:
    """Ratio of lifts over the latents both measure, which are resampled together."""
    both = np.flatnonzero(ours.measured & theirs.measured)
    return _ratio_of_lifts(ours, theirs, both, both, together=True)


def _unpaired(ours: Coherence, theirs: Coherence) -> dict[str, Any]:
    """Ratio of lifts of two SAEs, whose latents are resampled apart."""
    return _ratio_of_lifts(ours, theirs, np.flatnonzero(ours.measured), np.flatnonzero(theirs.measured), together=False)


def _ratio_of_lifts(
    ours: Coherence, theirs: Coherence, mine: NDArray[np.int64], other: NDArray[np.int64], *, together: bool
) -> dict[str, Any]:
    if not len(mine) or not theirs.intra[other].any():
        return _rounded(Estimate())
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(mine), (_RESAMPLES, len(mine)))
    also = drawn if together else rng.integers(0, len(other), (_RESAMPLES, len(other)))

    def lifts(found: Coherence, latents: NDArray[np.int64], resamples: NDArray[np.int64]) -> NDArray[np.float64]:
        every = np.concatenate([[np.nan], np.zeros(_RESAMPLES)])
        every[0] = found.intra[latents].mean() / found.random[latents].mean()
        chosen = latents[resamples]
        every[1:] = found.intra[chosen].mean(axis=1) / found.random[chosen].mean(axis=1)
        return every

    ours_drawn, theirs_drawn = lifts(ours, mine, drawn), lifts(theirs, other, also)
    # A draw of latents of which none has alike items says nothing of a ratio.
    ratio = np.divide(ours_drawn, theirs_drawn, out=np.full(1 + _RESAMPLES, np.nan), where=theirs_drawn > 0)
    low, high = np.nanpercentile(ratio[1:], (2.5, 97.5))
    return _rounded(Estimate(float(ratio[0]), float(low), float(high)))


def _effective(dictionary: Dictionary) -> dict[str, Any]:
    """Effective number of deciding items of strong firings before any de-duplication, over live latents."""
    values = np.array([one.effective_items for one in dictionary.concepts if one.status is not ConceptStatus.DEAD])
    if not len(values):
        return {"latents": 0}
    drawn = np.random.default_rng(0).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.percentile(np.median(values[drawn], axis=1), (2.5, 97.5))
    quartiles = np.percentile(values, (25, 50, 75))
    return {
        "latents": len(values),
        "median": round(float(quartiles[1]), 1),
        "ci": [round(float(low), 1), round(float(high), 1)],
        "quartiles": [round(float(quartiles[0]), 1), round(float(quartiles[2]), 1)],
        "share_below_2": round(float((values < 2).mean()), 4),
    }


def _repetitions(part: PartRows) -> dict[str, float]:
    """Of RecSAE's five rows: share of pairs of one item and of one user, and of latents mostly of one item."""
    latent, row = _strongest(part.firings)
    width = part.firings.width
    items = _counts(latent, part.features.newest[row, 0].astype(np.int64), width)
    users = _counts(latent, part.sample.user[row].astype(np.int64), width)
    full = np.asarray(items.sum(axis=1)).ravel() == _PAIRS
    if not full.any():
        return {"same_item_pairs": 0.0, "same_user_pairs": 0.0, "dominated_latents": 0.0}
    most = items.max(axis=1).toarray().ravel()
    return {
        "same_item_pairs": round(float(_repeated(items)[full].mean()), 4),
        "same_user_pairs": round(float(_repeated(users)[full].mean()), 4),
        "dominated_latents": round(float((most[full] / _PAIRS > _DOMINATED).mean()), 4),
    }


def _counts(latent: NDArray[np.int64], what: NDArray[np.int64], width: int) -> sparse.csr_matrix:
    shape = (width, int(what.max(initial=0)) + 1)
    return sparse.coo_matrix((np.ones(len(what)), (latent, what)), shape=shape).tocsr()


def _repeated(counts: sparse.csr_matrix) -> NDArray[np.float64]:
    """Share of the pairs of a latent's five rows that are the same."""
    same: NDArray[np.float64] = np.asarray(counts.multiply(counts).sum(axis=1) - counts.sum(axis=1)).ravel()
    return same / (_PAIRS * (_PAIRS - 1))


def _rounded(found: Estimate) -> dict[str, Any]:
    return {"value": round(found.value, 3), "ci": [round(found.low, 3), round(found.high, 3)]}
