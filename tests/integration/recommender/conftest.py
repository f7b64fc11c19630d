"""A small published model, a history store, the recommender in this process, and an interpreter in another."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.integration.recommender.made_plans import WIDTH, K

from recsae.datasets.schema import Dataset, Histories, ItemTable, UserTable, save_dataset
from recsae.rpc.client import channel
from recsae.sae.export import encoder_graph
from recsae.sae.weights import SaeWeights
from recsae.store.artifacts import ArtifactStore
from recsae.v1 import recommender_pb2_grpc
from recsae_recommender.app import RecommenderApp
from recsae_recommender.settings import RecommenderSettings

N_ITEMS = 120
N_USERS = 24
MAX_HISTORY = 12
DIM = 16


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact store with one untrained model in two versions, "tiny" and "tiny-other"."""
    from recsae.recommenders.bundle import publish_bundle
    from recsae.recommenders.families.sasrec import SasrecShape, untrained_sasrec
    from recsae.recommenders.families.sequence import export_network

    root = tmp_path_factory.mktemp("artifacts")
    for seed, name in enumerate(("tiny", "tiny-other")):
        folder = tmp_path_factory.mktemp("bundle")
        shape = SasrecShape(n_items=N_ITEMS, max_history=MAX_HISTORY, dim=DIM)
        export_network(untrained_sasrec(shape, seed), _items(), folder, name)
        version = publish_bundle(ArtifactStore(str(root)), folder)
        (root / f"{name}.version").write_text(version)
    return root


@pytest.fixture(scope="session")
def models(artifacts: Path) -> dict[str, str]:
    """Name -> version of the published models."""
    return {name: (artifacts / f"{name}.version").read_text() for name in ("tiny", "tiny-other")}


@pytest.fixture(scope="session")
def history_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users u-0 ... with histories of 1 to 24 items; every second one has country=DK, the others SE."""
    random = np.random.default_rng(3)
    lengths = np.arange(1, N_USERS + 1)
    items = [1 + random.permutation(N_ITEMS)[:length] for length in lengths]
    folder = tmp_path_factory.mktemp("history")
    dataset = Dataset(
        "tiny",
        _items(),
        UserTable(
            tuple(f"u-{user}" for user in range(N_USERS)),
            {"country": tuple("DK" if user % 2 else "SE" for user in range(N_USERS))},
        ),
        Histories(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.concatenate(items).astype(np.int32),
            np.concatenate([np.arange(length, dtype=np.float64) for length in lengths]),
        ),
    )
    save_dataset(dataset, folder)
    return folder


@pytest.fixture
def environment(artifacts: Path, models: dict[str, str], history_folder: Path) -> dict[str, str]:
    """Settings of a recommender without an interpreter, as environment variables."""
    values = {
        "PORT": "0",
        "METRICS_PORT": "0",
        "ARTIFACTS": str(artifacts),
        "MODELS": ",".join(f"{name}={version}" for name, version in models.items()),
        "HISTORY": f"file:{history_folder}",
        "INTERPRETER": "",
        "OBSERVE_SAMPLE": "1",
        "DRAIN_PROBE_S": "0",
        "DRAIN_GRACE_S": "5",
    }
    return {f"RECSAE_RECOMMENDER_{name}": value for name, value in values.items()}


@pytest.fixture
def start_recommender(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., RecommenderApp]]:
    """Starts recommenders in this process; keyword arguments replace settings by their short names."""
    started: list[RecommenderApp] = []

    def start(**values: Any) -> RecommenderApp:
        for name, value in (environment | {f"RECSAE_RECOMMENDER_{k.upper()}": v for k, v in values.items()}).items():
            monkeypatch.setenv(name, str(value))
        app = RecommenderApp(RecommenderSettings())
        started.append(app)
        app.start()
        return app

    yield start
    for app in started:
        app.stop()


class InterpreterProcess:
    """The small interpreter of `interpreter_server.py`, told by commands and heard by lines."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self._folder = folder
        self._files = 0
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("interpreter_server.py")), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.port = int(self.hear("port").split()[1])
        self.address = f"127.0.0.1:{self.port}"

    def tell(self, command: str) -> None:
        """Sends one command."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def give(self, command: str, content: bytes) -> None:
        """Sends a command with a file of `content`."""
        self._files += 1
        path = self._folder / f"{command}-{self.port}-{self._files}"
        path.write_bytes(content)
        self.tell(f"{command} {path}")

    def hear(self, word: str, seconds: float = 30) -> str:
        """The next line that begins with `word`; lines before it are skipped."""
        while True:
            line = self._lines.get(timeout=seconds)
            if line.split()[0] == word:
                return line

    def kill(self) -> None:
        """SIGKILL, as a crash or the kernel would."""
        self.process.kill()
        self.process.wait()
        self._listener.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.strip())


@pytest.fixture
def start_interpreter(tmp_path: Path) -> Iterator[Callable[..., InterpreterProcess]]:
    """Starts small interpreters in processes of their own."""
    started: list[InterpreterProcess] = []

    def start(port: int = 0) -> InterpreterProcess:
        started.append(InterpreterProcess(tmp_path, port))
        return started[-1]

    yield start
    for interpreter in started:
        interpreter.kill()


@pytest.fixture
def weights() -> SaeWeights:
    random = np.random.default_rng(0)
    w_dec = random.standard_normal((WIDTH, DIM)).astype(np.float32)
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    zeros = np.zeros(DIM, dtype=np.float32)
    return SaeWeights(
        w_enc=w_dec.copy(), b_enc=np.zeros(WIDTH, dtype=np.float32), w_dec=w_dec, b_dec=zeros, mean=zeros.copy()
    )


@pytest.fixture
def interpreter(start_interpreter: Callable[..., InterpreterProcess], weights: SaeWeights) -> InterpreterProcess:
    made = start_interpreter()
    made.give("encoder", encoder_graph(weights, K))
    return made


@pytest.fixture
def connect() -> Iterator[Callable[[RecommenderApp], recommender_pb2_grpc.RecommenderStub]]:
    channels: list[grpc.Channel] = []

    def opened(app: RecommenderApp) -> recommender_pb2_grpc.RecommenderStub:
        channels.append(channel(f"127.0.0.1:{app.server.port}"))
        return recommender_pb2_grpc.RecommenderStub(channels[-1])

    yield opened
    for one in channels:
        one.close()


def _items() -> ItemTable:
    numbers = range(1, N_ITEMS + 1)
    return ItemTable(tuple(f"i-{number}" for number in numbers), tuple(f"Title {number}" for number in numbers), {})
