"""What reconstruction costs a ranker of pairs: every candidate of a user is a row of its own, over the whole catalogue.

A user's ranking takes as many activations as there are items, so fewer users are ranked than of other models: a bounded
number of pairs, worked off in batches whose sums by user add up. Not here: quality from places (`recsae.sae.fidelity`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.pipeline.sources import Floats, ItemSource, SourceModel, Tensors
from recsae.pipeline.stages.ranking import Following, following_items, row_subjects
from recsae.pipeline.stages.run_data import Part, RunData
from recsae.pipeline.stages.target_lists import LIST_LENGTH, TargetLists
from recsae.sae.baselines import PrincipalAxes
from recsae.sae.fidelity import components, fidelity_of, ranking_sums, reconstructions
from recsae.sae.rankings import Rankings
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.user_sums import UserSums

# Each goes through the trunk once and through the head four times.
MOST_PAIRS = 1_000_000
# Below this the interval of what is kept says nothing.
LEAST_USERS = 20
_PAIRS_AT_ONCE = 32_768


@dataclass(frozen=True)
class PairRows:
    """Rows (user, position), int64 [n], whose following item is ranked among all `candidates`."""

    users: NDArray[np.int64]
    positions: NDArray[np.int64]
    candidates: tuple[str, ...]


def pair_rows(data: RunData, most_users: int) -> PairRows:
    """The two newest positions of held-out users with a test item, spread evenly, as far as `MOST_PAIRS` reach."""
    held_out = np.sort(np.concatenate([data.users_of(Part.CONSTRUCTION), data.users_of(Part.VERIFICATION)]))
    held_out = held_out[data.targets[held_out] > 0]
    candidates = data.dataset.items.ids
    most = min(most_users, MOST_PAIRS // (2 * len(candidates)))
    if len(held_out) > most:
        held_out = held_out[np.linspace(0, len(held_out) - 1, most).astype(np.int64)]
    users = np.repeat(held_out, 2)
    positions = data.histories.lengths[users] - np.tile([2, 1], len(held_out))
    return PairRows(users[positions >= 0], positions[positions >= 0], candidates)


def too_few_pairs(rows: PairRows) -> str:
    """Why so few users would say nothing; "" when they are enough, or the data have no more."""
    users, reached = len(set(rows.users.tolist())), MOST_PAIRS // (2 * len(rows.candidates))
    if users and reached < LEAST_USERS:
        return f"{len(rows.candidates):,} candidates a user leave {reached} users of {MOST_PAIRS:,} pairs"
    return ""


@dataclass(frozen=True)
class PairScores:
    """Scores as of any fidelity, and the names of the tensors that cross the cut."""

    scores: dict[str, float]
    passthrough: tuple[str, ...]


def pair_fidelity(
    source: ItemSource,
    model: SourceModel,
    data: RunData,
    rows: PairRows,
    sae: SparseAutoencoder,
    axes: PrincipalAxes,
    *,
    fired_per_row: float,
    seed: int,
    check: Callable[[], None],
) -> PairScores:
    """Quality kept and agreement of lists from reconstructed pairs; `fired_per_row` of the SAE on any rows.

    InvalidRequestError when there is no row.
    """
    k = components(sae, fired_per_row)
    asked = following_items(data, rows.users, rows.positions)
    ranker = _PairRanker(source, model, rows.candidates, asked, TargetLists(asked.targets), check)
    parts: list[UserSums] = []
    names: tuple[str, ...] = ()
    step = max(1, _PAIRS_AT_ONCE // len(rows.candidates))
    for begin in range(0, len(rows.users), step):
        span = slice(begin, min(begin + step, len(rows.users)))
        check()
        cut = source.crossing(model, row_subjects(model, data, rows.users[span], rows.positions[span]), rows.candidates)
        names = tuple(cut.passthrough)
        x = np.ascontiguousarray(cut.activations)
        x_hats = reconstructions(sae, axes, x, k)
        sides = {name: ranker(x_hat, cut.passthrough, span) for name, x_hat in x_hats.items()}
        parts.append(ranking_sums(ranker(x, cut.passthrough, span), sides, users=rows.users[span]))
    if not parts:
        raise InvalidRequestError("there are no rows to rank candidates for")
    return PairScores(fidelity_of(reduce(add, parts), components=k, seed=seed).scores(), names)


@dataclass(frozen=True)
class _PairRanker:
    source: ItemSource
    model: SourceModel
    candidates: tuple[str, ...]
    asked: Following
    lists: TargetLists
    check: Callable[[], None]

    def __call__(self, x: Floats, passthrough: Tensors, span: slice) -> Rankings:
        self.check()
        lists = self.source.rank(
            self.model, x, LIST_LENGTH, self.asked.consumed[span], self.candidates, passthrough=passthrough
        )
        return self.lists.rankings(lists, span)
