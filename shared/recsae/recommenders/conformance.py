"""Runs a recommender on made-up histories and checks that it keeps the promises serving and training rely on.

Histories are drawn with a fixed seed; a check that fails says which promise was broken and how it shows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsae.recommenders.bundle import HEAD, HEAD_TENSORS, TRUNK, TRUNK_POSITIONS
from recsae.recommenders.description import BundleError
from recsae.recommenders.runtime import Embedded, OnnxRecommender, Ranked

_ROWS = 8
_TOLERANCE = 1e-4  # relative to the largest value: float32 graphs that sum in another order stay far below


def verify_behaviour(recommender: OnnxRecommender) -> tuple[str, ...]:
    """Notes on what is allowed but worth knowing; BundleError at the first broken promise."""
    random = np.random.default_rng(0)
    lengths = random.integers(1, recommender.max_history + 1, size=_ROWS)
    histories = recommender.pad([random.integers(1, recommender.n_items + 1, size=length) for length in lengths])
    embedded = _embed(recommender, histories)
    _check_masks(recommender, embedded)
    _check_scores(recommender, embedded)
    if recommender.hooks[0].all_positions:
        _check_positions(recommender, histories)
    invariance = recommender.warm_up()
    if invariance.holds:
        return ()
    return (f"results depend on the batch ({', '.join(invariance.differs)}); it will be served in batches of one",)


def _embed(recommender: OnnxRecommender, histories: NDArray[np.int64]) -> Embedded:
    try:
        embedded = recommender.embed(histories)
    except Exception as error:  # onnxruntime raises its own classes straight from Exception
        raise BundleError(f"{TRUNK} fails on histories {histories.shape}: {error}") from error
    if embedded.activation.shape != (len(histories), recommender.hooks[0].dim):
        raise BundleError(f"{TRUNK} gives activations {embedded.activation.shape} for {len(histories)} histories")
    if not np.isfinite(embedded.activation).all():
        raise BundleError(f"{TRUNK} gives activations that are not finite")
    for name, tensor in embedded.passthrough.items():
        if len(tensor) != len(histories):
            raise BundleError(f"{TRUNK}: pass-through {name!r} has {len(tensor)} rows for {len(histories)} histories")
    return embedded


def _rank(recommender: OnnxRecommender, embedded: Embedded, k: int, **masks: NDArray[np.int64]) -> Ranked:
    try:
        ranked = recommender.rank(embedded.activation, embedded.passthrough, k=k, **masks)
    except Exception as error:
        shapes = {name: mask.shape for name, mask in masks.items()}
        raise BundleError(f"{HEAD} fails with k = {k} and {shapes or 'no masks'}: {error}") from error
    if ranked.items.shape != (len(embedded.activation), k) or ranked.scores.shape != ranked.items.shape:
        raise BundleError(f"{HEAD} gives items {ranked.items.shape} and scores {ranked.scores.shape} for k = {k}")
    return ranked


def _check_masks(recommender: OnnxRecommender, embedded: Embedded) -> None:
    """Everything ranked once, best first, never index 0; exclusions and candidates obeyed."""
    full = _rank(recommender, embedded, recommender.n_items)
    for row in range(_ROWS):
        items, scores = full.row(row)
        if sorted(items.tolist()) != list(range(1, recommender.n_items + 1)):
            raise BundleError(f"{HEAD} does not return each of the items 1..{recommender.n_items} exactly once")
        if not (np.diff(scores) <= 0).all():
            raise BundleError(f"{HEAD} does not return items best first")
    excluded = full.items[:, :1]
    shorter = _rank(recommender, embedded, recommender.n_items, exclude=np.pad(excluded, ((0, 0), (0, 2))))
    if any(excluded[row, 0] in shorter.row(row)[0] for row in range(_ROWS)):
        raise BundleError(f"{HEAD} returns items that `exclude` names")
    wanted = np.pad(full.items[:, -1:], ((0, 0), (0, 2)))
    only = _rank(recommender, embedded, recommender.n_items, candidates=wanted)
    if any(only.row(row)[0].tolist() != [wanted[row, 0]] for row in range(_ROWS)):
        raise BundleError(f"{HEAD} returns items that `candidates` does not name, or not those it names")


def _check_scores(recommender: OnnxRecommender, embedded: Embedded) -> None:
    """A dot-product head's scores follow from head.safetensors."""
    vectors, bias = recommender.item_vectors, recommender.item_bias
    if vectors is None:
        return
    expected = embedded.activation @ vectors.T + (0.0 if bias is None else bias)
    ranked = _rank(recommender, embedded, recommender.n_items)
    expected = np.take_along_axis(expected, ranked.items, axis=1)
    filled = np.isfinite(ranked.scores)
    difference = np.abs(np.where(filled, ranked.scores - expected, 0.0)).max()
    if difference > _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise BundleError(
            f"scores of {HEAD} differ by {difference:.2g} from activation . vector + bias of {HEAD_TENSORS}; "
            f"correct the vectors or leave the file out to import the head as opaque"
        )


def _check_positions(recommender: OnnxRecommender, histories: NDArray[np.int64]) -> None:
    """Each position of trunk_positions.onnx is what trunk.onnx gives for the history up to there."""
    positions = recommender.embed_positions(histories)
    rows, steps = np.nonzero(histories)
    prefixes = np.where(np.arange(recommender.max_history) <= steps[:, None], histories[rows], 0)
    alone = recommender.embed(prefixes).activation
    difference = np.abs(positions[rows, steps] - alone).max()
    if not difference <= _TOLERANCE * max(1.0, float(np.abs(alone).max())):
        raise BundleError(
            f"{TRUNK_POSITIONS} differs by {difference:.2g} from {TRUNK} on the same history cut short; "
            f"the model must be causal, with histories padded on the right"
        )
