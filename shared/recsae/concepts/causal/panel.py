"""The fixed panel effects are measured on: which users, and one row for each (docs/method.md, section 7).

Users come from construction and verification alike, whether a concept fires for them or not; a hash of their id
chooses, so that the panel is the same on every machine and in every refresh. Where something is fitted (weights of a
handle), construction users fit and verification users score. Not here: where activations come from (the pipeline).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.sampling import ActivationRows
from recsae.concepts.splits import UserPart
from recsae.datasets.schema import Histories
from recsae.errors import FailedPreconditionError

# Enough for a bound on a loss of 5 % (at 2,000 users it is about a point wide); more would only take longer.
MOST_USERS = 2_400

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Panel:
    """One row a user: its newest activation, and the item that follows.

    `x` float32 [n, d]; `user` int64 [n]; `verifies` bool [n], else the user constructs; `target` int64 [n], item
    indices from 1; row r has consumed `consumed[offsets[r]:offsets[r + 1]]`. `fingerprint`: 16 hex digits that name
    these users.
    """

    x: Floats
    user: Ints
    verifies: Bools
    target: Ints
    offsets: Ints
    consumed: Ints
    fingerprint: str

    def __len__(self) -> int:
        """Number of users."""
        return len(self.user)

    def of(self, rows: Bools) -> Panel:
        """The panel of some of its users only, `rows` bool [n]."""
        kept = np.repeat(rows, np.diff(self.offsets))
        lengths = np.diff(self.offsets)[rows]
        return replace(
            self,
            x=np.ascontiguousarray(self.x[rows]),
            user=self.user[rows],
            verifies=self.verifies[rows],
            target=self.target[rows],
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            consumed=self.consumed[kept],
        )

    def moved(self, change: Floats) -> Panel:
        """The panel with `change` float32 [n, d] or [d] added to its activations."""
        return replace(self, x=(self.x + change).astype(np.float32))


def panel_users(
    pseudonyms: Sequence[str], parts: NDArray[np.int8], usable: Bools, *, most: int = MOST_USERS, seed: int = 0
) -> Ints:
    """At most `most` users, int64 ascending: of those the SAE was not trained on, the ones with the least hashes.

    `parts` [n_users] of `UserPart` values; `usable` bool [n_users]: they have a history and a target.
    """
    candidates = np.flatnonzero(usable & (parts[: len(usable)] != UserPart.SAE))
    hashes = [hashlib.sha256(f"panel\0{seed}\0{pseudonyms[user]}".encode()).digest() for user in candidates.tolist()]
    order = sorted(range(len(candidates)), key=hashes.__getitem__)[:most]
    return np.sort(candidates[order]).astype(np.int64)


def build_panel(
    shards: Sequence[ActivationRows],
    histories: Histories,
    targets: NDArray[np.int32],
    pseudonyms: Sequence[str],
    parts: NDArray[np.int8],
    *,
    most: int = MOST_USERS,
    back: int = 0,
    seed: int = 0,
) -> Panel:
    """The panel from activation rows; `histories` end before the `targets` [n_users] (0 = none).

    `back` = 1 takes the same users one item earlier: what follows then is their newest item. FailedPreconditionError
    when no user outside SAE training has a row and a target.
    """
    chosen = panel_users(pseudonyms, parts, (targets > 0) & (histories.lengths > 0), most=most, seed=seed)
    wanted = np.zeros(histories.n_users + 1, bool)
    wanted[chosen] = True
    wanted[:-1] &= histories.lengths > back
    newest = np.append(histories.lengths - 1 - back, -1)
    x, users = [], []
    for shard in shards:
        owner, position = np.asarray(shard.user), np.asarray(shard.position)
        rows = np.flatnonzero(wanted[owner] & (position == newest[owner]))
        x.append(np.asarray(shard.x[rows], np.float32))
        users.append(owner[rows].astype(np.int64))
    found = np.concatenate(users) if users else np.zeros(0, np.int64)
    user, first = np.unique(found, return_index=True)
    if not len(user):
        raise FailedPreconditionError(
            "no user outside SAE training has an activation of the newest item and an item that follows; effects need "
            "such a panel: collect from more users"
        )
    lengths = histories.lengths[user] - back
    following = targets[user] if back == 0 else histories.items[histories.offsets[user] + lengths]
    owners = np.repeat(histories.offsets[user], lengths)
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    names = "\0".join(pseudonyms[one] for one in user.tolist())
    return Panel(
        x=np.ascontiguousarray(np.concatenate(x)[first]),
        user=user,
        verifies=np.asarray(parts[user] == UserPart.VERIFICATION),
        target=following.astype(np.int64),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        consumed=histories.items[owners + within].astype(np.int64),
        fingerprint=hashlib.sha256(names.encode()).hexdigest()[:16],
    )
