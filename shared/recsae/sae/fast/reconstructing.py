"""From the latents kept back to activations, and the gradients of both, touching nothing but what fires.

`rows` [n, 1 + g, d] keeps together what the gradients of a row need: the centred activation, then, for each group of
latents, what its decoder rows are pushed towards. There is one group but for Matryoshka, where latents below a prefix
help every prefix from theirs on. Not here: selection (`selecting`), the optimiser (`updating`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsae.sae.fast.compiling import compiled, compiled_any_order
from recsae.sae.fast.gathering import gather_dots, gather_sum, gather_two_sums
from recsae.sae.fast.scoring import Floats

Ints = NDArray[np.int32]

_NEAR_BYTES = 1 << 19
_LEAST_FIRINGS = 16


class Fired(NamedTuple):
    """Scratch for one row: the latents of a group that fire, where they stand in its codes, a number for each.

    `parts` [g, d]: what each group decodes to.
    """

    latents: Ints
    places: Ints
    numbers: Floats
    parts: Floats


def make_fired(slots: int, groups: int, d: int) -> Fired:
    """Room for a row's codes; each thread needs its own."""
    return Fired(
        np.zeros(slots, np.int32),
        np.zeros(slots, np.int32),
        np.zeros(slots, np.float32),
        np.zeros((groups, d), np.float32),
    )


@compiled_any_order
def reconstruct_rows(
    target: Floats, slot: int, factor: np.float32, begin: int, end: int, indices: Ints, values: Floats, w_dec: Floats,
    prefixes: NDArray[np.int64], scale: np.float32, fired: Fired, rows: Floats, slopes: Floats,
    squared: NDArray[np.float64],
) -> None:  # fmt: skip
    """Decodes rows begin..end-1 and finds the gradient of their values.

    The target of a row is `factor` times `target`[:, slot] of [n, s, d]. With e_p = target - z[:prefix p] W_dec, writes
    to `rows`[:, 1 + p] the gradient `scale` sum_(q >= p) e_q by the output of group p, to `slopes` [n, slots] the one
    by the values, and to `squared` [n] |e|^2 of the whole width. `fired` is scratch.
    """
    d, groups, count = rows.shape[2], len(prefixes), 0
    for row in range(begin, end):
        for group in range(groups):
            count = _fired_in(group, prefixes, indices[row], values[row], fired)
            fired.parts[group] = 0.0
            gather_sum(fired.parts[group], w_dec, d, 0, fired.latents, fired.numbers, 0, count)
        squared[row] = _pull(target[row, slot], factor, scale, fired.parts, rows[row])
        slopes[row] = 0.0
        for group in range(groups):
            if groups > 1:  # else it stands there already
                count = _fired_in(group, prefixes, indices[row], values[row], fired)
            gather_dots(fired.numbers, w_dec, d, 0, fired.latents, count, rows[row, 1 + group])
            for number in range(count):
                slopes[row, fired.places[number]] = fired.numbers[number]


@compiled
def _fired_in(group: int, prefixes: NDArray[np.int64], indices: Ints, values: Floats, fired: Fired) -> int:
    """Fills in `fired` with values as numbers; returns how many fire."""
    count, least, most = 0, 0 if group == 0 else prefixes[group - 1], prefixes[group]
    for place in range(len(indices)):
        latent = indices[place]
        fired.latents[count], fired.places[count], fired.numbers[count] = latent, place, values[place]
        count += (values[place] > 0.0) & (latent >= least) & (latent < most)
    return count


@compiled_any_order
def _pull(wanted: Floats, factor: np.float32, scale: np.float32, parts: Floats, row: Floats) -> np.float64:
    """What each group's output is pushed towards, into `row` [1 + g, d], from the groups' outputs `parts` [g, d].

    Returns |e|^2 of the whole width.
    """
    groups, d = parts.shape
    total = np.float32(0.0)
    for t in range(d):
        decoded = parts[0, t]
        for group in range(1, groups):
            parts[group - 1, t] = factor * wanted[t] - decoded
            decoded += parts[group, t]
        error = factor * wanted[t] - decoded
        total += error * error
        row[groups, t] = pull = scale * error
        for group in range(groups - 1, 0, -1):
            pull += scale * parts[group - 1, t]
            row[group, t] = pull
    return np.float64(total)


@compiled
def group_of(latent: int, prefixes: NDArray[np.int64]) -> int:
    """Number of the first prefix that holds the latent."""
    group = 0
    while group < len(prefixes) - 1 and latent >= prefixes[group]:
        group += 1
    return group


class Turned(NamedTuple):
    """Scratch for codes turned round, one entry per firing, latent after latent: row, value and its gradient.

    `starts` [w + 2]: where the entries of each latent begin.
    """

    rows: Ints
    values: Floats
    slopes: Floats
    starts: NDArray[np.int64]


def make_turned(n: int, slots: int, width: int) -> Turned:
    """Room for the codes of `n` rows, which need not be more than a stretch; each thread needs its own."""
    return Turned(
        np.empty(n * slots, np.int32),
        np.empty(n * slots, np.float32),
        np.empty(n * slots, np.float32),
        np.empty(width + 2, np.int64),
    )


@compiled
def accumulate_latents(
    rows: Floats, indices: Ints, values: Floats, slopes: Floats, prefixes: NDArray[np.int64], begin: int, end: int,
    stretch: int, turned: Turned, g_enc: Floats, g_bias: Floats, g_dec: Floats, firings: NDArray[np.int64],
) -> None:  # fmt: skip
    """Gradients of latents begin..end-1, overwritten: g_enc, g_dec [w, d], g_bias, firings [w].

    Turns the codes of `stretch` rows at a time round (a counting sort), so that a gradient row is fetched once for all
    of these rows that fire, and they lie near.
    """
    slots, d = rows.shape[1], rows.shape[2]
    g_enc[begin:end] = 0.0
    g_dec[begin:end] = 0.0
    g_bias[begin:end] = 0.0
    firings[begin:end] = 0
    for top in range(0, len(rows), stretch):
        _turn(indices, values, slopes, top, min(top + stretch, len(rows)), begin, end, turned)
        for latent in range(begin, end):
            first, last = turned.starts[latent - begin], turned.starts[latent - begin + 1]
            pull = 1 + group_of(latent, prefixes)
            gather_two_sums(
                g_enc[latent], g_dec[latent], rows, slots * d, 0, pull * d,
                turned.rows, turned.slopes, turned.values, first, last,
            )  # fmt: skip
            bias = np.float32(0.0)
            for number in range(first, last):
                bias += turned.slopes[number]
            g_bias[latent] += bias
            firings[latent] += last - first


@compiled
def _turn(
    indices: Ints, values: Floats, slopes: Floats, top: int, bottom: int, begin: int, end: int, turned: Turned
) -> None:
    """Fills `turned` with what latents begin..end-1 fire in rows top..bottom-1; rows rise within a latent."""
    slots, starts = indices.shape[1], turned.starts
    starts[: end - begin + 2] = 0
    for row in range(top, bottom):
        for place in range(slots):
            latent = indices[row, place]
            if begin <= latent < end and values[row, place] > 0.0:
                starts[latent - begin + 2] += 1
    for number in range(2, end - begin + 2):
        starts[number] += starts[number - 1]
    for row in range(top, bottom):
        for place in range(slots):
            latent = indices[row, place]
            if begin <= latent < end and values[row, place] > 0.0:
                at = starts[latent - begin + 1]
                turned.rows[at], turned.values[at], turned.slopes[at] = row, values[row, place], slopes[row, place]
                starts[latent - begin + 1] = at + 1


def stretch_of(width: int, slots: int, row_bytes: int) -> int:
    """Rows whose codes are turned round at a time: what half a second-level cache holds.

    More, where a latent would fire in so few of them that fetching its gradient costs more than fetching the rows.
    """
    return max(_NEAR_BYTES // row_bytes, _LEAST_FIRINGS * width // slots)
