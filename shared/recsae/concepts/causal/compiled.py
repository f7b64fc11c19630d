"""The inner loop of `turning`, compiled by numba. Says the same as `plain`, which is easier to read.

One thread, no memory of its own: scratch arrays are handed in. A block of 16 items is looked at only when its best
score plus its largest effect reaches what the unsteered ten, moved, have at least: nothing else can enter the list.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.sae.fast.compiling import compiled

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Places = NDArray[np.int32]
Bytes = NDArray[np.uint8]

# Those of `board`, written out: compiled code is remembered by this file alone, so a change elsewhere would go unseen.
BLOCK, DEPTH = 16, 10
LISTED = np.float32(-5e29)


def turn(*arrays: NDArray[Any]) -> None:
    """Fills the last seven arrays; see `plain.turn` for all of them."""
    scores, high, sets = arrays[0], arrays[1], arrays[-1]
    size = scores.shape[1]
    loop: Any = _turn
    loop(
        *arrays,
        np.zeros(size, np.uint8),
        np.zeros(len(sets), np.int64),
        np.empty(high.shape[1], np.float32),
        np.empty(size + 1, np.int32),
        np.empty(size + 1, np.float32),
        np.empty(DEPTH, np.int32),
        np.empty(DEPTH, np.float32),
    )


@compiled
def _turn(
    scores: Floats, high: Floats, top: Places, target: Places, target_score: Floats,
    effects: Floats, effect_high: Floats, effect_low: Floats, deltas: Floats, own: Ints, same_as: Ints,
    set_start: Ints, set_of: Ints, gain_of: Floats,
    gains: Floats, hits: Bytes, kept: Bytes, totals: Ints,
    base_gains: Floats, base_hits: Bytes, base_totals: Ints,
    was_listed: Bytes, per_set: Ints, bounds: Floats,
    near_place: Places, near_value: Floats, listed: Places, value: Floats,
) -> None:  # fmt: skip
    users, size = scores.shape
    count, doses = deltas.shape[0], deltas.shape[1]
    for user in range(users):
        row = scores[user]
        goal = target[user]
        for place in top[user]:
            was_listed[place] = 1 if row[place] > LISTED else 0
            if row[place] > LISTED:
                for at in range(set_start[place], set_start[place + 1]):
                    per_set[set_of[at]] += 1
        for one in range(per_set.shape[0]):
            base_totals[one] += per_set[one]
        rank = 1
        for place in range(size):
            if place != goal and row[place] >= target_score[user]:
                rank += 1
        base_gains[user] = gain_of[rank] if rank <= DEPTH else np.float32(0)
        for direction in range(count):
            base_hits[direction, user] = per_set[own[direction]]
            effect = effects[direction]
            for dose in range(doses):
                delta = deltas[direction, dose, user]
                if delta == 0:
                    gains[direction, dose, user] = base_gains[user]
                    hits[direction, dose, user] = per_set[own[direction]]
                    kept[direction, dose, user] = DEPTH
                    continue
                same = same_as[dose]
                if same >= 0 and deltas[direction, same, user] == delta:
                    gains[direction, dose, user] = gains[direction, same, user]
                    hits[direction, dose, user] = hits[direction, same, user]
                    kept[direction, dose, user] = kept[direction, same, user]
                    continue
                extreme = effect_high[direction] if delta > 0 else effect_low[direction]
                for block in range(bounds.shape[0]):
                    bounds[block] = high[user, block] + delta * extreme[block]
                least = np.float32(np.inf)
                for place in top[user]:
                    moved = row[place] + delta * effect[place]
                    least = min(least, moved)
                # Without a branch per item: what may enter is gathered first, then sorted in.
                near = 0
                for block in range(bounds.shape[0]):
                    if bounds[block] < least:
                        continue
                    for place in range(block * BLOCK, block * BLOCK + BLOCK):
                        moved = row[place] + delta * effect[place]
                        near_place[near] = place
                        near_value[near] = moved
                        near += moved >= least
                filled = 0
                for entry in range(near):
                    moved = near_value[entry]
                    if filled == DEPTH and moved <= value[DEPTH - 1]:
                        continue
                    at = filled if filled < DEPTH else DEPTH - 1
                    while at > 0 and value[at - 1] < moved:
                        value[at] = value[at - 1]
                        listed[at] = listed[at - 1]
                        at -= 1
                    value[at] = moved
                    listed[at] = near_place[entry]
                    filled = min(filled + 1, DEPTH)
                inside, same_items = 0, 0
                for at in range(filled):
                    place = listed[at]
                    if row[place] <= LISTED:
                        continue
                    same_items += was_listed[place]
                    for entry in range(set_start[place], set_start[place + 1]):
                        totals[direction, dose, set_of[entry]] += 1
                        if set_of[entry] == own[direction]:
                            inside += 1
                hits[direction, dose, user] = inside
                kept[direction, dose, user] = same_items
                aim = target_score[user] + delta * effect[goal]
                gains[direction, dose, user] = 0
                if aim >= value[filled - 1]:
                    rank = 1
                    for block in range(bounds.shape[0]):
                        if bounds[block] < aim:
                            continue
                        for place in range(block * BLOCK, block * BLOCK + BLOCK):
                            if place != goal and row[place] + delta * effect[place] >= aim:
                                rank += 1
                    if rank <= DEPTH:
                        gains[direction, dose, user] = gain_of[rank]
        for place in top[user]:
            was_listed[place] = 0
            for at in range(set_start[place], set_start[place + 1]):
                per_set[set_of[at]] = 0
