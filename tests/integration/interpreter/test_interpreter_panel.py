"""A preview for many users, through a real interpreter and the recommender it asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from tests.integration.interpreter.conftest import GENRES, MODEL, N_ITEMS, N_USERS

from recsae.datasets.schema import load_dataset
from recsae.steering.policies import Window
from recsae.steering.wire import window_message
from recsae.v1 import common_pb2, recommender_pb2, steering_pb2

Start = Callable[..., Any]
UP = steering_pb2.Operation(concept_id="c-0-3", kind=steering_pb2.OPERATION_KIND_ADD, value=2.0)
OFF = steering_pb2.Operation(concept_id="c-0-5", kind=steering_pb2.OPERATION_KIND_ABLATE)
HANDLE = steering_pb2.HandleOperation(facet="genre=Horror", dose=1.0)


@pytest.fixture
def platform(start_interpreter: Start, start_recommender: Start, stubs: Start, promote: Start) -> Any:
    """Stubs of an interpreter, and of the recommender it asks."""
    promote(0)
    recommender = start_recommender()
    interpreter = start_interpreter(recommenders=f"127.0.0.1:{recommender.server.port}")
    return stubs(interpreter.server.port), stubs(recommender.server.port)


def refused(call: Callable[..., object], request: object, **options: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        call(request, **options)
    answer: Any = error.value
    return answer.code(), answer.details()


def test_a_panel_shows_what_previews_of_its_users_show(platform: Any) -> None:
    steering = platform[0].steering
    found = steering.PreviewPanel(steering_pb2.PreviewPanelRequest(operations=[UP, OFF], handles=[HANDLE]))
    each = [
        steering.Preview(steering_pb2.PreviewRequest(user_id=f"u-{n}", operations=[UP, OFF], handles=[HANDLE]))
        for n in range(N_USERS)
    ]
    assert (found.users, found.model, found.facet) == (N_USERS, MODEL, "genre=Horror")
    assert found.triple == each[0].triple
    assert found.overlap.mean == pytest.approx(np.mean([one.overlap for one in each]))
    assert found.entered.mean == pytest.approx(np.mean([len(one.entered_item_ids) for one in each]))
    assert found.moved.mean == pytest.approx(np.mean([one.moved for one in each if one.overlap]), rel=1e-5)
    before = [[item.item_id for item in one.before] for one in each]
    after = [[one.item.item_id for one in preview.after] for preview in each]
    assert found.coverage.before == pytest.approx(len({item for one in before for item in one}) / N_ITEMS)
    for facet, pair in [(found.facet, found.target_share), *((one.facet, one.share) for one in found.off_target)]:
        for lists, value in ((before, pair.before), (after, pair.after)):
            genre = GENRES.index(facet)
            carried = [[int(item[2:]) % 3 == (genre + 1) % 3 for item in one] for one in lists]
            assert value == pytest.approx(np.mean(carried), rel=1e-5)
    places = [[(int(item[2:]) - 1) / (N_ITEMS - 1) for item in one] for one in after]
    assert found.popularity.after == pytest.approx(np.mean(places), rel=1e-5)
    assert found.expected_loss_upper == pytest.approx(2 * 0.009 + 0.009 / 2, rel=1e-5)
    example = found.examples[0]
    assert list(example.after) == list(each[int(example.user_id[2:])].after)
    entered, left = each[0].entered_item_ids, each[0].left_item_ids
    assert set(entered) == set(after[0]) - set(before[0])
    assert set(left) == set(before[0]) - set(after[0])


def test_the_hidden_item_is_sought_as_a_user_without_it_would_be_served(platform: Any, published: Any) -> None:
    interpreter, recommender = platform
    found = interpreter.steering.PreviewPanel(steering_pb2.PreviewPanelRequest(operations=[UP], k=20))
    dataset = load_dataset(published.histories)
    gains = []
    for user in range(N_USERS):
        ids = [dataset.items.ids[item - 1] for item in dataset.histories.of(user).tolist()]
        request = recommender_pb2.RecommendRequest(history=common_pb2.History(item_ids=ids[:-1]), k=20)
        listed = [item.item_id for item in recommender.recommender.Recommend(request).items]
        gains.append(1 / np.log2(listed.index(ids[-1]) + 2) if ids[-1] in listed else 0.0)
    assert found.ndcg.before == pytest.approx(np.mean(gains), rel=1e-5)
    assert found.ndcg.difference.low <= found.ndcg.difference.mean <= found.ndcg.difference.high


def test_a_segment_is_judged_by_the_recommender_and_no_attribute_comes_back(platform: Any) -> None:
    interpreter, recommender = platform
    danes = common_pb2.Segment(
        equals=common_pb2.SegmentEquals(attribute="country", value=common_pb2.AttributeValue(text="DK"))
    )
    found = interpreter.steering.PreviewPanel(steering_pb2.PreviewPanelRequest(operations=[UP], segment=danes))
    assert found.users == len(range(0, N_USERS, 3))
    assert {int(one.user_id[2:]) % 3 for one in found.examples} == {0}
    page = recommender_pb2.UserPage(segment=danes)
    answer = recommender.exporter.ExportActivations(recommender_pb2.ExportActivationsRequest(users=page))
    assert {one.user_id for one in answer.batch.subjects} == {f"u-{user}" for user in range(0, N_USERS, 3)}
    nobody = common_pb2.Segment(exists=common_pb2.SegmentExists(attribute="height"))
    request = steering_pb2.PreviewPanelRequest(operations=[UP], segment=nobody)
    code, words = refused(interpreter.steering.PreviewPanel, request)
    assert (code, "0 users match the segment" in words) == (grpc.StatusCode.FAILED_PRECONDITION, True)
    empty = steering_pb2.PreviewPanelRequest(operations=[UP], segment=common_pb2.Segment())
    assert refused(interpreter.steering.PreviewPanel, empty)[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_a_stored_policy_is_tried_on_users_it_is_not_for_and_nothing_changes(platform: Any) -> None:
    steering = platform[0].steering
    policy = steering_pb2.Policy(
        name="few", model=MODEL, operations=[UP], scope=steering_pb2.Scope(user_ids=["u-1"]),
        window=window_message(Window(end=time.time() + 600)),
    )  # fmt: skip
    made = steering.CreatePolicy(steering_pb2.CreatePolicyRequest(policy=policy, reason="because")).policy
    users = steering_pb2.UserIds(user_ids=["u-2", "u-3"])
    tried = steering.PreviewPanel(steering_pb2.PreviewPanelRequest(policy_id=made.id, users=users))
    assert tried == steering.PreviewPanel(steering_pb2.PreviewPanelRequest(operations=[UP], users=users))
    assert len(steering.ListAudit(steering_pb2.ListAuditRequest(policy_id=made.id)).events) == 1
    unknown = steering_pb2.PreviewPanelRequest(policy_id="p-gone", users=users)
    assert refused(steering.PreviewPanel, unknown)[0] is grpc.StatusCode.NOT_FOUND


def test_a_panel_ends_with_the_time_of_its_caller_and_without_a_recommender(
    platform: Any, start_interpreter: Start, start_recommender: Start, stubs: Start
) -> None:
    request = steering_pb2.PreviewPanelRequest(operations=[UP])
    assert refused(platform[0].steering.PreviewPanel, request, timeout=0.01)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    storeless = start_recommender(history="")
    asking = stubs(start_interpreter(recommenders=f"127.0.0.1:{storeless.server.port}").server.port)
    code, words = refused(asking.steering.PreviewPanel, request)
    assert (code, "no history store" in words) == (grpc.StatusCode.FAILED_PRECONDITION, True)
