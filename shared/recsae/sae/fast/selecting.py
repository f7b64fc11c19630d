"""Which latents stay: the k largest of each row, found without sorting and without a pass over all scores.

The `wanted`-th largest of the maxima of disjoint groups is a lower bound on the `wanted`-th largest score, so only
groups that reach it are looked at; among those few a bisection cuts exactly. Rounded scores (int8) only *nominate*, a
quarter more than asked: the nominated are computed again in float32 and the best of these stay, so that values and
gradients are float32 either way. Not here: scores (`scoring`), decoding (`reconstructing`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsae.sae.fast.compiling import compiled, compiled_any_order
from recsae.sae.fast.counting import make_collect, make_count, make_largest
from recsae.sae.fast.gathering import gather_dots
from recsae.sae.fast.scoring import Floats, Panels, Scratch, score_block
from recsae.sae.fast.vectors import SHAPE, cpu_features

Ints = NDArray[np.int32]

_PANEL, _COLUMNS, _LANES = SHAPE.panel, SHAPE.columns, SHAPE.lanes
_BISECTIONS = 24
_SLACK = 1.15  # a threshold that lets through this many times what is wanted is good enough to nominate
_TINY = np.float32(1e-30)
_LARGE = np.float32(np.inf)

_count = make_count(SHAPE)
_largest = make_largest(SHAPE)
_collect = make_collect(SHAPE, cpu_features())


def nominated(slots: int) -> int:
    """How many latents rounded scores nominate for `slots` places."""
    return slots + max(8, slots // 4)


@compiled_any_order
def select_rows(
    source: Floats, slot: int, b_dec: Floats, begin: int, end: int, panels: Panels, w_enc: Floats, b_enc: Floats,
    wanted: int, scratch: Scratch, rows: Floats, indices: Ints, values: Floats,
) -> None:  # fmt: skip
    """Centres rows begin..end-1 and keeps the largest positive latents of each.

    `source` [n, s, d], of which `slot` is read; writes source - b_dec to `rows`[:, 0], [n, 1 + g, d], and to `indices`
    and `values` [n, slots] the latents kept, value 0 where fewer fire. `wanted` are nominated; with more than `slots`
    of them the nominated are computed again from `w_enc` [w, d] and `b_enc` [w].
    """
    d, width, slots = rows.shape[2], len(panels.bias), indices.shape[1]
    block = len(scratch.row_scale)
    for first in range(begin, end, block):
        count = min(block, end - first)
        for row in range(count):
            for t in range(d):
                value = source[first + row, slot, t] - b_dec[t]
                rows[first + row, 0, t] = value
                scratch.rows[row * d + t] = value
        score_block(panels, scratch, count, d)
        for row in range(count):
            found = _nominate(
                scratch.scores, scratch.tops, row, width, wanted, scratch.places, scratch.found, scratch.values
            )
            if wanted > slots:
                _score_again(rows[first + row, 0], w_enc, b_enc, found, scratch.found, scratch.values)
            _keep(scratch.found, scratch.values, found, scratch.places, indices[first + row], values[first + row])


@compiled
def _nominate(
    scores: Floats, tops: Floats, row: int, width: int, wanted: int, places: Ints, found: Ints, values: Floats
) -> int:
    """Latents whose score is among the `wanted` largest positive ones, into `found`; returns how many.

    May give more, never fewer unless fewer are positive.
    """
    vectors = width // _PANEL
    at = row * vectors * _LANES
    threshold = _at_least(tops, at, vectors, wanted)
    count = 0
    for number in range(_collect(tops, at, vectors, threshold, places)):
        latent = places[number] // _LANES * _PANEL + places[number] % _LANES
        for _ in range(_COLUMNS):
            score = scores[row * width + latent]
            found[count] = latent  # written always, kept when the count moves on: no branch to guess wrong
            values[count] = score
            count += score >= threshold
            latent += _LANES
    return count


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
def _keep(found: Ints, values: Floats, count: int, places: Ints, indices: Ints, kept: Floats) -> None:
    """The largest positive of the first `count` values, as many as `indices` and `kept` hold; of equal ones the first.

    `places` is scratch.
    """
    slots, vectors = len(indices), (count + _LANES - 1) // _LANES
    for place in range(count, vectors * _LANES):
        values[place] = 0.0
    low, high, fires = _TINY, _LARGE, _count(values, 0, vectors, _TINY)
    if fires > slots:
        low, high, fires = _cut(values, vectors, slots)
    end = _collect(values, 0, vectors, low, places)
    if fires > slots:
        end = _first_of_equal(values, places, end, high, slots)
    end = min(end, slots)  # infinities, which end in a sentence about divergence, must not write beyond the row
    for number in range(end):
        indices[number], kept[number] = found[places[number]], values[places[number]]
    for empty in range(end, slots):
        indices[empty], kept[empty] = 0, 0.0


@compiled
def _cut(values: Floats, vectors: int, slots: int) -> tuple[np.float32, np.float32, int]:
    """The least value that is kept, what lies above it, and how many reach it: `slots` of them, or more if equal."""
    low, high = _TINY, np.float32(2.0) * _largest(values, 0, vectors)
    fires = slots + 1
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
def _first_of_equal(values: Floats, places: Ints, count: int, above: np.float32, slots: int) -> int:
    """Thins `places` out to `slots`: of those not `above` the cut, which are equal, the last ones go."""
    spare = slots
    for number in range(count):
        spare -= values[places[number]] >= above
    end = 0
    for number in range(count):
        place = places[number]
        is_above = values[place] >= above
        if is_above or spare > 0:
            spare -= not is_above
            places[end] = place
            end += 1
    return end
