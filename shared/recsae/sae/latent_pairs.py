"""Pairs of latents of two SAEs that fire together and point the same way, found without a table of all pairs.

Latents can only be the same when they fire on the same rows, so candidates come from a sparse product of the firings,
one block of latents at a time; directions and effects are compared for those alone. Not here: what the pairs mean
(`matching`, `lineage`, `stability`) and how one is chosen per latent (`assignment`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.errors import InvalidRequestError
from recsae.sae.alignment import Alignment
from recsae.sae.assignment import unit_rows
from recsae.sae.latents import Latents

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

# Below both of these a pair is not looked at: half of what one signal must reach to count (`matching`).
LEAST_COSINE = 0.35
LEAST_CORRELATION = 0.25
# Scratch of one block: 8 M products, about 100 MB in the sparse result when every one is there.
_BLOCK_PRODUCTS = 1 << 23
_BLOCK_FLOATS = 1 << 22
# Partners kept per latent, best correlation first: no dictionary worth matching has more that point its way.
_MOST_PARTNERS = 64


@dataclass(frozen=True)
class LatentPairs:
    """m pairs as columns of length m: `new`, `old` int64; `cosine`, `correlation`, `fingerprint` and what they share.

    `fingerprint` is the cosine of the effects on item scores, NaN where no item vectors are known. `new_shared` is the
    share of the new latent's activation that falls on rows where the old one fires too, `old_shared` the reverse.
    """

    new: Ints
    old: Ints
    cosine: Doubles
    correlation: Doubles
    fingerprint: Doubles
    new_shared: Doubles
    old_shared: Doubles

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.new)

    def take(self, which: NDArray[np.bool_] | Ints) -> LatentPairs:
        """Some of the pairs."""
        return LatentPairs(
            self.new[which], self.old[which], self.cosine[which], self.correlation[which],
            self.fingerprint[which], self.new_shared[which], self.old_shared[which],
        )  # fmt: skip

    def swapped(self) -> LatentPairs:
        """The same pairs with new and old exchanged."""
        return LatentPairs(
            self.old, self.new, self.cosine, self.correlation, self.fingerprint, self.old_shared, self.new_shared
        )

    @property
    def score(self) -> Doubles:
        """Mean of the signals there are, float64 [m] up to 1."""
        known = np.isfinite(self.fingerprint)
        total = self.cosine + self.correlation + np.where(known, self.fingerprint, 0)
        score: Doubles = np.maximum(total / (2 + known), 0)
        return score


def latent_pairs(new: Latents, old: Latents, alignment: Alignment | None = None) -> LatentPairs:
    """Every pair of latents with decoder cosine >= .35 and firing correlation >= .25, silent latents left out.

    The cosine is taken after `alignment`, when the base models differ. The firing correlation is Pearson's over values
    on all probe rows, 0 where a latent does not fire. At most 64 partners are kept per new latent, those of largest
    correlation. InvalidRequestError when the two do not share their probe rows, dimension or items.
    """
    _check(new, old, alignment)
    first, second, correlation = correlated(new, old)
    turned = new.w_dec if alignment is None else alignment.turn(new.w_dec)
    # A turned direction may lose length to dimensions that the old space lacks: that part agrees with nothing.
    lengths = np.linalg.norm(new.w_dec, axis=1, keepdims=True)
    left = np.divide(turned, lengths, out=np.zeros_like(turned), where=lengths > 0)
    cosine = _products(left, unit_rows(old.w_dec), first, second)
    near = cosine >= LEAST_COSINE
    first, second = first[near], second[near]
    return LatentPairs(
        first, second, cosine[near], correlation[near], _fingerprint(new, old, first, second),
        _shared(new.values, old.values, first, second), _shared(old.values, new.values, second, first),
    )  # fmt: skip


def _check(new: Latents, old: Latents, alignment: Alignment | None) -> None:
    if len(new.codes) != len(old.codes):
        raise InvalidRequestError(
            f"latents are matched on the same probe rows, not on {len(new.codes)} and {len(old.codes)}"
        )
    shape = (new.w_dec.shape[1], old.w_dec.shape[1])
    if alignment is None and shape[0] != shape[1]:
        raise InvalidRequestError(
            f"decoders of {shape[0]} and {shape[1]} dimensions span different spaces; give paired activations of both "
            "base models to align them"
        )
    if alignment is not None and alignment.rotation.shape != shape:
        raise InvalidRequestError(f"the alignment turns {alignment.rotation.shape}, the decoders have {shape}")
    if (new.items is None) != (old.items is None):
        raise InvalidRequestError("item vectors are known of one SAE's model only; give both or neither")
    if new.items is not None and old.items is not None and len(new.items) != len(old.items):
        raise InvalidRequestError(f"effects are compared on the same items, not {len(new.items)} and {len(old.items)}")


def correlated(new: Latents, old: Latents) -> tuple[Ints, Ints, Doubles]:
    """Pairs with firing correlation >= .25, at most 64 per new latent: new [m], old [m], correlation [m].

    Silent latents are left out. Latents that never fire together have no correlation above 0.
    """
    scaled_new, mean_new = _standardised(new)
    scaled_old, mean_old = _standardised(old)
    rows = len(new.codes)
    block = max(1, _BLOCK_PRODUCTS // max(1, old.width))
    right = scaled_old.tocsr()
    found: list[tuple[Ints, Ints, Doubles]] = []
    for at in range(0, new.width, block):
        product = (scaled_new[:, at : at + block].T @ right).tocoo()
        one, other = product.row.astype(np.int64) + at, product.col.astype(np.int64)
        value = product.data - rows * mean_new[one] * mean_old[other]
        kept = value >= LEAST_CORRELATION
        found.append(_strongest(one[kept], other[kept], value[kept]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    one, other, value = (np.concatenate(column) for column in zip(*found, strict=True))
    return one, other, np.minimum(value, 1.0)


def _standardised(latents: Latents) -> tuple[sparse.csc_matrix, Doubles]:
    """Values over sqrt(n) times their deviation, and the mean of that: products then give correlations directly."""
    values, rows = latents.values, max(1, len(latents.codes))
    mean = np.asarray(values.sum(axis=0)).ravel() / rows
    square = np.asarray(values.multiply(values).sum(axis=0)).ravel() / rows
    spread = np.sqrt(np.maximum(square - mean**2, 0) * rows)
    judged = ~latents.silent & (spread > 0)
    factor = np.divide(1.0, spread, out=np.zeros_like(spread), where=judged)
    scaled = (values @ sparse.diags_array(factor)).tocsc()
    scaled.eliminate_zeros()
    return scaled, mean * factor


def _strongest(one: Ints, other: Ints, value: Doubles) -> tuple[Ints, Ints, Doubles]:
    order = np.lexsort((-value, one))
    one, other, value = one[order], other[order], value[order]
    rank = np.arange(len(one)) - np.searchsorted(one, one, side="left")
    kept = rank < _MOST_PARTNERS
    return one[kept], other[kept], value[kept]


def _products(left: Floats, right: Floats, first: Ints, second: Ints) -> Doubles:
    """left[first] . right[second] row by row, in blocks."""
    out = np.zeros(len(first))
    block = max(1, _BLOCK_FLOATS // max(1, left.shape[1]))
    for at in range(0, len(first), block):
        part = slice(at, at + block)
        out[part] = np.einsum("md,md->m", left[first[part]], right[second[part]])
    return out


def _fingerprint(new: Latents, old: Latents, first: Ints, second: Ints) -> Doubles:
    """Cosine of W_dec . (E_i - mean E) over items i, from Gram matrices: effects on all items are never stored."""
    if new.items is None or old.items is None:
        return np.full(len(first), np.nan)
    centred_new, centred_old = (
        items.astype(np.float64) - items.mean(axis=0, dtype=np.float64) for items in (new.items, old.items)
    )
    across = new.w_dec @ (centred_new.T @ centred_old)
    product = _products(across, old.w_dec.astype(np.float64), first, second)
    length = _lengths(new.w_dec, centred_new)[first] * _lengths(old.w_dec, centred_old)[second]
    return np.divide(product, length, out=np.zeros_like(product), where=length > 0)


def _lengths(w_dec: Floats, centred: Doubles) -> Doubles:
    squares = np.einsum("wd,wd->w", w_dec @ (centred.T @ centred), w_dec)
    lengths: Doubles = np.sqrt(np.maximum(squares, 0))
    return lengths


def _shared(mine: sparse.csc_matrix, theirs: sparse.csc_matrix, first: Ints, second: Ints) -> Doubles:
    """Share of the activation of `mine` [n, w] on rows where its partner fires, per pair [m]; columns in blocks."""
    out = np.zeros(len(first))
    fires = theirs.astype(bool).astype(np.float32)
    copied = np.diff(mine.indptr)[first].astype(np.int64) + np.diff(theirs.indptr)[second]
    bounds = np.searchsorted(np.cumsum(copied), np.arange(0, copied.sum() + 1, _BLOCK_FLOATS))
    for begin, end in zip(bounds, [*bounds[1:], len(first)], strict=True):
        both = mine[:, first[begin:end]].multiply(fires[:, second[begin:end]])
        out[begin:end] = np.asarray(both.sum(axis=0)).ravel()
    total = np.asarray(mine.sum(axis=0)).ravel()
    shared: Doubles = out / total[first]
    return shared
