"""Scores of every latent for a block of activations: the encoder's product.

The encoder is kept in *panels*, the order in which the tile of `tiles` reads it: exact in float32, or rounded to
int8 with one scale per latent. Rows are independent of each other to the bit. Not here: which latents are kept
(`selecting`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsae.sae.fast.compiling import compiled, compiled_any_order
from recsae.sae.fast.tiles import make_tile
from recsae.sae.fast.vectors import INT8, INT8_STEP, ROWS, SHAPE

Floats = NDArray[np.float32]

# Score scratch of one thread: half of a 1 MiB second-level cache.
_SCRATCH_BYTES = 1 << 19
_MOST_BLOCK_ROWS = 96

_score_float = make_tile(SHAPE, int8=False)
_score_int8 = make_tile(SHAPE, int8=True) if INT8 else _score_float


class Panels(NamedTuple):
    """The encoder as the tile reads it; see `tiles.make_tile`. `bias` is -inf for latents that only fill a panel."""

    floats: Floats  # [panels, d, panel], flat; empty in int8
    bytes: NDArray[np.int8]  # [panels, steps, panel, 4], flat; empty in float32
    offset: NDArray[np.int32]  # [width]
    scale: Floats  # [width]
    bias: Floats  # [width]


class Scratch(NamedTuple):
    """What one thread writes over and over: nothing in it outlives a call."""

    rows: Floats  # [block, d], flat: centred activations
    bytes: NDArray[np.uint8]  # [block, steps 4], flat
    row_scale: Floats  # [block]
    scores: Floats  # [block, width], flat
    tops: Floats  # [block, width / columns], flat
    found: NDArray[np.int32]  # [width], as the following with room for one vector more: latents nominated
    values: Floats  # [width], their scores
    kept: NDArray[np.int32]  # [width], latents kept
    kept_values: Floats  # [width]


def padded(width: int) -> int:
    """`width` rounded up to whole panels."""
    return math.ceil(width / SHAPE.panel) * SHAPE.panel


def _steps(d: int) -> int:
    return math.ceil(d / INT8_STEP)


def make_panels(width: int, d: int, *, int8: bool) -> Panels:
    """Panels for `width` latents, to be filled by `pack`."""
    whole = padded(width)
    return Panels(
        floats=np.zeros(0 if int8 else whole * d, np.float32),
        bytes=np.zeros(whole * _steps(d) * INT8_STEP if int8 else 0, np.int8),
        offset=np.zeros(whole, np.int32),
        scale=np.zeros(whole, np.float32),
        bias=np.full(whole, -np.inf, np.float32),
    )


def make_scratch(width: int, d: int) -> Scratch:
    """Scratch of one thread."""
    whole = padded(width)
    block = max(1, min(_MOST_BLOCK_ROWS, _SCRATCH_BYTES // (4 * whole)) // ROWS) * ROWS
    return Scratch(
        rows=np.zeros(block * d, np.float32),
        bytes=np.full(block * _steps(d) * INT8_STEP, 128, np.uint8),
        row_scale=np.zeros(block, np.float32),
        scores=np.zeros(block * whole, np.float32),
        tops=np.zeros(block * whole // SHAPE.columns, np.float32),
        found=np.zeros(whole + SHAPE.lanes, np.int32),
        values=np.zeros(whole + SHAPE.lanes, np.float32),
        kept=np.zeros(whole + SHAPE.lanes, np.int32),
        kept_values=np.zeros(whole + SHAPE.lanes, np.float32),
    )


_PANEL, _COLUMNS, _LANES = SHAPE.panel, SHAPE.columns, SHAPE.lanes


@compiled_any_order
def pack(panels: Panels, w_enc: Floats, b_enc: Floats, begin: int, end: int) -> None:
    """Writes latents begin..end-1 of the encoder [w, d] into the panels."""
    d = w_enc.shape[1]
    int8 = len(panels.bytes) > 0
    steps = (d + INT8_STEP - 1) // INT8_STEP
    for latent in range(begin, end):
        panels.bias[latent] = b_enc[latent]
        panel, lane = latent // _PANEL, latent % _PANEL
        if not int8:
            at = panel * d * _PANEL + lane
            for t in range(d):
                panels.floats[at + t * _PANEL] = w_enc[latent, t]
            continue
        largest = np.float32(1e-30)
        for t in range(d):
            largest = max(largest, abs(w_enc[latent, t]))
        shrink = np.float32(127.0) / largest
        total = np.int32(0)
        at = (panel * steps * _PANEL + lane) * INT8_STEP
        for t in range(d):
            whole = np.int32(np.rint(w_enc[latent, t] * shrink))
            total += whole
            panels.bytes[at + (t // INT8_STEP) * _PANEL * INT8_STEP + t % INT8_STEP] = whole
        panels.offset[latent] = -128 * total
        panels.scale[latent] = largest / np.float32(127.0)


@compiled_any_order
def _round_rows(scratch: Scratch, count: int, d: int) -> None:
    """Rows of the scratch to uint8: value + 128 in units of `row_scale`."""
    stride = (d + INT8_STEP - 1) // INT8_STEP * INT8_STEP
    for row in range(count):
        largest = np.float32(1e-30)
        for t in range(d):
            largest = max(largest, abs(scratch.rows[row * d + t]))
        shrink = np.float32(127.0) / largest
        for t in range(d):
            scratch.bytes[row * stride + t] = np.int32(np.rint(scratch.rows[row * d + t] * shrink)) + 128
        scratch.row_scale[row] = largest / np.float32(127.0)


@compiled
def score_block(panels: Panels, scratch: Scratch, count: int, d: int) -> None:
    """Scores of the first `count` rows of the scratch for every latent, and their maxima."""
    width = len(panels.bias)
    int8 = len(panels.bytes) > 0
    steps = (d + INT8_STEP - 1) // INT8_STEP
    if int8:
        _round_rows(scratch, count, d)
    for panel in range(width // _PANEL):
        column = panel * _PANEL
        for row in range(0, count, ROWS):
            if int8:
                _score_int8(
                    scratch.bytes, row * steps * INT8_STEP, steps * INT8_STEP, panels.bytes, column * steps * INT8_STEP,
                    steps, panels.offset, panels.scale, panels.bias, column, scratch.row_scale, row,
                    scratch.scores, row * width + column, width,
                    scratch.tops, row * (width // _COLUMNS) + panel * _LANES, width // _COLUMNS,
                )  # fmt: skip
            else:
                _score_float(
                    scratch.rows, row * d, d, panels.floats, column * d,
                    d, panels.offset, panels.scale, panels.bias, column, scratch.row_scale, row,
                    scratch.scores, row * width + column, width,
                    scratch.tops, row * (width // _COLUMNS) + panel * _LANES, width // _COLUMNS,
                )  # fmt: skip
