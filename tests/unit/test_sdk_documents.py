"""What docs/sdk.md shows runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.torch_models import DIM, ITEM_IDS, N_ITEMS, BackwardGru, seeded

from recsae.pipeline.recommender_client import RecommenderClient
from recsae.pipeline.sources import Subject
from recsae.rpc.client import channel

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "sdk.md").read_text(), re.DOTALL)


def test_a_torch_model_is_attached_served_and_asked(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {
        "model": seeded(BackwardGru()),
        "item_ids": ITEM_IDS,
        "histories": torch.tensor([[1, 2, 3, 0, 0, 0, 0, 0]]),
    }
    # The block binds fixed ports: served here at free ones.
    exec(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:0", BLOCKS[0]), names)
    names["tap"].close()
    names["serving"].stop()
    assert "no_plan ()" in capsys.readouterr().out.splitlines()
    assert names["scores"].shape == (1, N_ITEMS)


def test_a_model_of_arrays_is_served() -> None:
    vectors = np.random.default_rng(0).standard_normal((N_ITEMS + 1, DIM)).astype(np.float32)
    names: dict[str, Any] = {"item_ids": ITEM_IDS, "vectors": vectors}
    exec(BLOCKS[1], names)
    with names["serving"] as serving, channel(f"127.0.0.1:{serving.port}") as opened:
        client = RecommenderClient(opened)
        model = client.describe("mean")
        x = client.every_position(model, [Subject(("i-3", "i-5"))])
    np.testing.assert_allclose(x, [vectors[3], (vectors[3] + vectors[5]) / 2], atol=1e-6)


def test_a_model_asks_an_interpreter_and_goes_on_without_one() -> None:
    vectors = np.random.default_rng(0).standard_normal((N_ITEMS + 1, DIM)).astype(np.float32)
    names: dict[str, Any] = {"rows": vectors[1:3], "vectors": vectors}
    # Port 1: nobody is there, whatever runs beside the tests.
    exec(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", BLOCKS[2]).replace("timeout_s=0.05", "timeout_s=5"), names)
    names["steering"].close()
    assert [receipt.reason.value for receipt in names["steered"].receipts] == ["unreachable"] * 2
    assert names["steered"].activation is names["rows"]
    assert names["scores"].shape == (2, N_ITEMS + 1)


def test_every_block_is_run() -> None:
    assert len(BLOCKS) == 3
