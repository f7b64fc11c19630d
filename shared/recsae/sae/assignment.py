"""One-to-one assignment of two sets of latents: each is used at most once, and what the pairs gain together is largest.

The assignment problem (Hungarian method) over admissible pairs only, on a sparse matrix, so that memory follows the
pairs and not the product of the widths. Not here: which pairs are admissible and what they gain (`latent_pairs`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

Floats = NDArray[np.float32]
_ROWS_AT_ONCE = 1024


def assign(gains: sparse.csr_matrix) -> NDArray[np.int64]:
    """For each row of `gains` [n, m] its column, int64 [n]; -1 where it gets none. Stored gains > 0 are admissible.

    The sum of gains over the pairs is the largest there is. Solved by the shortest augmenting paths of Jonker and
    Volgenant (1987). That solver wants every row assigned, so each row also has a column of its own which means
    "none": gaining 1 there and 1 + gain elsewhere changes every complete assignment by the same amount.
    """
    pairs = gains.tocoo()
    rows, columns = gains.shape
    kept = pairs.data > 0
    row = np.concatenate([pairs.row[kept], np.arange(rows)])
    column = np.concatenate([pairs.col[kept], columns + np.arange(rows)])
    value = np.concatenate([pairs.data[kept].astype(np.float64) + 1.0, np.ones(rows)])
    graph = sparse.csr_matrix((value, (row, column)), shape=(rows, columns + rows))
    found_rows, found_columns = min_weight_full_bipartite_matching(graph, maximize=True)
    result = np.full(rows, -1, np.int64)
    result[found_rows] = np.where(found_columns < columns, found_columns, -1)
    return result


def assign_directions(new: Floats, old: Floats, least: float) -> NDArray[np.int64]:
    """For each row of `new` [w, d] the row of `old` [w', d] that points its way, int64 [w]; -1 where none does.

    One to one with the largest sum of cosines over pairs of at least `least`. Rows of zeros match nothing.
    """
    unit_new, unit_old = unit_rows(new), unit_rows(old)
    blocks = []
    for at in range(0, len(new), _ROWS_AT_ONCE):
        cosine = unit_new[at : at + _ROWS_AT_ONCE] @ unit_old.T
        blocks.append(sparse.csr_matrix(np.where(cosine >= least, cosine, 0)))
    return assign(sparse.vstack(blocks, format="csr"))


def unit_rows(rows: Floats) -> Floats:
    """Rows of `rows` [n, d] at length 1, float32; rows of zeros stay zero."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit
