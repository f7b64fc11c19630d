"""Messages of the exporter contract to and from the SDK's values. Nothing here computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsae.recommenders.hook_messages import SIDES, hook_info
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.sdk.exporting import Exported
from recsae.sdk.model import DotProduct, Head, ModelCard
from recsae.sdk.ranking import RankAsk, RankedList
from recsae.sdk.subjects import Subject
from recsae.steering.wire import attributes_from
from recsae.v1 import common_pb2, recommender_pb2


def model_info(card: ModelCard, head: Head | None) -> recommender_pb2.ModelInfo:
    """The description of a model."""
    exact = isinstance(head, DotProduct) and card.hooks[0].rows == "subject"
    return recommender_pb2.ModelInfo(
        name=card.name,
        version=card.version,
        family=card.family,
        hooks=[hook_info(hook) for hook in card.hooks],
        max_history=card.max_history,
        item_count=len(card.items),
        head=recommender_pb2.HEAD_KIND_DOT_PRODUCT if exact else recommender_pb2.HEAD_KIND_OPAQUE,
        max_export_rows=min(card.most_rows(hook) for hook in card.hooks),
        ignores_history=not card.reads_history,
        reads_user_id=card.users is not None,
        attributes=card.attributes,
    )


def subjects_of(request: recommender_pb2.ExportActivationsRequest) -> list[Subject]:
    """Subjects a request carries, as histories or in full."""
    if request.WhichOneof("source") == "histories":
        return [Subject(item_ids=list(one.item_ids)) for one in request.histories.histories]
    return [
        Subject(one.user_id, list(one.history.item_ids), attributes_from(one.attributes))
        for one in request.subjects.subjects
    ]


def subject_of(request: recommender_pb2.EmbedRequest) -> Subject:
    """The subject of a single embedding."""
    history = list(request.history.item_ids) if request.HasField("history") else None
    return Subject(request.user_id, history, attributes_from(request.attributes))


def batch_message(card: ModelCard, exported: Exported) -> common_pb2.ActivationBatch:
    """The message for activations."""
    side = next(hook.side for hook in card.hooks if hook.name == exported.hook)
    return common_pb2.ActivationBatch(
        model=card.name,
        model_version=card.version,
        hook=exported.hook,
        side=SIDES[side],
        activations=to_tensor(exported.activations),
        subjects=[
            common_pb2.RowSubject(
                user_id=row.user_id,
                item_id=row.item_id,
                interest=row.interest,
                position=row.position,
                history_index=row.history_index,
            )
            for row in exported.rows
        ],
    )


def items_message(card: ModelCard, head: Head | None, first: int, last: int) -> recommender_pb2.ExportItemsResponse:
    """Items by place, with the vectors and biases of a dot-product head."""
    exact = head if isinstance(head, DotProduct) and card.hooks[0].rows == "subject" else None
    return recommender_pb2.ExportItemsResponse(
        item_ids=card.items.ids[first:last],
        titles=card.titles[first:last],
        vectors=None if exact is None else to_tensor(exact.vectors[first:last]),
        biases=None if exact is None or exact.biases is None else to_tensor(exact.biases[first:last]),
        model_version=card.version,
    )


def rank_ask(request: recommender_pb2.RankRequest) -> RankAsk:
    """What a request asks the head; InvalidRequestError for a malformed tensor."""
    x = from_tensor(request.activations, name="activations", dtype=np.float32, shape=(None, None), finite=True)
    return RankAsk(
        activations=x,
        k=request.k,
        exclude=[list(one.item_ids) for one in request.exclude],
        candidates=[list(one.item_ids) for one in request.candidates],
    )


def rank_message(card: ModelCard, lists: Sequence[RankedList]) -> recommender_pb2.RankResponse:
    """The message for ranked lists."""
    ids, titles = card.items.ids, card.titles
    return recommender_pb2.RankResponse(
        lists=[
            recommender_pb2.RankedList(
                items=[
                    common_pb2.ScoredItem(item_id=ids[place], score=score, title=titles[place] if titles else "")
                    for place, score in zip(one.places.tolist(), one.scores.tolist(), strict=True)
                ]
            )
            for one in lists
        ],
        model_version=card.version,
    )
