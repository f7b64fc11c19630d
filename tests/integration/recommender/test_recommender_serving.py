"""What the recommender answers over gRPC without any steering."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from recsae.errors import (
    CorruptArtifactError,
    FailedPreconditionError,
    InvalidRequestError,
    NotFoundError,
)
from recsae.recommenders.bundle import ModelBundle
from recsae.recommenders.runtime import OnnxRecommender
from recsae.rpc.client import channel
from recsae.rpc.status import error_from
from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.store.artifacts import ArtifactStore
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc
from recsae_recommender.app import RecommenderApp

Start = Callable[..., RecommenderApp]


@pytest.fixture
def opened(start_recommender: Start) -> Iterator[grpc.Channel]:
    app = start_recommender()
    with channel(f"127.0.0.1:{app.server.port}") as made:
        yield made


@pytest.fixture
def stub(opened: grpc.Channel) -> recommender_pb2_grpc.RecommenderStub:
    return recommender_pb2_grpc.RecommenderStub(opened)


@pytest.fixture
def exporter(opened: grpc.Channel) -> recommender_pb2_grpc.ActivationExporterStub:
    return recommender_pb2_grpc.ActivationExporterStub(opened)


@pytest.fixture
def bare(artifacts: Path, models: dict[str, str]) -> OnnxRecommender:
    """The model without a service around it."""
    return OnnxRecommender(ModelBundle.from_artifact(ArtifactStore(str(artifacts)).fetch("model", models["tiny"])))


def history(*numbers: int) -> common_pb2.History:
    return common_pb2.History(item_ids=[f"i-{number}" for number in numbers])


def pairs(items: Any) -> list[tuple[str, float]]:
    return [(item.item_id, item.score) for item in items]


def bare_list(bare: OnnxRecommender, items: list[int], k: int) -> list[tuple[str, float]]:
    embedded = bare.embed(bare.pad([items]))
    ranked = bare.rank(embedded.activation, embedded.passthrough, k=k, exclude=np.array([items]))
    found, scores = ranked.row(0)
    return list(zip(bare.bundle.ids_of(found.tolist()), scores.tolist(), strict=True))


def failure(call: Callable[[], Any]) -> Exception:
    with pytest.raises(grpc.RpcError) as failed:
        call()
    return error_from(failed.value)


def test_scores_equal_the_bare_models_bit_for_bit_alone_and_among_neighbours(
    stub: recommender_pb2_grpc.RecommenderStub, bare: OnnxRecommender
) -> None:
    random = np.random.default_rng(5)
    asked = [random.integers(1, 121, size=random.integers(1, 30)).tolist() for _ in range(64)]

    def ask(items: list[int], k: int) -> list[tuple[str, float]]:
        return pairs(stub.Recommend(recommender_pb2.RecommendRequest(history=history(*items), k=k), timeout=30).items)

    ks = [1 + place % 17 for place in range(64)]
    expected = [bare_list(bare, items, k) for items, k in zip(asked, ks, strict=True)]
    with ThreadPoolExecutor(32) as pool:  # many at once, so that they are batched together
        for _ in range(5):
            assert list(pool.map(ask, asked, ks)) == expected


def test_stored_history_is_used_and_seen_items_stay_away_unless_asked_for(
    stub: recommender_pb2_grpc.RecommenderStub, exporter: recommender_pb2_grpc.ActivationExporterStub
) -> None:
    seen = set(exporter.Embed(recommender_pb2.EmbedRequest(user_id="u-20"), timeout=10).history.item_ids)
    assert len(seen) == 21
    request = recommender_pb2.RecommendRequest(user_id="u-20", k=200, exclude_item_ids=["i-1", "no-such-item"])
    ids = {item.item_id for item in stub.Recommend(request, timeout=10).items}
    assert not ids & (seen | {"i-1"})
    assert len(ids) == 120 - len(seen | {"i-1"})
    request.include_seen = True
    again = stub.Recommend(request, timeout=10)
    assert seen - {"i-1"} <= {item.item_id for item in again.items}
    assert again.items[0].title.startswith("Title ")


def test_candidates_limit_the_list_and_unknown_ones_are_refused(stub: recommender_pb2_grpc.RecommenderStub) -> None:
    wanted = ["i-5", "i-6", "i-7"]
    request = recommender_pb2.RecommendRequest(history=history(1, 6), candidate_item_ids=wanted, k=10)
    assert {item.item_id for item in stub.Recommend(request, timeout=10).items} == {"i-5", "i-7"}
    request.candidate_item_ids.append("i-none")
    assert "i-none" in str(failure(lambda: stub.Recommend(request, timeout=10)))


def test_candidates_and_whole_catalogue_share_a_batch_without_mixing(
    stub: recommender_pb2_grpc.RecommenderStub,
) -> None:
    requests = [
        recommender_pb2.RecommendRequest(
            history=history(1 + place), k=3, candidate_item_ids=["i-60", "i-61"] if place % 2 else []
        )
        for place in range(40)
    ]
    alone = [pairs(stub.Recommend(request, timeout=10).items) for request in requests]
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(lambda request: pairs(stub.Recommend(request, timeout=30).items), requests))
    assert together == alone
    assert [len(items) for items in alone] == [3, 2] * 20


def test_reply_names_model_triple_and_request_id(
    stub: recommender_pb2_grpc.RecommenderStub, models: dict[str, str]
) -> None:
    request = recommender_pb2.RecommendRequest(history=history(3), model="tiny-other")
    reply = stub.Recommend(request, metadata=(("x-request-id", "r-1"),), timeout=10)
    assert (reply.model, reply.request_id, len(reply.items)) == ("tiny-other", "r-1", 10)
    assert reply.triple.model_version == reply.receipt.triple.model_version == models["tiny-other"]
    assert reply.receipt.reason == common_pb2.UNSTEERED_REASON_NO_PLAN


@pytest.mark.parametrize(
    ("request_", "kind", "says"),
    [
        (recommender_pb2.RecommendRequest(), InvalidRequestError, "neither a user id nor a history"),
        (recommender_pb2.RecommendRequest(user_id="nobody"), NotFoundError, "'nobody' is not in the history store"),
        (recommender_pb2.RecommendRequest(user_id="u-1", model="none"), NotFoundError, "there are tiny, tiny-other"),
        (recommender_pb2.RecommendRequest(user_id="u-1", k=1001), InvalidRequestError, "k = 1001"),
        (
            recommender_pb2.RecommendRequest(history=common_pb2.History(item_ids=["new"])),
            InvalidRequestError,
            "none of the 1 items",
        ),
        (
            recommender_pb2.RecommendRequest(user_id="u-1", attributes={"x": common_pb2.AttributeValue()}),
            InvalidRequestError,
            "attribute 'x'",
        ),
    ],
)
def test_wrong_requests_are_refused_with_the_reason(
    stub: recommender_pb2_grpc.RecommenderStub,
    request_: recommender_pb2.RecommendRequest,
    kind: type[Exception],
    says: str,
) -> None:
    error = failure(lambda: stub.Recommend(request_, timeout=10))
    assert isinstance(error, kind)
    assert says in str(error)


def test_embed_then_rank_gives_what_recommend_gives(
    stub: recommender_pb2_grpc.RecommenderStub, exporter: recommender_pb2_grpc.ActivationExporterStub
) -> None:
    embedded = exporter.Embed(recommender_pb2.EmbedRequest(user_id="u-9"), timeout=10)
    ranked = stub.Rank(
        recommender_pb2.RankRequest(
            model_version=embedded.batch.model_version,
            activations=embedded.batch.activations,
            passthrough=embedded.batch.passthrough,
            exclude=[recommender_pb2.ItemList(item_ids=embedded.history.item_ids)],
        ),
        timeout=10,
    )
    recommended = stub.Recommend(recommender_pb2.RecommendRequest(user_id="u-9"), timeout=10)
    assert pairs(ranked.lists[0].items) == pairs(recommended.items)


def test_rank_refuses_other_versions_and_malformed_activations(stub: recommender_pb2_grpc.RecommenderStub) -> None:
    good = np.zeros((2, 16), dtype=np.float32)

    def rank(activations: Any, **values: Any) -> Exception:
        request = recommender_pb2.RankRequest(activations=to_tensor(activations), **values)
        return failure(lambda: stub.Rank(request, timeout=10))

    assert isinstance(rank(good, model_version="0" * 16), FailedPreconditionError)
    assert "[n, 16]" in str(rank(good[:, :5]))
    assert "NaN" in str(rank(np.full((2, 16), np.nan, dtype=np.float32)))
    assert "1025 activation rows" in str(rank(np.zeros((1025, 16), dtype=np.float32)))
    assert "one per list" in str(rank(good, exclude=[recommender_pb2.ItemList()]))


def test_every_position_equals_serving_on_the_prefix(
    exporter: recommender_pb2_grpc.ActivationExporterStub, bare: OnnxRecommender
) -> None:
    histories = [[5, 9, 2], list(range(1, 21))]
    reply = exporter.ExportActivations(
        recommender_pb2.ExportActivationsRequest(
            positions=recommender_pb2.POSITIONS_ALL,
            histories=recommender_pb2.HistoryList(histories=[history(*one) for one in histories]),
        ),
        timeout=10,
    )
    x = from_tensor(reply.batch.activations, name="x", dtype=np.float32, shape=(3 + 12, 16))
    places = [(one.history_index, one.position) for one in reply.batch.subjects]
    # The model reads the newest 12 items: positions count the whole history.
    assert places == [(0, 1), (0, 2), (0, 3)] + [(1, position) for position in range(9, 21)]
    window = histories[1][-12:]
    prefixes = [histories[0][:n] for n in (1, 2, 3)] + [window[:n] for n in range(1, 13)]
    np.testing.assert_allclose(x, bare.embed(bare.pad(prefixes)).activation, atol=1e-5)


def test_pages_of_users_and_items_are_complete_and_resumable(
    exporter: recommender_pb2_grpc.ActivationExporterStub,
) -> None:
    users: list[str] = []
    items: list[str] = []
    item_ids: list[str] = []
    cursor = ""
    while True:
        page = recommender_pb2.UserPage(cursor=cursor, limit=7)
        reply = exporter.ExportActivations(recommender_pb2.ExportActivationsRequest(users=page), timeout=10)
        users += [one.user_id for one in reply.batch.subjects]
        if not (cursor := reply.next_cursor):
            break
    while True:
        item_page = recommender_pb2.ItemPage(cursor=cursor, limit=50)
        reply = exporter.ExportActivations(recommender_pb2.ExportActivationsRequest(items=item_page), timeout=10)
        vectors = exporter.ExportItems(recommender_pb2.ExportItemsRequest(page=item_page), timeout=10)
        assert from_tensor(vectors.vectors, name="v").shape == (len(vectors.item_ids), 16)
        assert vectors.next_cursor == reply.next_cursor
        items += [one.item_id for one in reply.batch.subjects]
        item_ids += vectors.item_ids
        if not (cursor := reply.next_cursor):
            break
    assert sorted(users) == sorted(f"u-{user}" for user in range(24))
    assert items == item_ids == [f"i-{number}" for number in range(1, 121)]


def test_export_of_another_version_is_refused(exporter: recommender_pb2_grpc.ActivationExporterStub) -> None:
    request = recommender_pb2.ExportActivationsRequest(model_version="0" * 16, items=recommender_pb2.ItemPage(limit=1))
    assert isinstance(failure(lambda: exporter.ExportActivations(request, timeout=10)), FailedPreconditionError)


def test_model_is_described(exporter: recommender_pb2_grpc.ActivationExporterStub, models: dict[str, str]) -> None:
    reply = exporter.GetModel(recommender_pb2.GetModelRequest(), timeout=10)
    info = reply.model
    assert (info.name, info.version, info.item_count, info.max_history) == ("tiny", models["tiny"], 120, 12)
    assert list(reply.available_models) == ["tiny", "tiny-other"]
    assert (info.hooks[0].dim, info.head) == (16, recommender_pb2.HEAD_KIND_DOT_PRODUCT)


def test_tampered_model_is_not_served(
    start_recommender: Start, artifacts: Path, models: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(artifacts, tmp_path / "copy")
    path = tmp_path / "copy" / "model" / models["tiny"] / "trunk.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(CorruptArtifactError, match=r"trunk\.onnx"):
        start_recommender(artifacts=tmp_path / "copy")
