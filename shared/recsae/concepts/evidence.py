"""Evidence: the strongest firings of each latent by distinct users, and what decides them (docs/method.md, section 4).

Candidates are the strongest of all construction rows with distinct users *and* distinct newest items. Leaving out each
of the newest items in turn and embedding the rest tells which item decides; only rows with distinct deciding items are
kept. The number of embeddings is bounded, whatever the width. No loop over latents. Not here: which firings are
remembered (`evidence_sums`), words and records (`assembling`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.evidence_draws import DrawnFirings, first_of_each, first_of_runs, rank_in_group
from recsae.concepts.features import Windows
from recsae.concepts.firings import Encoder
from recsae.errors import FailedPreconditionError

# Histories of item indices and whose each is (user index int32 [B], -1 = nobody's) to activations [B, d]. What a model
# does not read of them changes nothing.
Embed = Callable[[Sequence[NDArray[np.int32]], NDArray[np.int32]], NDArray[np.float32]]

SHOWN = 5
# Newest items left out in turn, and shown.
LOOK_BACK = 8
_CANDIDATES = 8
# About 6 s at 100 us an embedding; 1,024 latents with 8 candidates of 8 items each need at most this many.
MAX_EMBEDDINGS = 65_536
_EMBED_AT_ONCE = 2048
_CHECKED_ROWS = 64
_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Candidates:
    """Firings picked as evidence, by latent, strongest first: all arrays [m]."""

    latent: NDArray[np.int64]
    row: NDArray[np.int64]
    value: NDArray[np.float32]

    def take(self, kept: NDArray[np.int64] | NDArray[np.bool_]) -> Candidates:
        """Some of them."""
        return Candidates(self.latent[kept], self.row[kept], self.value[kept])


@dataclass(frozen=True)
class Decided:
    """Evidence kept.

    `drop` float32 [m, 8] is the share of the value lost when the item at that lag is left out (NaN = not known or no
    such item), `lag` int8 [m] that of the deciding item (-1 = not known); `embeddings` is how many it took.
    `typical_lag` int64 [w] is the most frequent deciding lag over all candidates of a latent (0 where unknown).
    """

    candidates: Candidates
    drop: NDArray[np.float32]
    lag: NDArray[np.int8]
    typical_lag: NDArray[np.int64]
    embeddings: int


def of_histories(embed: Callable[[Sequence[NDArray[np.int32]]], NDArray[np.float32]]) -> Embed:
    """`Embed` of a model that reads a history alone."""
    return lambda histories, _users: embed(histories)


def strongest(pool: DrawnFirings) -> Candidates:
    """At most 8 firings per latent with distinct users and distinct newest items, strongest first.

    `pool` holds firings by latent, strongest first, repeated or not; `row` of the result counts in it. Round by round
    every latent takes its strongest firing left and gives up those of the same user or newest item.
    """
    left = np.ones(len(pool), bool)
    latents = int(pool.group.max(initial=-1)) + 1
    rounds = []
    for _ in range(_CANDIDATES):
        at = np.flatnonzero(left)
        at = at[first_of_runs(pool.group[at])]
        rounds.append(at)
        user, item = np.full(latents, -1, np.int64), np.full(latents, -1, np.int64)
        user[pool.group[at]], item[pool.group[at]] = pool.user[at], pool.item[at]
        left &= (pool.user != user[pool.group]) & (pool.item != item[pool.group])
    row = np.sort(np.concatenate(rounds))
    return Candidates(pool.group[row], row, pool.value[row])


def decide(
    candidates: Candidates,
    windows: Windows,
    width: int,
    encoder: Encoder,
    embed: Embed,
    budget: int = MAX_EMBEDDINGS,
    *,
    users: NDArray[np.int32] | None = None,
) -> Decided:
    """Leaves items out and keeps, per latent, the 5 strongest candidates with distinct deciding items.

    `embed` maps histories to activations [B, d]; `users` int32 [rows] says whose rows they are, where it matters. When
    `budget` embeddings do not reach, the strongest candidate of every latent goes first; the rest keeps its place with
    unknown drops. A budget of 0 leaves nothing out: of a history that is one item alone, that item decides.
    """
    variants = _leave_out(candidates, windows, budget)
    drop = _drops(candidates, windows, variants, encoder, embed, _owners(windows, users))
    known = ~np.isnan(drop).all(axis=1)
    lag = np.where(known, np.argmax(np.where(np.isnan(drop), -np.inf, drop), axis=1), -1).astype(np.int8)
    deciding = windows.take(candidates.row).item_at(np.maximum(lag, 0).astype(np.int64))
    votes = np.zeros((width, LOOK_BACK), np.int64)
    np.add.at(votes, (candidates.latent[known], lag[known]), 1)
    kept = first_of_each(candidates.latent, deciding)
    kept = kept[rank_in_group(candidates.latent[kept]) < SHOWN]
    return Decided(candidates.take(kept), drop[kept], lag[kept], votes.argmax(axis=1), len(variants.row))


def check_reproduced(
    x: NDArray[np.float32], windows: Windows, embed: Embed, users: NDArray[np.int32] | None = None
) -> None:
    """FailedPreconditionError unless embedding some rows' histories again, or their users, gives their activations."""
    rows = np.unique(np.linspace(0, len(x) - 1, _CHECKED_ROWS).astype(np.int64))
    again = embed(_histories(windows, rows, np.full(len(rows), -1)), _owners(windows, users)[rows])
    error = np.linalg.norm(again - x[rows], axis=1) / np.maximum(np.linalg.norm(x[rows], axis=1), 1e-12)
    if (error > _TOLERANCE).any():
        raise FailedPreconditionError(
            f"embedding {int((error > _TOLERANCE).sum())} of {len(rows)} histories again gives other activations "
            f"(largest relative error {error.max():.2g}); use the model version the activations were collected from"
        )


@dataclass(frozen=True)
class _Variants:
    """Histories with one item left out: `row`, `lag` int64 [v], sorted by row; and each distinct row's first."""

    row: NDArray[np.int64]
    lag: NDArray[np.int64]


def _leave_out(candidates: Candidates, windows: Windows, budget: int) -> _Variants:
    """One variant per distinct row and lag; rows of higher rank first, until the budget is spent."""
    order = np.argsort(rank_in_group(candidates.latent), kind="stable")
    rows = candidates.row[order]
    rows = rows[np.sort(np.unique(rows, return_index=True)[1])]
    # A history of one item has nothing left to embed; its only item decides.
    depth = np.where(windows.lengths[rows] > 1, np.minimum(windows.lengths[rows], LOOK_BACK), 0)
    rows, depth = rows[np.cumsum(depth) <= budget], depth[np.cumsum(depth) <= budget]
    row = np.repeat(rows, depth)
    lag = np.arange(len(row)) - np.repeat(np.cumsum(depth) - depth, depth)
    return _Variants(row, lag)


def _owners(windows: Windows, users: NDArray[np.int32] | None) -> NDArray[np.int32]:
    return np.full(len(windows.end), -1, np.int32) if users is None else users


def _drops(
    candidates: Candidates,
    windows: Windows,
    variants: _Variants,
    encoder: Encoder,
    embed: Embed,
    users: NDArray[np.int32],
) -> NDArray[np.float32]:
    drop = np.full((len(candidates.latent), LOOK_BACK), np.nan, np.float32)
    drop[windows.lengths[candidates.row] == 1, 0] = 1.0
    # Candidates in order of their row, so that those of a block of variants are found by a search.
    order = np.argsort(candidates.row, kind="stable")
    sorted_rows = candidates.row[order]
    for at in range(0, len(variants.row), _EMBED_AT_ONCE):
        row, lag = variants.row[at : at + _EMBED_AT_ONCE], variants.lag[at : at + _EMBED_AT_ONCE]
        codes = encoder.encode(embed(_histories(windows, row, lag), users[row]))
        first, stop = np.searchsorted(sorted_rows, row), np.searchsorted(sorted_rows, row, side="right")
        variant = np.repeat(np.arange(len(row)), stop - first)
        within = np.arange(len(variant)) - np.repeat(np.cumsum(stop - first) - (stop - first), stop - first)
        candidate = order[first[variant] + within]
        mine = codes.indices[variant] == candidates.latent[candidate][:, None]
        left = np.where(mine, np.maximum(codes.values[variant], 0), 0).sum(axis=1)
        drop[candidate, lag[variant]] = 1 - left / candidates.value[candidate]
    return drop


def _histories(windows: Windows, row: NDArray[np.int64], lag: NDArray[np.int64]) -> list[NDArray[np.int32]]:
    """The history of each row without the item `lag` places before the newest; lag -1 leaves nothing out."""
    starts, ends = windows.start[row].tolist(), windows.end[row].tolist()
    histories = []
    for start, end, left_out in zip(starts, ends, lag.tolist(), strict=True):
        whole = windows.items[start:end]
        cut = len(whole) - 1 - left_out
        histories.append(whole if left_out < 0 else np.concatenate([whole[:cut], whole[cut + 1 :]]))
    return histories
