"""What a concept does to the ranking: promoted and suppressed items (docs/method.md, section 4).

One unit of latent j adds W_dec[j] . (E_i - mean E) to item i's score relative to the catalogue, where the head is a dot
product. Not here: how a score changes with any other head (`output_differences`), and dose-response.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_LATENTS_AT_ONCE = 256
SHOWN = 10
# An output label is drawn from the top twentieth of the catalogue: at least as many items as are shown, at most 50.
_LABELLED_SHARE, _LABELLED = 0.05, 50


@dataclass(frozen=True)
class Outputs:
    """Items of all latents.

    `promoted`, `suppressed` int32 [w, m] item indices, most affected first; `raised`, `lowered` float32 [w, m] by how
    much, per unit of the latent. `labelled` 0/1 CSR [w, n_items + 1] marks the most promoted; `effect` float32 [w]
    is the mean absolute change of a score per unit of the latent.
    """

    promoted: NDArray[np.int32]
    raised: NDArray[np.float32]
    suppressed: NDArray[np.int32]
    lowered: NDArray[np.float32]
    labelled: sparse.csr_matrix
    effect: NDArray[np.float32]


def output_items(w_dec: NDArray[np.float32], item_vectors: NDArray[np.float32]) -> Outputs:
    """Outputs of all latents from `w_dec` [w, d] and `item_vectors` [n_items + 1, d] (row 0 = padding)."""
    centred = (item_vectors[1:] - item_vectors[1:].mean(axis=0)).T.astype(np.float32)
    blocks = (w_dec[at : at + _LATENTS_AT_ONCE] @ centred for at in range(0, len(w_dec), _LATENTS_AT_ONCE))
    return outputs_of(blocks, centred.shape[1])


def outputs_of(changes: Iterable[NDArray[np.float32]], n_items: int) -> Outputs:
    """Outputs from the change of every item's score per unit of each latent, float32 [.., n_items] a block of latents.

    Item i + 1 stands in column i. A few latents are held at a time.
    """
    shown = min(SHOWN, n_items)
    labelled = max(shown, min(_LABELLED, int(_LABELLED_SHARE * n_items)))
    best, worst, gains, losses, effects = [], [], [], [], []
    for scores in changes:
        top, low = _largest(scores, labelled), _largest(-scores, shown)
        best.append(top)
        worst.append(low)
        gains.append(np.take_along_axis(scores, top[:, :shown], axis=1))
        losses.append(np.take_along_axis(scores, low, axis=1))
        effects.append(np.abs(scores).mean(axis=1))
    top = np.concatenate(best) + 1
    pointers = np.arange(0, top.size + 1, labelled)
    marks = sparse.csr_matrix((np.ones(top.size), top.ravel(), pointers), shape=(len(top), n_items + 1))
    return Outputs(
        top[:, :shown].astype(np.int32),
        np.concatenate(gains),
        (np.concatenate(worst) + 1).astype(np.int32),
        np.concatenate(losses),
        marks,
        np.concatenate(effects),
    )


def _largest(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Columns of the `count` largest entries of each row, largest first."""
    part = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, part, axis=1), axis=1, kind="stable")
    return np.take_along_axis(part, order, axis=1)
