"""What a recommender's answers mean to the pipeline, and whether they are what was asked for.

Each is checked before it is used: rows in another order, or of another version, would poison all that is learnt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.pipeline.sources import INTEREST, PAIR, SUBJECT, Floats, SourceModel, Tensors
from recsae.recommenders.address import address_of, split_address
from recsae.rpc.tensors import from_tensor
from recsae.v1 import common_pb2, recommender_pb2

_MAX_ROWS = 16_384
_ROWS = {recommender_pb2.ROW_KIND_INTEREST: INTEREST, recommender_pb2.ROW_KIND_PAIR: PAIR}


def source_model(info: recommender_pb2.ModelInfo, address: str) -> SourceModel:
    """The model at the hook that `address` names; FailedPreconditionError when there is no such hook."""
    if not info.hooks:
        raise FailedPreconditionError(f"model {info.name!r} names no hook; export it with at least one")
    first, wanted = info.hooks[0], split_address(address).hook
    if wanted == first.name:
        raise FailedPreconditionError(
            f"{wanted!r} is the first hook of model {info.name}, which is meant by {info.name!r} alone; ask for that"
        )
    hook = next((one for one in info.hooks if one.name == wanted), None) if wanted else first
    if hook is None:
        names = ", ".join(one.name for one in info.hooks)
        raise FailedPreconditionError(f"model {info.name} has no hook {wanted!r}; its hooks are {names}")
    rows = _ROWS.get(hook.rows, SUBJECT)
    return SourceModel(
        name=address_of(info.name, hook.name, first.name),
        version=info.version,
        hook=hook.name,
        dim=hook.dim,
        max_history=info.max_history,
        item_count=info.item_count,
        max_rows=min(info.max_export_rows or _MAX_ROWS, _MAX_ROWS),
        dot_product=not wanted and rows == SUBJECT and info.head == recommender_pb2.HEAD_KIND_DOT_PRODUCT,
        all_positions=hook.all_positions,
        rows=rows,
        interests=max(2, hook.interests) if rows == INTEREST else 1,
        ignores_history=info.ignores_history,
        reads_user_id=info.reads_user_id,
        attributes=tuple(info.attributes),
        steerable=not wanted and hook.steerable,
        base=info.name,
    )


def activations(model: SourceModel, batch: common_pb2.ActivationBatch, rows: int) -> Floats:
    """float32 [rows, interests * d]; FailedPreconditionError when they are of another version."""
    if batch.model_version != model.version:
        raise FailedPreconditionError(
            f"model {model.served_as} changed from version {model.version} to {batch.model_version} during the run; "
            "start a new run"
        )
    shape = (rows * model.interests, model.dim)
    x = from_tensor(batch.activations, name="activations", dtype=np.float32, shape=shape, finite=True)
    return x.reshape(rows, model.row_length)


def passthrough(batch: common_pb2.ActivationBatch, rows: int) -> Tensors:
    """Tensors by name; InvalidRequestError unless each has a row per activation row."""
    tensors = {one.name: from_tensor(one.tensor, name=f"passthrough {one.name!r}") for one in batch.passthrough}
    for name, tensor in tensors.items():
        if not tensor.ndim or len(tensor) != rows:
            raise InvalidRequestError(f"passthrough {name!r} has shape {list(tensor.shape)} for {rows} activation rows")
    return tensors


def check_order(model: SourceModel, batch: common_pb2.ActivationBatch, rows_of: Sequence[int], *, every: bool) -> None:
    """InvalidRequestError unless rows come by history, then position (where `every` is asked for), then interest."""
    n = len(batch.subjects)
    histories = np.fromiter((subject.history_index for subject in batch.subjects), np.int64, n)
    wanted = np.repeat(np.arange(len(rows_of)), np.asarray(rows_of, np.int64) * model.interests)
    if not np.array_equal(histories, wanted):
        raise InvalidRequestError("the recommender returned rows in another order than the histories asked for")
    if model.interests > 1:
        interests = np.fromiter((subject.interest for subject in batch.subjects), np.int64, n)
        if not np.array_equal(interests, np.tile(np.arange(model.interests), n // model.interests)):
            raise InvalidRequestError(
                f"the recommender returned rows that do not run through {model.interests} interests each"
            )
    if every:
        positions = np.fromiter((subject.position for subject in batch.subjects), np.int64, n)[:: model.interests]
        counted = np.concatenate([np.arange(1, count + 1) for count in rows_of])
        # What a pair has consumed may be counted with its item or without.
        if not (np.array_equal(positions, counted) or (model.rows == PAIR and np.array_equal(positions, counted - 1))):
            raise InvalidRequestError("the recommender returned positions that do not run from 1 in each history")


def check_candidates(batch: common_pb2.ActivationBatch, candidates: Sequence[str], subjects: int) -> None:
    """InvalidRequestError unless the rows of each subject are of the candidates, in order."""
    if [subject.item_id for subject in batch.subjects] != list(candidates) * subjects:
        raise InvalidRequestError("the recommender returned pairs of other candidates, or in another order, than asked")
