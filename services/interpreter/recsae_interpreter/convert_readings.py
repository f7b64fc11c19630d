"""Messages of the recommender's services to and from readings. Nothing here computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from recsae.errors import FailedPreconditionError
from recsae.recommenders.description import RowKind
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.v1 import common_pb2, recommender_pb2
from recsae_interpreter.readings import (
    Batch,
    Floats,
    HeadRows,
    HookFacts,
    ItemTable,
    ModelFacts,
    Reading,
    RowOwner,
    Rows,
)

_KINDS: Mapping[int, RowKind] = {
    recommender_pb2.ROW_KIND_INTEREST: "interest",
    recommender_pb2.ROW_KIND_PAIR: "pair",
}


def facts_of(message: recommender_pb2.GetModelResponse) -> ModelFacts:
    """What a recommender says of a model."""
    info = message.model
    return ModelFacts(
        name=info.name,
        version=info.version,
        hooks=tuple(
            HookFacts(hook.name, _KINDS.get(hook.rows, "subject"), max(1, hook.interests)) for hook in info.hooks
        ),
        dot_product=info.head == recommender_pb2.HEAD_KIND_DOT_PRODUCT,
        ignores_history=info.ignores_history,
    )


def batch_of(message: common_pb2.ActivationBatch) -> Batch:
    """A batch; InvalidRequestError when it is malformed or not finite, or when rows and subjects differ in number."""
    activations = _activations(message)
    if message.subjects and len(message.subjects) != len(activations):
        raise _uneven(message, activations)
    return Batch(
        model=message.model,
        hook=message.hook,
        model_version=message.model_version,
        activations=activations,
        owners=tuple(
            RowOwner(one.history_index, one.user_id, one.position, one.interest, one.item_id)
            for one in message.subjects
        ),
        passthrough={
            one.name: from_tensor(one.tensor, name=f"passthrough {one.name!r}", finite=True)
            for one in message.passthrough
        },
    )


def rows_of(message: common_pb2.ActivationBatch) -> Rows:
    """All rows of a batch of histories; FailedPreconditionError when they do not say which history they are of."""
    activations = _activations(message)
    if len(message.subjects) != len(activations):
        raise _uneven(message, activations)
    subject = np.array([one.history_index for one in message.subjects], np.int64)
    return Rows(message.model_version, activations, subject)


def rank_request(
    reading: Reading, lists: Sequence[HeadRows], *, k: int, candidates: Sequence[str]
) -> recommender_pb2.RankRequest:
    """Asks for one list per entry; the rows of a list follow each other."""
    places = np.concatenate([one.places for one in lists])
    exclude: list[Sequence[str]] = []
    ranked: list[Sequence[str]] = []
    if reading.rows == "pair":
        ranked = [[reading.item_ids[place] for place in one.places.tolist()] for one in lists]
    elif candidates:
        ranked = [candidates] * len(lists)
    elif reading.history:
        exclude = [reading.history] * len(lists)
    return recommender_pb2.RankRequest(
        model=reading.model,
        model_version=reading.model_version,
        activations=to_tensor(np.concatenate([one.activations for one in lists])),
        passthrough=[
            common_pb2.NamedTensor(name=name, tensor=to_tensor(tensor[places]))
            for name, tensor in reading.passthrough.items()
        ],
        k=k,
        exclude=[recommender_pb2.ItemList(item_ids=ids) for ids in exclude],
        candidates=[recommender_pb2.ItemList(item_ids=ids) for ids in ranked],
    )


def item_table(pages: Iterable[recommender_pb2.ExportItemsResponse], dim: int) -> ItemTable:
    """The table of all pages; vectors are of length `dim`."""
    ids: list[str] = []
    vectors: list[Floats] = [np.zeros((1, dim), np.float32)]
    biases: list[Floats] = [np.zeros(1, np.float32)]
    for page in pages:
        count = len(page.item_ids)
        ids += page.item_ids
        vectors.append(from_tensor(page.vectors, name="vectors", dtype=np.float32, shape=(count, dim), finite=True))
        if page.HasField("biases"):
            biases.append(from_tensor(page.biases, name="biases", dtype=np.float32, shape=(count,), finite=True))
    return ItemTable(
        {item_id: place for place, item_id in enumerate(ids, start=1)},
        np.concatenate(vectors),
        np.concatenate(biases) if len(biases) > 1 else None,
    )


def _activations(message: common_pb2.ActivationBatch) -> Floats:
    return from_tensor(message.activations, name="activations", dtype=np.float32, shape=(None, None), finite=True)


def _uneven(message: common_pb2.ActivationBatch, activations: Floats) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"{len(activations)} activation rows of model {message.model} came with {len(message.subjects)} subjects; name "
        "one for each"
    )
