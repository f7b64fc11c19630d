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
from recsae.sae.fast.gathering import gather_dots, gather_sum
from recsae.sae.fast.scoring import Floats

Ints = NDArray[np.int32]


@compiled_any_order
def reconstruct_rows(
    target: Floats, slot: int, factor: np.float32, begin: int, end: int, indices: Ints, values: Floats, w_dec: Floats,
    prefixes: NDArray[np.int64], scale: np.float32, rows: Floats, slopes: Floats, squared: NDArray[np.float64],
) -> None:  # fmt: skip
    """Decodes rows begin..end-1 and finds the gradient of their values.

    The target of a row is `factor` times `target`[:, slot] of [n, s, d]. With e_p = target - z[:prefix p] W_dec, writes
    to `rows`[:, 1 + p] the gradient `scale` sum_(q >= p) e_q by the output of group p, to `slopes` [n, slots] the one
    by the values, and to `squared` [n] |e|^2 of the whole width.
    """
    d, slots, groups = rows.shape[2], indices.shape[1], len(prefixes)
    parts = np.empty((groups, d), np.float32)
    fired = _Fired(np.empty(slots, np.int32), np.empty(slots, np.int32), np.empty(slots, np.float32))
    for row in range(begin, end):
        for group in range(groups):
            count = _fired_in(group, prefixes, indices[row], values[row], fired)
            gather_sum(parts[group], w_dec, d, 0, fired.latents, fired.numbers, 0, count)
        squared[row] = _pull(target[row, slot], factor, scale, parts, rows[row])
        slopes[row] = 0.0
        for group in range(groups):
            count = _fired_in(group, prefixes, indices[row], values[row], fired)
            gather_dots(fired.numbers, w_dec, d, 0, fired.latents, count, rows[row, 1 + group])
            for number in range(count):
                slopes[row, fired.places[number]] = fired.numbers[number]


class _Fired(NamedTuple):
    """The latents of one row and group that fire, where they stand in the row's codes, and a number for each."""

    latents: Ints
    places: Ints
    numbers: Floats


@compiled
def _fired_in(group: int, prefixes: NDArray[np.int64], indices: Ints, values: Floats, fired: _Fired) -> int:
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
    """Scratch for codes turned round, one entry per firing, latent after latent: row, value and its gradient."""

    rows: Ints
    values: Floats
    slopes: Floats


def make_turned(n: int, slots: int) -> Turned:
    """Room for the codes of `n` rows; each thread needs its own."""
    return Turned(np.empty(n * slots, np.int32), np.empty(n * slots, np.float32), np.empty(n * slots, np.float32))


@compiled
def accumulate_latents(
    rows: Floats, indices: Ints, values: Floats, slopes: Floats, prefixes: NDArray[np.int64], begin: int, end: int,
    turned: Turned, g_enc: Floats, g_bias: Floats, g_dec: Floats, firings: NDArray[np.int64],
) -> None:  # fmt: skip
    """Gradients of latents begin..end-1, overwritten: g_enc, g_dec [w, d], g_bias, firings [w].

    Turns the codes round first (a counting sort), so that a gradient row is written once however many rows fire.
    """
    slots, d = rows.shape[1], rows.shape[2]
    starts = _turn(indices, values, slopes, begin, end, turned)
    for latent in range(begin, end):
        first, last = starts[latent - begin], starts[latent - begin + 1]
        pull = 1 + group_of(latent, prefixes)
        gather_sum(g_enc[latent], rows, slots * d, 0, turned.rows, turned.slopes, first, last)
        gather_sum(g_dec[latent], rows, slots * d, pull * d, turned.rows, turned.values, first, last)
        bias = np.float32(0.0)
        for number in range(first, last):
            bias += turned.slopes[number]
        g_bias[latent], firings[latent] = bias, last - first


@compiled
def _turn(indices: Ints, values: Floats, slopes: Floats, begin: int, end: int, turned: Turned) -> NDArray[np.int64]:
    """Where each latent's entries begin in `turned`, int64 [end - begin + 1]; rows rise within a latent."""
    n, slots = indices.shape
    starts = np.zeros(end - begin + 2, np.int64)
    for row in range(n):
        for place in range(slots):
            latent = indices[row, place]
            if begin <= latent < end and values[row, place] > 0.0:
                starts[latent - begin + 2] += 1
    for number in range(2, len(starts)):
        starts[number] += starts[number - 1]
    for row in range(n):
        for place in range(slots):
            latent = indices[row, place]
            if begin <= latent < end and values[row, place] > 0.0:
                at = starts[latent - begin + 1]
                turned.rows[at], turned.values[at], turned.slopes[at] = row, values[row, place], slopes[row, place]
                starts[latent - begin + 1] = at + 1
    return starts[: end - begin + 1]
