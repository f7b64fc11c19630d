"""Counts behind rules: on how many positives, silent rows and hard negatives a rule and every literal hold together.

All latents of a block and all literals at once, by products of matrices over blocks of rows; memory does not grow with
the rows. Not here: what is made of the counts (`objective`, `describing`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.cases import Cases, matched_weights
from recsae.concepts.literals import LiteralBank

Floats = NDArray[np.float32]

# Rows of a table of counts. Where the rule holds: true positives; rows of any firing; hard negatives; matched weight of
# firing rows; all rows; matched weight of all rows.
HITS, FIRED, HARD, FIRED_MATCHED, ROWS, ROWS_MATCHED = range(6)
COUNTS = 6
_SPARSE = 4
# Truth of all literals on a block of rows: 4,096 x 4,096 float32 = 64 MB.
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Totals:
    """What the counts are out of, per latent: float32 [m] each; `rows` is n."""

    positives: Floats
    silent: Floats
    hard: Floats
    matched: Floats
    rows: int


@dataclass(frozen=True)
class CaseBlock:
    """Cases of m latents: `entries` 4 m x n CSR (hits, fired, hard, matched weight of fired), `values` m x n CSR."""

    entries: sparse.csc_matrix
    values: sparse.csc_matrix
    weight: Floats
    stratum: NDArray[np.int32]
    totals: Totals

    @classmethod
    def of(cls, cases: Cases, values: sparse.csr_matrix, latents: NDArray[np.int64]) -> CaseBlock:
        """The block of `latents`; `values` CSR [w, n] are their raw values on the rows of the cases."""
        strong, fired, hard = cases.strong[latents], cases.fired(latents), cases.hard(latents)
        weight, silent = matched_weights(strong, fired, cases.stratum, cases.n_strata)
        owner = np.repeat(np.arange(len(latents)), np.diff(fired.indptr))
        weighed = sparse.csr_matrix(
            (weight[owner, cases.stratum[fired.indices]], fired.indices, fired.indptr), shape=fired.shape
        )
        entries = sparse.vstack([strong, fired, hard, weighed]).astype(np.float32).tocsc()
        totals = Totals(
            np.diff(strong.indptr).astype(np.float32),
            (cases.rows - np.diff(fired.indptr)).astype(np.float32),
            np.diff(hard.indptr).astype(np.float32),
            (weight * silent).sum(axis=1).astype(np.float32),
            cases.rows,
        )
        return cls(
            entries, values[latents].astype(np.float32).tocsc(), weight.astype(np.float32), cases.stratum, totals
        )

    @property
    def latents(self) -> int:
        """Number of latents, m."""
        return int(self.values.shape[0])


@dataclass(frozen=True)
class Counted:
    """Of m latents and L literals: `table` float32 [6, m, L] where rule and literal hold.

    Per cell of the rule's table of truth, `value` float32 [cells, m, L] the sum of values and `rows` [cells, m, L] the
    rows where the literal holds; `cell_value`, `cell_rows` float32 [cells, m] the same whatever the literal.
    """

    table: Floats
    value: Floats
    rows: Floats
    cell_value: Floats
    cell_rows: Floats


def count(block: CaseBlock, bank: LiteralBank, cell: NDArray[np.uint8], holds: NDArray[np.bool_]) -> Counted:
    """Counts of rules whose truth pattern is `cell` uint8 [m, n] and which hold on the patterns `holds` [m, cells]."""
    m, cells, size = block.latents, holds.shape[1], len(bank.literals)
    table = np.zeros((COUNTS, m, size), np.float32)
    value, rows = (np.zeros((cells, m, size), np.float32) for _ in range(2))
    cell_value, cell_rows = (np.zeros((cells, m), np.float32) for _ in range(2))
    for span, by_row in bank.truth.blocks(_ROWS_AT_ONCE):
        here = cell[:, span]
        entries = _where(block.entries[:, span].tocsr(), np.take_along_axis(holds, here, axis=1))
        table[:_SPARSE] += (entries @ by_row).reshape(_SPARSE, m, size)
        weight = block.weight[:, block.stratum[span]]
        table[ROWS_MATCHED] += (weight * np.take_along_axis(holds, here, axis=1)) @ by_row
        values = block.values[:, span].tocsr()
        for at in range(cells):
            inside = here == at
            part = _where(values, inside)
            value[at] += part @ by_row
            cell_value[at] += np.asarray(part.sum(axis=1)).ravel()
            cell_rows[at] += inside.sum(axis=1)
            # The last cell has what the others leave: one product less.
            rows[at] += inside.astype(np.float32) @ by_row if at < cells - 1 else by_row.sum(axis=0)
    rows[-1] -= rows[:-1].sum(axis=0)
    table[ROWS] = np.einsum("mc,cml->ml", holds.astype(np.float32), rows)
    return Counted(table, value, rows, cell_value, cell_rows)


def count_cells(block: CaseBlock, cell: NDArray[np.uint8], cells: int) -> tuple[Floats, Floats]:
    """Counts per cell of each latent's own table of truth: float32 [6, m, cells], and sums of values [m, cells]."""
    m = block.latents
    table = np.zeros((COUNTS, m, cells), np.float32)
    entries = block.entries.tocsr()
    kind, latent = np.divmod(np.repeat(np.arange(_SPARSE * m), np.diff(entries.indptr)), m)
    key = (kind * m + latent) * cells + cell[latent, entries.indices]
    table[:_SPARSE] = np.bincount(key, weights=entries.data, minlength=_SPARSE * m * cells).reshape(_SPARSE, m, cells)
    values = block.values.tocsr()
    owner = np.repeat(np.arange(m), np.diff(values.indptr))
    sums = np.bincount(owner * cells + cell[owner, values.indices], weights=values.data, minlength=m * cells)
    for at in range(cells):
        inside = cell == at
        table[ROWS, :, at] = inside.sum(axis=1)
        table[ROWS_MATCHED, :, at] = _weighed(block, inside)
    return table, sums.reshape(m, cells).astype(np.float32)


def _weighed(block: CaseBlock, inside: NDArray[np.bool_]) -> Floats:
    """Matched weight of the rows of a mask [m, n], float32 [m]."""
    strata = block.weight.shape[1]
    member = sparse.csr_matrix(
        (np.ones(len(block.stratum), np.float32), (np.arange(len(block.stratum)), block.stratum)),
        shape=(len(block.stratum), strata),
    )
    counts = np.asarray((member.T @ inside.T.astype(np.float32)).T)
    weighed: Floats = (counts * block.weight).sum(axis=1)
    return weighed


def _where(matrix: sparse.csr_matrix, mask: NDArray[np.bool_]) -> sparse.csr_matrix:
    """Entries of CSR [k m, n] on rows where the latent's mask [m, n] holds; latents repeat k times."""
    owner = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)) % len(mask)
    kept = mask[owner, matrix.indices]
    before = np.concatenate([[0], np.cumsum(kept)])
    return sparse.csr_matrix((matrix.data[kept], matrix.indices[kept], before[matrix.indptr]), shape=matrix.shape)
