"""Every panel of every Grafana dashboard gets data from a real Prometheus that scrapes the running platform."""

from __future__ import annotations

import itertools
import json
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from recsae.cli.workspace import Workspace
from recsae.datasets.schema import load_dataset
from recsae.v1 import recommender_pb2, recommender_pb2_grpc

if TYPE_CHECKING:
    from tests.e2e.conftest import Recsae

_DASHBOARDS = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"
_DATA_S = 120.0
_VARIABLES = {"$__rate_interval": "30s", "$__interval": "15s", "$__range": "5m"}
_REQUESTS = 400


@pytest.fixture(scope="module")
def prometheus(
    platform: None, home: Path, tmp_path_factory: pytest.TempPathFactory, require_binary: Callable[[str, str], str]
) -> Iterator[str]:
    """Base URL of a Prometheus that scrapes the platform every second, after some live traffic."""
    binary = require_binary("prometheus", "Debian: apt-get install prometheus")
    addresses = Workspace(home).addresses()
    assert addresses is not None
    folder = tmp_path_factory.mktemp("prometheus")
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [urllib.parse.urlsplit(url).netloc]}]}
        for name, url in addresses.metrics.items()
    ]
    config = folder / "prometheus.yml"
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [binary, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    process = subprocess.Popen(
        [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _send_traffic(addresses.recommender, Workspace(home).dataset_folder("planted"))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture(scope="module")
def training(prometheus: str, recsae: Recsae) -> Iterator[None]:
    """A run that trains for minutes. It begins after drift was compared: the platform's one worker does one thing."""
    _wait_for_data(prometheus, "recsae_drift_concept_firing_rate")
    started = recsae("refresh", "--width", "4096", "--epochs", "1000", "--no-promote", "--no-wait", "--json")
    assert started.returncode == 0, started.stderr
    yield
    assert recsae("cancel", json.loads(started.stdout)["id"]).returncode == 0


def _panels() -> list[Any]:
    found = []
    for path in sorted(_DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for number, target in enumerate(panel.get("targets", [])):
                found.append(pytest.param(target["expr"], id=f"{path.stem}-{panel['title']}-{number}"))
    return found


@pytest.mark.parametrize("expression", _panels())
def test_panel_query_returns_data(prometheus: str, expression: str, request: pytest.FixtureRequest) -> None:
    if "recsae_training_" in expression:
        request.getfixturevalue("training")
    for variable, value in _VARIABLES.items():
        expression = expression.replace(variable, value)
    expression = re.sub(r"\$\{?\w+(?::\w+)?\}?", ".*", expression)
    assert all(series["metric"] is not None for series in _wait_for_data(prometheus, expression))


def _wait_for_data(prometheus: str, expression: str) -> list[dict[str, Any]]:
    deadline = time.monotonic() + _DATA_S
    scraped = threading.Event()
    while not (result := _query(prometheus, expression)):
        assert time.monotonic() < deadline, f"no data for {expression}"
        scraped.wait(0.5)  # a scrape announces itself to nobody
    return result


def test_the_drift_dashboard_exists() -> None:
    titles = [json.loads(path.read_text())["title"] for path in _DASHBOARDS.glob("*.json")]
    assert "Concept drift" in titles


def _query(base: str, expression: str) -> list[dict[str, Any]]:
    url = f"{base}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            result: list[dict[str, Any]] = json.load(reply)["data"]["result"]
            return result
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{expression}: {error.read().decode()}") from error
    except OSError:
        return []


def _send_traffic(address: str, dataset: Path) -> None:
    users = load_dataset(dataset).users.ids
    with grpc.insecure_channel(address) as channel:
        stub = recommender_pb2_grpc.RecommenderStub(channel)
        for user in itertools.islice(itertools.cycle(users), _REQUESTS):
            stub.Recommend(recommender_pb2.RecommendRequest(user_id=user, k=10), timeout=5)
