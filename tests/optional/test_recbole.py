"""RecBole's own models, imported from one ONNX graph each. `make recbole-test` installs RecBole and runs this.

RecBole and its checkpoints, which are pickles, stay in their own environment: here arrive a graph, ids, numbers.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray
from tests.optional.conftest import Outcome, recbole_environment

from recsae.cli.workspace import Workspace
from recsae.recommenders.bundle import ModelBundle
from recsae.recommenders.runtime import OnnxRecommender

ROOT = Path(__file__).parents[2]
SMALL = {
    "SASRec": {"hidden_size": 16, "inner_size": 16, "MAX_ITEM_LIST_LENGTH": 10},
    "GRU4Rec": {"embedding_size": 16, "hidden_size": 16, "MAX_ITEM_LIST_LENGTH": 10},
    "BPR": {"embedding_size": 16},
    "LightGCN": {"embedding_size": 16},
}

Floats = NDArray[np.float32]


def exported(recbole_python: str, folder: Path, *arguments: str) -> Path:
    command = [recbole_python, "-m", "benchmarks.recbole.export", "--out", str(folder), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=recbole_environment(), cwd=ROOT, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module", params=SMALL)
def graph(request: pytest.FixtureRequest, recbole_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a graph that RecBole's model was written to after an epoch."""
    settings = json.dumps({**SMALL[request.param], "train_batch_size": 2048})
    folder = tmp_path_factory.mktemp(request.param)
    return exported(recbole_python, folder, "--model", request.param, "--epochs", "1", "--settings", settings)


def imported(folder: Path, recsae: Callable[..., Outcome], workspace: Path) -> OnnxRecommender:
    """Lists the tensors, then cuts at the suggested one with the one command the list proposes."""
    users = ("--users", str(folder / "users.json")) if (folder / "users.json").is_file() else ()
    given = ("model", "import", str(folder / "model.onnx"), "--items", str(folder / "items.json"), *users)
    listed = recsae(*given, "--json")
    assert listed.code == 2, listed.err
    suggested = json.loads(listed.out)["suggestion"]["name"]
    done = recsae(*given, "--activation", suggested, "--name", "theirs")
    assert done.code == 0, done.err
    home = Workspace(workspace)
    return OnnxRecommender(ModelBundle.from_artifact(home.artifacts().fetch("model", home.model("theirs").version)))


def scores_of(recommender: OnnxRecommender, histories: list[list[int]], users: list[str]) -> Floats:
    """Scores [n, n_items] of every item, in the order of its index, from the bundle's own trunk and head."""
    embedded = recommender.embed(recommender.inputs(histories, users))
    nothing = np.zeros((len(embedded.activation), 0), np.int64)
    ranked = recommender.rank(
        embedded.activation, embedded.passthrough, k=recommender.n_items, exclude=nothing, candidates=nothing
    )
    found = np.empty((len(ranked.items), recommender.n_items), np.float32)
    np.put_along_axis(found, ranked.items - 1, ranked.scores, axis=1)
    return found


def test_a_graph_of_recbole_imports_with_one_command_and_gives_recboles_scores(
    graph: Path, recsae: Callable[..., Outcome], tmp_path: Path
) -> None:
    recommender = imported(graph, recsae, tmp_path / "workspace")
    reference = safetensors.numpy.load_file(graph / "reference.safetensors")
    histories: list[list[int]] = [[] for _ in reference["scores"]]
    users: list[str] = []
    if "user_id" in reference:
        ids = recommender.bundle.user_ids
        users = [ids[place - 1] for place in reference["user_id"]]
    else:
        rows = zip(reference["item_id_list"], reference["item_length"], strict=True)
        histories = [row[:length].tolist() for row, length in rows]
        assert len({len(history) for history in histories}) > 5
    found = scores_of(recommender, histories, users)
    np.testing.assert_allclose(found, reference["scores"][:, 1:], atol=1e-5)
    assert recommender.bundle.item_ids == tuple(json.loads((graph / "items.json").read_bytes())["ids"])
    assert recommender.bundle.description.head == "dot_product"
