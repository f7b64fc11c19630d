"""Several processes train one SAE: they follow the loss curve of one process, and none outlives another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsae.sae.execution import Execution, Place
from recsae.sae.shards import ActivationShard, write_shard
from recsae.sae.weights import load_weights

_WAIT_S = 120.0

# Writes the loss of every step and the parameters at the end; 37 rows a batch do not divide by 2, the last batch has 1.
CURVE = """
import json, sys
import numpy as np, torch
from recsae.sae.batches import ArrayRows, ShuffledBatches, measure_normalisation
from recsae.sae.config import SaeConfig
from recsae.sae.engine import open_engine
from recsae.sae.execution import Execution, Place
from recsae.sae.ranks import join_ranks
from recsae.sae.training import start_state
out, backend = sys.argv[1:]
rows = ArrayRows(np.random.default_rng(0).normal(size=(37 * 20 + 1, 12)).astype(np.float32) ** 3)
config = SaeConfig(12, 96, 4, batch_size=37, epochs=3, dead_after=100, aux_k=5, learning_rate=3e-3)
normalisation = measure_normalisation(rows)
with join_ranks("cpu") as ranks:
    engine = open_engine(start_state(rows, config, normalisation), config, Execution(backend, threads=1), ranks)
    curve, dead = [], 0
    for batch in ShuffledBatches(rows, 37, 200, 0).from_step(0, 63):
        step = engine.gradient(normalisation.apply(ranks.part(batch)))
        engine.follow(step, 3e-3)
        curve.append([step.terms.rows, step.terms.squared_error, step.terms.firings, step.terms.aux])
        dead = max(dead, step.terms.dead)
    engine.close()
    w_dec = engine.state.parameters.w_dec.tolist()
    if ranks.rank == 0:
        open(out, "w").write(json.dumps({"curve": curve, "dead": dead, "size": ranks.size, "w_dec": w_dec}))
"""


def _curve(out: Path, backend: str, processes: int) -> dict[str, Any]:
    """Trains on that many processes; what the first one wrote."""
    places = [Place(rank, processes, (out.parent / f"meet-{processes}").as_uri()) for rank in range(processes)]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CURVE, str(out), backend],
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", **place.environment()},
        )
        for place in places
    ]
    for process in started:
        assert process.wait(_WAIT_S) == 0
    result: dict[str, Any] = json.loads(out.read_text())
    return result


@pytest.mark.parametrize("backend", ["torch", "fast"])
def test_two_processes_follow_the_loss_curve_of_one_on_the_whole_batch(tmp_path: Path, backend: str) -> None:
    alone, together = (_curve(tmp_path / f"{n}.json", backend, n) for n in (1, 2))
    assert (alone["size"], together["size"]) == (1, 2)
    assert alone["dead"] > 0
    curves = np.array(alone["curve"]), np.array(together["curve"])
    np.testing.assert_array_equal(curves[0][:, 0], [37] * 20 + [1] + [37] * 20 + [1] + [37] * 20 + [1])
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-3)
    np.testing.assert_allclose(together["w_dec"], alone["w_dec"], atol=2e-3)


class Training:
    """A training process as a worker's step starts it, with what it said."""

    def __init__(self, folder: Path, processes: int, rows: int = 4_000, epochs: int = 3) -> None:
        rng = np.random.default_rng(0)
        zeros = np.zeros(rows, np.int32)
        shard = ActivationShard(rng.normal(size=(rows, 16)).astype(np.float32), zeros, zeros, zeros)
        write_shard(folder / "shards", "a", shard, {})
        self.out = folder / f"out-{processes}"
        job = {
            "shards": [str(folder / "shards" / "a.safetensors")], "width": 128, "k": 4, "epochs": epochs, "seed": 0,
            "variant": "topk", "start": "", "execution": asdict(Execution(threads=1)), "processes": processes,
            "checkpoint_every_s": 0.2, "out": str(self.out),
        }  # fmt: skip
        (folder / f"job-{processes}.json").write_text(json.dumps(job))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "recsae_worker.train_process", str(folder / f"job-{processes}.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def event(self) -> Mapping[str, Any]:
        """The next line."""
        assert self.process.stdout is not None
        event: Mapping[str, Any] = json.loads(self.process.stdout.readline())
        return event

    def last(self) -> Mapping[str, Any]:
        """The last event, once the process has ended."""
        while (event := self.event())["event"] == "progress":
            pass
        assert self.process.wait(_WAIT_S) == 0
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        return event

    def other(self) -> int:
        """Process id of the second rank."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (pid,) = map(int, children)
        return pid


def test_a_step_can_train_on_two_processes(tmp_path: Path) -> None:
    alone, together = Training(tmp_path, 1), Training(tmp_path, 2)
    scores = [training.last()["scores"] for training in (alone, together)]
    assert scores[1]["train_fvu"] == pytest.approx(scores[0]["train_fvu"], rel=1e-3)
    weights = [load_weights(training.out / "sae") for training in (alone, together)]
    assert float(np.abs(weights[0].w_dec - weights[1].w_dec).mean()) < 1e-3


@pytest.mark.skipif(sys.platform != "linux", reason="finds the second process in /proc")
def test_a_lost_process_fails_the_attempt_and_the_next_one_goes_on(tmp_path: Path) -> None:
    training = Training(tmp_path, 2, epochs=200)
    while not (training.out / "checkpoint.safetensors").exists():
        training.event()
    os.kill(training.other(), signal.SIGKILL)
    failed = training.last()
    assert failed["event"] == "failed"
    assert not failed["final"]
    assert "goes on from the checkpoint" in failed["message"]
    again = Training(tmp_path, 2, epochs=200)
    pid = None
    event = again.event()
    pid = again.other()
    assert event["step"] > 1
    again.process.terminate()
    assert "asked to stop" in again.last()["message"]
    assert not Path(f"/proc/{pid}").exists()
