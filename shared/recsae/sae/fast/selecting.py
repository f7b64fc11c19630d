"""Which latents stay: the k largest of each row, found without sorting and without a pass over all scores.

The `wanted`-th largest of the maxima of disjoint groups is a lower bound on the `wanted`-th largest score, so only
groups that reach it are looked at; among those few a bisection cuts exactly. Rounded scores (int8) only *nominate*,
more than asked: the nominated are computed again in float32 and the best of these stay, so that values and gradients
are float32 either way. Not here: scores (`scoring`), decoding (`reconstructing`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsae.sae.fast.compiling import compiled, compiled_any_order
from recsae.sae.fast.counting import make_collect, make_count, make_filter, make_largest
from recsae.sae.fast.gathering import gather_dots
from recsae.sae.fast.scoring import Floats, Panels, Scratch, score_block
from recsae.sae.fast.vectors import SHAPE, cpu_features

Ints = NDArray[np.int32]

_PANEL, _LANES = SHAPE.panel, SHAPE.lanes
_BISECTIONS = 24
_SLACK = 1.15  # a threshold that lets through this many times what is wanted is good enough to nominate
_TINY = np.float32(1e-30)
_LARGE = np.float32(np.inf)
_ABOVE = np.float32(1.0 + 2.0**-20)

_count = make_count(SHAPE)
_largest = make_largest(SHAPE)
_collect = make_collect(SHAPE, cpu_features())
_filter = make_filter(SHAPE, cpu_features())


@compiled_any_order
def select_rows(
    source: Floats, slot: int, b_dec: Floats, begin: int, end: int, encoder: Panels, w_enc: Floats, b_enc: Floats,
    wanted: int, scratch: Scratch, rows: Floats, indices: Ints, values: Floats,
) -> None:  # fmt: skip
    """Centres rows begin..end-1 and keeps the largest positive latents of each.

    `source` [n, s, d], of which `slot` is read; writes source - b_dec to `rows`[:, 0], [n, 1 + g, d], and to `indices`
    and `values` [n, slots] the latents kept, value 0 where fewer fire. `wanted` are nominated; with more than `slots`
    of them the nominated are computed again from `w_enc` [w, d] and `b_enc` [w].
    """
    d, width, slots = rows.shape[2], len(encoder.bias), indices.shape[1]
    panels = width // _PANEL
    block = len(scratch.row_scale)
    for first in range(begin, end, block):
        count = min(block, end - first)
        for row in range(count):
            for t in range(d):
                value = source[first + row, slot, t] - b_dec[t]
                rows[first + row, 0, t] = value
                scratch.rows[row * d + t] = value
        score_block(encoder, scratch, count, d)
        for row in range(count):
            threshold = _at_least(scratch.tops, row * panels * _LANES, panels, wanted)
            found = _collect(
                scratch.scores, row * width, panels, threshold, scratch.tops, row * panels * _LANES,
                scratch.found, scratch.values,
            )  # fmt: skip
            if wanted > slots:
                _score_again(rows[first + row, 0], w_enc, b_enc, found, scratch.found, scratch.values)
            _keep(scratch, found, threshold, indices[first + row], values[first + row])


@compiled
def _at_least(values: Floats, at: int, vectors: int, wanted: int) -> np.float32:
    """A positive threshold that at least `wanted` of the values reach, and not many more; tiny when too few do."""
    low, high = _TINY, _largest(values, at, vectors)
    if _count(values, at, vectors, low) <= wanted:
        return low
    most = int(wanted * _SLACK)
    for _ in range(_BISECTIONS):
        middle = np.float32(0.5) * (low + high)
        count = _count(values, at, vectors, middle)
        if count < wanted:
            high = middle
        else:
            low = middle
            if count <= most:
                break
    return low


@compiled
def _score_again(centred: Floats, w_enc: Floats, b_enc: Floats, count: int, found: Ints, values: Floats) -> None:
    gather_dots(values, w_enc, len(centred), 0, found, count, centred)
    for number in range(count):
        values[number] += b_enc[found[number]]


@compiled
def _keep(scratch: Scratch, count: int, near: np.float32, indices: Ints, values: Floats) -> None:
    """The largest positive of the first `count` found, as many as `indices` and `values` hold; of equals the first.

    `near` is a guess from below at the least that is kept.
    """
    slots, vectors = len(indices), (count + _LANES - 1) // _LANES
    for place in range(count, vectors * _LANES):
        scratch.values[place] = 0.0
    low, high, fires = _TINY, _LARGE, _count(scratch.values, 0, vectors, _TINY)
    if fires > slots:
        low, high, fires = _cut(scratch.values, vectors, slots, near)
    end = _filter(scratch.values, scratch.found, vectors, low, scratch.kept_values, scratch.kept)
    if fires > slots:
        _first_of_equal(scratch.kept_values, scratch.kept, end, high, slots)
    end = min(end, slots)
    for place in range(end):
        indices[place], values[place] = scratch.kept[place], scratch.kept_values[place]
    for empty in range(end, slots):
        indices[empty], values[empty] = 0, 0.0


@compiled
def _cut(values: Floats, vectors: int, slots: int, near: np.float32) -> tuple[np.float32, np.float32, int]:
    """A value that is enough to be kept, one that is more than enough, and how many reach the first.

    `slots` of them do, or more, if those between the two are equal.
    """
    low, high = near, _ABOVE * _largest(values, 0, vectors)
    fires = _count(values, 0, vectors, low)
    if fires < slots:
        low, fires = _TINY, slots + 1
    while fires != slots:  # low lets too many through, high too few
        middle = np.float32(0.5) * (low + high)
        if middle <= low or middle >= high:
            break
        through = _count(values, 0, vectors, middle)
        if through < slots:
            high = middle
        else:
            low, fires = middle, through
    return low, high, fires


@compiled
def _first_of_equal(values: Floats, names: Ints, count: int, above: np.float32, slots: int) -> None:
    """Moves to the front what stays: all that are `above` the cut, and of those at it, which are equal, the first."""
    spare = slots
    for place in range(count):
        spare -= values[place] >= above
    end = 0
    for place in range(count):
        is_above = values[place] >= above
        if is_above or spare > 0:
            spare -= not is_above
            values[end], names[end] = values[place], names[place]
            end += 1
