"""Messages of the recommender's contract to and from the handlers' values. Nothing here computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.recommenders.description import Hook
from recsae.recommenders.hook_messages import SIDES, hook_info
from recsae.recommenders.runtime import OnnxRecommender
from recsae.rpc.request import RequestInfo
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.steering.receipts import Receipt
from recsae.steering.segments import validate_segment
from recsae.steering.wire import attributes_from, segment_from
from recsae.steering.wire_plans import receipt_message
from recsae.v1 import common_pb2, recommender_pb2
from recsae_recommender.handlers.embed import EmbeddedSubject, EmbedQuery
from recsae_recommender.handlers.export import ExportPage, ExportQuery
from recsae_recommender.handlers.items import ItemsPage
from recsae_recommender.handlers.rank import RankedLists, RankQuery
from recsae_recommender.handlers.recommend import Recommendation, RecommendQuery
from recsae_recommender.handlers.sources import GivenSubject, GivenSubjects, ItemPage, UserPage, most_rows
from recsae_recommender.ranking import RankedList

_HEADS = {"dot_product": recommender_pb2.HEAD_KIND_DOT_PRODUCT, "opaque": recommender_pb2.HEAD_KIND_OPAQUE}


def recommend_query(request: recommender_pb2.RecommendRequest, info: RequestInfo) -> RecommendQuery:
    """The handler's query for a request."""
    return RecommendQuery(
        request_id=info.request_id,
        model=request.model,
        user_id=request.user_id,
        history=list(request.history.item_ids) if request.HasField("history") else None,
        k=request.k,
        exclude=list(request.exclude_item_ids),
        candidates=list(request.candidate_item_ids),
        include_seen=request.include_seen,
        attributes=attributes_from(request.attributes),
        without_steering=request.without_steering,
        deadline=info.deadline,
    )


class ReceiptMessages:
    """Messages for receipts: requests that no policy matched share one receipt, whose message is made once."""

    def __init__(self) -> None:
        self._newest: tuple[Receipt | None, common_pb2.Receipt] = (None, common_pb2.Receipt())

    def __call__(self, receipt: Receipt) -> common_pb2.Receipt:
        """The message, not to be changed."""
        known, message = self._newest
        if receipt is not known:
            message = receipt_message(receipt)
            self._newest = (receipt, message)
        return message


def recommend_response(
    found: Recommendation, info: RequestInfo, receipts: ReceiptMessages
) -> recommender_pb2.RecommendResponse:
    """The response for a recommendation."""
    receipt = receipts(found.ranking.receipt)
    response = recommender_pb2.RecommendResponse(
        model=found.recommender.name, triple=receipt.triple, receipt=receipt, request_id=info.request_id
    )
    add_items(response.items.add, found.recommender, found.ranking.items)
    return response


def rank_query(request: recommender_pb2.RankRequest) -> RankQuery:
    """The handler's query for a request; InvalidRequestError for malformed tensors."""
    return RankQuery(
        activations=from_tensor(
            request.activations, name="activations", dtype=np.float32, shape=(None, None), finite=True
        ),
        passthrough=_named(request.passthrough),
        model=request.model,
        model_version=request.model_version,
        k=request.k,
        exclude=[list(one.item_ids) for one in request.exclude],
        candidates=[list(one.item_ids) for one in request.candidates],
    )


def rank_response(found: RankedLists) -> recommender_pb2.RankResponse:
    """The response for ranked lists."""
    response = recommender_pb2.RankResponse(model_version=found.recommender.version)
    for ranked in found.lists:
        add_items(response.lists.add().items.add, found.recommender, ranked)
    return response


def embed_query(request: recommender_pb2.EmbedRequest) -> EmbedQuery:
    """The handler's query for a request."""
    return EmbedQuery(
        model=request.model,
        hook=request.hook,
        user_id=request.user_id,
        history=list(request.history.item_ids) if request.HasField("history") else None,
        attributes=attributes_from(request.attributes),
        candidates=list(request.candidate_item_ids),
    )


def embed_response(found: EmbeddedSubject) -> recommender_pb2.EmbedResponse:
    """The response for one embedded subject."""
    position, pairs = len(found.subject.indices), found.hook.rows == "pair"
    subjects = [
        common_pb2.RowSubject(
            user_id=found.subject.user_id,
            position=position,
            item_id=found.item_ids[row] if pairs else "",
            interest=0 if pairs else row,
        )
        for row in range(len(found.activations))
    ]
    return recommender_pb2.EmbedResponse(
        batch=_batch(found.recommender, found.hook, found.activations, subjects, found.passthrough),
        history=common_pb2.History(item_ids=found.subject.item_ids),
    )


def export_query(request: recommender_pb2.ExportActivationsRequest, info: RequestInfo) -> ExportQuery:
    """The handler's query for a request; InvalidRequestError when it names no source."""
    source: GivenSubjects | UserPage | ItemPage
    match request.WhichOneof("source"):
        case "histories":
            source = GivenSubjects([GivenSubject(list(one.item_ids)) for one in request.histories.histories])
        case "subjects":
            source = GivenSubjects([_subject(one) for one in request.subjects.subjects])
        case "users":
            source = _user_page(request.users)
        case "items":
            source = ItemPage(request.items.cursor, request.items.limit)
        case _:
            raise InvalidRequestError("no source came; set histories, subjects, users or items")
    return ExportQuery(
        source=source,
        model=request.model,
        model_version=request.model_version,
        hook=request.hook,
        all_positions=request.positions == recommender_pb2.POSITIONS_ALL,
        candidates=list(request.candidate_item_ids),
        deadline=info.deadline,
    )


def export_response(page: ExportPage) -> recommender_pb2.ExportActivationsResponse:
    """The response for a page of activations."""
    subjects = [
        common_pb2.RowSubject(
            user_id=row.user_id,
            item_id=row.item_id,
            position=row.position,
            history_index=row.history_index,
            interest=row.interest,
        )
        for row in page.rows
    ]
    return recommender_pb2.ExportActivationsResponse(
        batch=_batch(page.recommender, page.hook, page.activations, subjects, page.passthrough),
        next_cursor=page.next_cursor,
    )


def items_response(page: ItemsPage) -> recommender_pb2.ExportItemsResponse:
    """The response for a page of items."""
    return recommender_pb2.ExportItemsResponse(
        item_ids=page.item_ids,
        titles=page.titles,
        vectors=None if page.vectors is None else to_tensor(page.vectors),
        biases=None if page.biases is None else to_tensor(page.biases),
        model_version=page.recommender.version,
        next_cursor=page.next_cursor,
    )


def model_info(recommender: OnnxRecommender) -> recommender_pb2.ModelInfo:
    """The description of a model."""
    return recommender_pb2.ModelInfo(
        name=recommender.name,
        version=recommender.version,
        family=recommender.bundle.description.family,
        hooks=[hook_info(hook) for hook in recommender.hooks],
        max_history=recommender.max_history,
        item_count=recommender.n_items,
        head=_HEADS.get(recommender.head, recommender_pb2.HEAD_KIND_UNSPECIFIED),
        max_export_rows=most_rows(recommender),
        ignores_history=not recommender.reads.history,
        reads_user_id=recommender.reads.user,
        attributes=[one.name for one in recommender.reads.attributes],
    )


def add_items(add: Callable[..., object], recommender: OnnxRecommender, ranked: RankedList) -> None:
    """Adds the items of a list, with ids and titles, by a message's own `add`: half the time of copying them in."""
    ids, titles = recommender.bundle.item_ids, recommender.bundle.titles
    for index, score in zip(ranked.indices, ranked.scores, strict=True):
        add(item_id=ids[index - 1], score=score, title=titles[index - 1] if titles else "")


def _batch(
    recommender: OnnxRecommender,
    hook: Hook,
    activations: NDArray[np.float32],
    subjects: Sequence[common_pb2.RowSubject],
    passthrough: Mapping[str, NDArray[Any]],
) -> common_pb2.ActivationBatch:
    return common_pb2.ActivationBatch(
        model=recommender.name,
        model_version=recommender.version,
        hook=hook.name,
        side=SIDES[hook.side],
        activations=to_tensor(activations),
        subjects=subjects,
        passthrough=[
            common_pb2.NamedTensor(name=name, tensor=to_tensor(tensor)) for name, tensor in passthrough.items()
        ],
    )


def _user_page(message: recommender_pb2.UserPage) -> UserPage:
    segment = segment_from(message.segment) if message.HasField("segment") else None
    if segment is not None:
        validate_segment(segment)
    return UserPage(message.cursor, message.limit, segment)


def _subject(message: recommender_pb2.Subject) -> GivenSubject:
    return GivenSubject(list(message.history.item_ids), message.user_id, attributes_from(message.attributes))


def _named(tensors: Sequence[common_pb2.NamedTensor]) -> dict[str, NDArray[Any]]:
    return {one.name: from_tensor(one.tensor, name=f"passthrough {one.name!r}", finite=True) for one in tensors}
