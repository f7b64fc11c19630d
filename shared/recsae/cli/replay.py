"""Replayed traffic: users of a data set asked again, with steering and without, to see what a policy does to lists.

Bounded concurrency, a deadline on each call, and a user whose call fails is counted and left out. Not here: whom to ask
(`experiment_users`) and what the lists are compared in (`recsae.steering.experiment`).
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import grpc
import numpy as np
from numpy.typing import NDArray

from recsae.exposures.record import REPLAYED
from recsae.recommenders.ranked import Ranked
from recsae.rpc.request import REQUEST_ID_KEY
from recsae.rpc.status import error_from
from recsae.steering.arms import Place, Role, place_of
from recsae.steering.receipts import Receipt
from recsae.steering.wire_plans import receipt_from
from recsae.v1 import common_pb2, recommender_pb2

_CALLS_AT_ONCE = 16
_FAILED, _SHADOW = "call_failed", "in_shadow"


class Recommend(Protocol):
    """The `Recommend` method of a stub."""

    def __call__(
        self,
        request: recommender_pb2.RecommendRequest,
        /,
        *,
        timeout: float,
        metadata: tuple[tuple[str, str | bytes], ...],
    ) -> recommender_pb2.RecommendResponse:
        """The response, or `grpc.RpcError` within `timeout` seconds."""
        ...


@dataclass(frozen=True)
class Asked:
    """A user: `row` says whose answer it is, the history is oldest first."""

    row: int
    user_id: str
    item_ids: Sequence[str]


@dataclass(frozen=True)
class Question:
    """What every call asks: lists of `k` items of one model, the attributes of the request, within `timeout_s`."""

    model: str
    policy_id: str
    k: int
    timeout_s: float = 5.0
    attributes: Mapping[str, common_pb2.AttributeValue] = field(default_factory=dict)


@dataclass
class Replayed:
    """Lists of users by arm: row numbers, lists with steering, and the same users' lists without any.

    `outside` counts users in no arm by reason, `others` by role those whom other policies steered, too or alone.
    """

    rows: dict[Place, list[int]] = field(default_factory=dict)
    steered: dict[Place, list[Ranked]] = field(default_factory=dict)
    bare: dict[Place, list[Ranked]] = field(default_factory=dict)
    outside: Counter[str] = field(default_factory=Counter)
    others: Counter[Role] = field(default_factory=Counter)

    def add(self, row: int, place: Place, receipt: Receipt, steered: Ranked, bare: Ranked) -> None:
        """Takes the answers of one user in an arm."""
        self.rows.setdefault(place, []).append(row)
        self.steered.setdefault(place, []).append(steered)
        self.bare.setdefault(place, []).append(bare)
        self.others[place.role] += len(receipt.applied) > (place.role is Role.APPLIED)


@dataclass(frozen=True)
class _Answer:
    """One user's answers; `failure` when a call failed, `bare` None where no second call was worth it."""

    asked: Asked
    place: Place | str = ""
    receipt: Receipt | None = None
    steered: Ranked | None = None
    bare: Ranked | None = None
    failure: grpc.RpcError | None = None


def replay(
    recommend: Recommend,
    question: Question,
    users: Sequence[Asked],
    index: Mapping[str, int],
    *,
    concurrency: int = _CALLS_AT_ONCE,
    on_done: Callable[[int], None] = lambda users: None,
) -> Replayed:
    """Asks for each user once, and once more without steering for those in an arm; `index` numbers items from 1.

    RecsaeError of the server when every one of the first calls fails.
    """
    found = Replayed()
    for answers in _answers(recommend, question, users, index, concurrency):
        for answer in answers:
            _file(found, answer)
        if not found.rows and found.outside.total() == sum(one.failure is not None for one in answers):
            failure = answers[0].failure
            assert failure is not None, "every answer failed"
            raise error_from(failure) from failure
        on_done(len(answers))
    return found


def _answers(
    recommend: Recommend, question: Question, users: Sequence[Asked], index: Mapping[str, int], concurrency: int
) -> Iterator[list[_Answer]]:
    def ask(user: Asked) -> _Answer:
        return _asked(recommend, question, user, index)

    with ThreadPoolExecutor(concurrency, thread_name_prefix="recsae-replay") as pool:
        step = concurrency * 4  # few enough that an interrupt does not wait for all users
        for begin in range(0, len(users), step):
            yield list(pool.map(ask, users[begin : begin + step]))


def _asked(recommend: Recommend, question: Question, user: Asked, index: Mapping[str, int]) -> _Answer:
    request = recommender_pb2.RecommendRequest(
        model=question.model,
        user_id=user.user_id,
        history=common_pb2.History(item_ids=user.item_ids),
        k=question.k,
        attributes=question.attributes,
    )

    def call(without: bool) -> recommender_pb2.RecommendResponse:
        request.without_steering = without
        request_id: tuple[tuple[str, str | bytes], ...] = ((REQUEST_ID_KEY, f"{REPLAYED}{uuid.uuid4().hex}"),)
        return recommend(request, timeout=question.timeout_s, metadata=request_id)

    try:
        reply = call(False)
        receipt = receipt_from(reply.receipt)
        place = place_of(
            question.policy_id,
            reason=receipt.reason,
            applied=receipt.applied,
            held_out=receipt.held_out,
            shadow=receipt.shadow.policies if receipt.shadow is not None else (),
        )
        compared = isinstance(place, Place) and place.role is not Role.SHADOW
        bare = _ranked(call(True), question.k, index) if compared else None
    except grpc.RpcError as error:
        return _Answer(user, failure=error)
    return _Answer(user, place, receipt, _ranked(reply, question.k, index), bare)


def _file(found: Replayed, answer: _Answer) -> None:
    """Puts a user's answers where they belong."""
    if answer.failure is not None:
        code = answer.failure.code() if isinstance(answer.failure, grpc.Call) else None
        found.outside[f"{_FAILED}: {code.name.lower() if code else 'unknown'}"] += 1
    elif isinstance(answer.place, str):
        found.outside[answer.place] += 1
    elif answer.place.role is Role.SHADOW:
        found.outside[_SHADOW] += 1
    elif answer.receipt is not None and answer.steered is not None and answer.bare is not None:
        found.add(answer.asked.row, answer.place, answer.receipt, answer.steered, answer.bare)


def _ranked(reply: recommender_pb2.RecommendResponse, k: int, index: Mapping[str, int]) -> Ranked:
    """The list as one row; an item the data set does not hold keeps its place with index 0."""
    items: NDArray[np.int64] = np.zeros((1, k), np.int64)
    scores = np.full((1, k), -np.inf, np.float32)
    for at, item in enumerate(reply.items):
        items[0, at], scores[0, at] = index.get(item.item_id, 0), item.score
    return Ranked(items, scores)
