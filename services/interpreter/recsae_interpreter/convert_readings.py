"""Messages of the recommender's services to and from readings. Nothing here computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from recsae.errors import FailedPreconditionError
from recsae.recommenders.address import split_address
from recsae.recommenders.description import RowKind
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.steering.wire import attribute_message, segment_message
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
    Subject,
    UserPage,
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
        item_count=info.item_count,
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


def subject_message(subject: Subject) -> recommender_pb2.Subject:
    """The message for a subject whose history is given."""
    return recommender_pb2.Subject(
        user_id=subject.user_id,
        history=common_pb2.History(item_ids=subject.history or ()),
        attributes={name: attribute_message(value) for name, value in subject.attributes.items()},
    )


def users_request(page: UserPage) -> recommender_pb2.ExportActivationsRequest:
    """Asks for a page of users."""
    address = split_address(page.model)
    segment = None if page.segment is None else segment_message(page.segment)
    return recommender_pb2.ExportActivationsRequest(
        model=address.model,
        model_version=page.model_version,
        hook=address.hook,
        positions=recommender_pb2.POSITIONS_LAST,
        users=recommender_pb2.UserPage(cursor=page.cursor, limit=page.limit, segment=segment),
    )


def rank_request(
    readings: Sequence[Reading], lists: Sequence[HeadRows], *, k: int, candidates: Sequence[str]
) -> recommender_pb2.RankRequest:
    """Asks for one list per entry, each of its own reading; the rows of a list follow each other."""
    first = readings[0]
    exclude: list[Sequence[str]] = []
    ranked: list[Sequence[str]] = []
    if first.rows == "pair":
        ranked = [[of.item_ids[at] for at in one.places.tolist()] for of, one in zip(readings, lists, strict=True)]
    elif candidates:
        ranked = [candidates] * len(lists)
    elif any(of.history for of in readings):
        exclude = [of.history for of in readings]
    return recommender_pb2.RankRequest(
        model=first.model,
        model_version=first.model_version,
        activations=to_tensor(np.concatenate([one.activations for one in lists])),
        passthrough=[
            common_pb2.NamedTensor(
                name=name,
                tensor=to_tensor(
                    np.concatenate([of.passthrough[name][one.places] for of, one in zip(readings, lists, strict=True)])
                ),
            )
            for name in first.passthrough
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
