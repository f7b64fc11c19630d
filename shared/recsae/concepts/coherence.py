"""How alike the items of a latent are, beside random items of like popularity and beside the items of other latents.

A latent's items are the distinct items of its evidence: one row of 0/1 per latent, so that an item counts once however
often it fired. Similarity is the cosine of unit vectors made of titles or facets; means over pairs follow from sums of
vectors, and random items of like popularity from means over deciles, so nothing is drawn and no pair is formed.
Not here: which items are a latent's (evidence), the study that compares ways to choose them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.estimates import Estimate

Doubles = NDArray[np.float64]

_WORD = re.compile(r"[^\W\d_]{3,}")
# A word on fewer titles makes no two items alike.
_LEAST_TITLES = 2
# A word that is part of the item's own brand this often is taken for a brand wherever it stands.
_BRAND_SHARE = 0.5
_RESAMPLES = 1000


@dataclass(frozen=True)
class Coherence:
    """Per latent, float64 [w], NaN where it has fewer than two distinct items.

    `intra`: mean similarity of pairs of its items; `random`: what pairs of random items of the same popularity deciles
    have on average. `inter`: mean similarity of items of two different latents.
    """

    intra: Doubles
    random: Doubles
    inter: float

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Latents with at least two distinct items, bool [w]."""
        return np.isfinite(self.intra)

    def lift(self, seed: int = 0) -> Estimate:
        """Mean intra over mean random similarity, over the latents measured; the interval resamples latents."""
        return _ratio(self.intra[self.measured], self.random[self.measured], seed)

    def over_inter(self, seed: int = 0) -> Estimate:
        """Mean intra similarity over that of items of different latents."""
        intra = self.intra[self.measured]
        return _ratio(intra, np.full(len(intra), self.inter), seed)


def coherence(members: sparse.csr_matrix, vectors: sparse.csr_matrix, deciles: NDArray[np.int32]) -> Coherence:
    """Coherence of items `members` 0/1 CSR [w, n_items + 1] by unit `vectors` CSR [n_items + 1, v].

    `deciles` [n_items + 1] from `popularity_deciles`. An item without a vector (no words) is like no other.
    """
    members = members.astype(np.float64).tocsr()
    members.data[:] = 1
    count = np.asarray(members.sum(axis=1)).ravel()
    total = (members @ vectors).tocsr()
    own = np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel()
    squares = np.asarray(total.multiply(total).sum(axis=1)).ravel() - members @ own
    pairs = count * (count - 1)
    intra = np.divide(squares, pairs, out=np.full(len(count), np.nan), where=pairs > 0)
    random = np.where(pairs > 0, _matched(members, vectors, deciles, pairs), np.nan)
    return Coherence(intra, random, _between(total, count))


def title_vectors(titles: Sequence[str], brands: Sequence[str] | None = None) -> sparse.csr_matrix:
    """Unit TF-IDF vectors of titles, CSR [n_items + 1, v]; position i is item i + 1, row 0 is empty.

    With `brands` the words of an item's own brand, and words that are mostly brands, are left out: what is alike must
    then be more than the maker.
    """
    words = [_WORD.findall(title.lower()) for title in titles]
    if brands is not None:
        words = _without_brands(words, [set(_WORD.findall(brand.lower())) for brand in brands])
    frequency = Counter(word for each in words for word in set(each))
    kept = sorted(word for word, titles_with in frequency.items() if titles_with >= _LEAST_TITLES)
    column = {word: at for at, word in enumerate(kept)}
    idf = np.log(len(titles) / np.array([frequency[word] for word in kept] or [1]))
    entries = [(row, column[word]) for row, each in enumerate(words, 1) for word in each if word in column]
    rows, columns = (np.array(side, np.int64) for side in (zip(*entries, strict=True) if entries else ((), ())))
    shape = (len(titles) + 1, max(1, len(kept)))
    counts = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
    return unit(counts @ sparse.diags(idf))


def facet_vectors(facets: sparse.csr_matrix) -> sparse.csr_matrix:
    """Unit vectors of 0/1 facets CSR [n_items + 1, F], rare facets weighing more (IDF)."""
    carried = np.asarray(facets.sum(axis=0)).ravel()
    return unit(facets @ sparse.diags(np.log(np.maximum(facets.shape[0] - 1, 1) / np.maximum(carried, 1))))


def unit(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows at length 1; empty rows stay empty."""
    length = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    return (sparse.diags(scale) @ rows).tocsr()


def members_of(latent: NDArray[np.int64], item: NDArray[np.int64], width: int, n_items: int) -> sparse.csr_matrix:
    """0/1 CSR [width, n_items + 1] of pairs (latent, item) given as coordinates; padding (item 0) is left out."""
    kept = item > 0
    pairs = np.unique(np.stack([latent[kept], item[kept]]), axis=1)
    return sparse.csr_matrix((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(width, n_items + 1))


def _matched(
    members: sparse.csr_matrix, vectors: sparse.csr_matrix, deciles: NDArray[np.int32], pairs: Doubles
) -> Doubles:
    """Expected similarity of random distinct items, one from the decile of each member."""
    real = np.flatnonzero(deciles >= 0)
    shape = (len(deciles), int(deciles.max(initial=0)) + 1)
    decile_of = sparse.csr_matrix((np.ones(len(real)), (real, deciles[real])), shape=shape)
    size = np.asarray(decile_of.sum(axis=0)).ravel()
    total = (decile_of.T @ vectors).tocsr()
    summed = (total @ total.T).toarray()
    own = np.asarray(decile_of.T @ np.asarray(vectors.multiply(vectors).sum(axis=1))).ravel()
    similar = summed / np.maximum(size[:, None] * size[None, :], 1)
    # Two different items of one decile.
    np.fill_diagonal(similar, (np.diag(summed) - own) / np.maximum(size * (size - 1), 1))
    drawn = (members @ decile_of).toarray()
    expected = np.einsum("wa,ab,wb->w", drawn, similar, drawn) - drawn @ np.diag(similar)
    matched: Doubles = np.divide(expected, pairs, out=np.zeros(len(pairs)), where=pairs > 0)
    return matched


def _between(total: sparse.csr_matrix, count: Doubles) -> float:
    """Mean similarity of an item of one latent and an item of another."""
    some = np.flatnonzero(count > 0)
    if len(some) < 2:
        return 0.0
    mean = sparse.diags(1 / count[some]) @ total[some]
    together = np.asarray(mean.sum(axis=0)).ravel()
    own = float(mean.multiply(mean).sum())
    return float((together @ together - own) / (len(some) * (len(some) - 1)))


def _ratio(above: Doubles, below: Doubles, seed: int) -> Estimate:
    if not len(above) or not below.mean() > 0:
        return Estimate()
    drawn = np.random.default_rng(seed).integers(0, len(above), (_RESAMPLES, len(above)))
    low, high = np.percentile(above[drawn].mean(axis=1) / below[drawn].mean(axis=1), (2.5, 97.5))
    return Estimate(float(above.mean() / below.mean()), float(low), float(high))


def _without_brands(words: list[list[str]], brands: list[set[str]]) -> list[list[str]]:
    seen: Counter[str] = Counter()
    own: Counter[str] = Counter()
    for each, brand in zip(words, brands, strict=True):
        # Only items with a known brand say which words are brands.
        seen.update(set(each) if brand else ())
        own.update(set(each) & brand)
    mostly_brand = {word for word, times in own.items() if times >= _BRAND_SHARE * seen[word]}
    return [
        [word for word in each if word not in brand and word not in mostly_brand]
        for each, brand in zip(words, brands, strict=True)
    ]
