"""Recommendations are computed where calls arrive, unless that could hold up the server."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from recsae.rpc.polling_lane import PollingLane
from recsae_recommender.loop import make_lane
from recsae_recommender.settings import RecommenderSettings

SMALL: Any = SimpleNamespace(n_items=3_700, hooks=[SimpleNamespace(rows="subject")])
LARGE: Any = SimpleNamespace(n_items=1_000_000, hooks=[SimpleNamespace(rows="subject")])
PAIRS: Any = SimpleNamespace(n_items=100, hooks=[SimpleNamespace(rows="pair")])


def polls(*models: Any, **values: Any) -> bool:
    lane = make_lane(RecommenderSettings(models=("m=0123456789abcdef",), **values), models)
    try:
        return isinstance(lane, PollingLane)
    finally:
        lane.shutdown()


def test_local_histories_and_plans_are_served_where_calls_arrive(tmp_path: Path) -> None:
    assert polls(SMALL)
    assert polls(SMALL, history=f"file:{tmp_path}")


@pytest.mark.parametrize(
    "values", [{"history": "redis://127.0.0.1:1/0"}, {"steering": "rpc"}, {"loop": "thread"}], ids=str
)
def test_what_may_wait_takes_a_thread_of_its_own(values: dict[str, str]) -> None:
    assert not polls(SMALL, **values)


@pytest.mark.parametrize("model", [LARGE, PAIRS], ids=["a million items", "pairs"])
def test_what_takes_long_takes_a_thread_of_its_own_beside_any_other_model(model: Any) -> None:
    assert not polls(SMALL, model)


def test_an_unknown_grpcio_takes_a_thread_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc, "__version__", "1.99.0")
    assert not polls(SMALL)
