"""The inner loop of `turning` in numpy: one direction and dose at a time over all users. What `compiled` must equal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.causal.board import DEPTH, NEVER, best_places

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Places = NDArray[np.int32]
Bytes = NDArray[np.uint8]


def turn(
    scores: Floats, high: Floats, top: Places, target: Places, target_score: Floats,
    effects: Floats, effect_high: Floats, effect_low: Floats, deltas: Floats, own: Ints, same_as: Ints,
    set_start: Ints, set_of: Ints, gain_of: Floats,
    gains: Floats, hits: Bytes, kept: Bytes, totals: Ints,
    base_gains: Floats, base_hits: Bytes, base_totals: Ints,
) -> None:  # fmt: skip
    """Fills the last seven for users [n], directions [c] and doses [t]; see `turning.Turntable.turn`."""
    sets = len(base_totals)
    member = np.zeros((scores.shape[1], sets), np.uint8)
    member[np.repeat(np.arange(scores.shape[1]), np.diff(set_start)), set_of] = 1
    rows = np.arange(len(scores))
    before = _counted(scores, top, member)
    base_totals += before.sum(axis=0, dtype=np.int64)
    base_gains[:] = _gains(scores, target, target_score, gain_of)
    base_hits[:] = before[:, own].T
    was_listed = np.zeros(scores.shape, np.uint8)
    was_listed[rows[:, None], top] = scores[rows[:, None], top] > NEVER / 2
    for direction, effect in enumerate(effects):
        for dose in range(deltas.shape[1]):
            delta = deltas[direction, dose]
            moved = scores + delta[:, None] * effect
            listed = best_places(moved)
            after = _counted(scores, listed, member)
            still = delta == 0
            same = same_as[dose]
            fresh = ~still if same < 0 else ~still & (deltas[direction, same] != delta)
            totals[direction, dose] += after[fresh].sum(axis=0, dtype=np.int64)
            aim = target_score + delta * effect[target]
            gains[direction, dose] = np.where(still, base_gains, _gains(moved, target, aim, gain_of))
            mine = own[direction]
            hits[direction, dose] = np.where(still, before[:, mine], after[:, mine])
            overlap = was_listed[rows[:, None], listed].sum(axis=1)
            kept[direction, dose] = np.where(still, DEPTH, overlap)


def _counted(scores: Floats, listed: Places, member: Bytes) -> NDArray[np.uint8]:
    """How many listed items belong to each set, uint8 [n, sets]; consumed items fill short lists and do not count."""
    real = np.take_along_axis(scores, listed.astype(np.int64), axis=1) > NEVER / 2
    counted: NDArray[np.uint8] = (member[listed] * real[:, :, None]).sum(axis=1, dtype=np.uint8)
    return counted


def _gains(moved: Floats, target: Places, aim: Floats, gain_of: Floats) -> Floats:
    """Gain of each target, ties last; its own place is not counted against it."""
    above = (moved >= aim[:, None]).sum(axis=1)
    above -= moved[np.arange(len(moved)), target] >= aim
    return np.where(above < DEPTH, gain_of[np.minimum(above + 1, DEPTH)], np.float32(0)).astype(np.float32)
