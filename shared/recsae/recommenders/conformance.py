"""Runs a recommender on made-up subjects and checks that it keeps the promises serving and training rely on.

Subjects are drawn with a fixed seed; a check that fails says which promise was broken and how it shows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsae.recommenders.bundle import HEAD, HEAD_TENSORS, TRUNK, TRUNK_POSITIONS
from recsae.recommenders.description import BundleError
from recsae.recommenders.inputs import Ints, ModelInputs, made_up_inputs, model_inputs
from recsae.recommenders.invariance import batch_invariance
from recsae.recommenders.ranked import Ranked
from recsae.recommenders.runtime import Embedded, OnnxRecommender

_ROWS = 8
# A pair model is not asked for more pairs than this of each subject.
_MOST_CANDIDATES = 512
_TOLERANCE = 1e-4  # relative to the largest value: float32 graphs that sum in another order stay far below


def verify_behaviour(recommender: OnnxRecommender) -> tuple[str, ...]:
    """Notes on what is allowed but worth knowing; BundleError at the first broken promise."""
    inputs = made_up_inputs(recommender.bundle, _ROWS)
    slate = _slate(recommender)
    embedded = _embed(recommender, inputs, slate)
    _check_masks(recommender, embedded, slate)
    _check_scores(recommender, embedded)
    _check_hooks(recommender, inputs)
    _check_positions(recommender, inputs)
    if recommender.reads.empty_history:
        _check_cold_start(recommender, slate)
    invariance = batch_invariance(recommender)
    if invariance.holds:
        return ()
    return (f"results depend on the batch ({', '.join(invariance.differs)}); it will be served in batches of one",)


def _slate(recommender: OnnxRecommender) -> Ints:
    """Items ranked for each subject, int64 [n, c]: every item, or the first of them where pairs are scored."""
    most = _MOST_CANDIDATES if recommender.hooks[0].rows == "pair" else recommender.n_items
    return np.tile(np.arange(1, min(most, recommender.n_items) + 1), (_ROWS, 1))


def _embed(recommender: OnnxRecommender, inputs: ModelInputs, slate: Ints) -> Embedded:
    hook, n = recommender.hooks[0], len(inputs)
    try:
        embedded = recommender.embed_pairs(inputs, slate) if hook.rows == "pair" else recommender.embed(inputs)
    except Exception as error:  # onnxruntime raises its own classes straight from Exception
        raise BundleError(f"{TRUNK} fails on histories {inputs.history.shape}: {error}") from error
    middle = {"subject": (), "interest": (hook.interests,), "pair": (slate.shape[1],)}[hook.rows]
    if embedded.activation.shape != (n, *middle, hook.dim):
        raise BundleError(f"{TRUNK} gives activations {embedded.activation.shape} for {n} histories")
    if not np.isfinite(embedded.activation).all():
        raise BundleError(f"{TRUNK} gives activations that are not finite")
    for name, tensor in embedded.passthrough.items():
        if len(tensor) != n:
            raise BundleError(f"{TRUNK}: pass-through {name!r} has {len(tensor)} rows for {n} histories")
    return embedded


def _rank(recommender: OnnxRecommender, embedded: Embedded, k: int, **masks: Ints) -> Ranked:
    try:
        ranked = recommender.rank(embedded.activation, embedded.passthrough, k=k, **masks)
    except Exception as error:
        shapes = {name: mask.shape for name, mask in masks.items()}
        raise BundleError(f"{HEAD} fails with k = {k} and {shapes or 'no masks'}: {error}") from error
    if ranked.items.shape != (len(embedded.activation), k) or ranked.scores.shape != ranked.items.shape:
        raise BundleError(f"{HEAD} gives items {ranked.items.shape} and scores {ranked.scores.shape} for k = {k}")
    return ranked


def _check_masks(recommender: OnnxRecommender, embedded: Embedded, slate: Ints) -> None:
    """Everything ranked once, best first, never index 0; exclusions and candidates obeyed."""
    pairs = recommender.hooks[0].rows == "pair"
    whole = {"candidates": slate} if pairs else {}
    k = slate.shape[1]
    full = _rank(recommender, embedded, k, **whole)
    for row in range(_ROWS):
        items, scores = full.row(row)
        if sorted(items.tolist()) != slate[row].tolist():
            raise BundleError(f"{HEAD} does not return each of the items 1..{k} exactly once")
        if not (np.diff(scores) <= 0).all():
            raise BundleError(f"{HEAD} does not return items best first")
    excluded = full.items[:, :1]
    shorter = _rank(recommender, embedded, k, exclude=np.pad(excluded, ((0, 0), (0, 2))), **whole)
    if any(excluded[row, 0] in shorter.row(row)[0] for row in range(_ROWS)):
        raise BundleError(f"{HEAD} returns items that `exclude` names")
    if pairs:  # masking is done outside of the graph, which scores what it is given
        return
    wanted = np.pad(full.items[:, -1:], ((0, 0), (0, 2)))
    only = _rank(recommender, embedded, k, candidates=wanted)
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


def _check_hooks(recommender: OnnxRecommender, inputs: ModelInputs) -> None:
    """Every further hook gives finite rows of its size."""
    for hook in recommender.hooks[1:]:
        try:
            found = recommender.embed(inputs, hook=hook.name).activation
        except Exception as error:  # onnxruntime raises its own classes straight from Exception
            raise BundleError(f"{TRUNK} has no activations at hook {hook.name!r}: {error}") from error
        if found.shape[-1] != hook.dim or len(found) != len(inputs) or not np.isfinite(found).all():
            raise BundleError(f"{TRUNK} gives {found.shape} at hook {hook.name!r}, expected finite rows of {hook.dim}")


def _check_positions(recommender: OnnxRecommender, inputs: ModelInputs) -> None:
    """Each position of trunk_positions.onnx is what trunk.onnx gives for the history up to there, at every hook."""
    rows, steps = np.nonzero(inputs.history)
    alone = inputs.take(rows)
    prefixes = np.where(np.arange(recommender.max_history) <= steps[:, None], alone.history, 0)
    alone = ModelInputs(prefixes, alone.user, alone.attributes)
    for hook in recommender.hooks:
        if not hook.all_positions:
            continue
        positions = recommender.embed_positions(inputs, hook=hook.name)[rows, steps]
        expected = recommender.embed(alone, hook=hook.name).activation
        difference = _furthest(positions, expected)
        if not difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise BundleError(
                f"{TRUNK_POSITIONS} differs by {difference:.2g} from {TRUNK} on the same history cut short, at hook "
                f"{hook.name!r}; the model must be causal, with histories padded on the right"
            )


def _check_cold_start(recommender: OnnxRecommender, slate: Ints) -> None:
    """A subject nobody knows anything about is answered."""
    nobody = model_inputs(recommender.bundle, [[]] * _ROWS)
    _check_masks(recommender, _embed(recommender, nobody, slate), slate)


def _furthest(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max(initial=0.0))
