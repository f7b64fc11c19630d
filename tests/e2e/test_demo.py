"""The demo's path on a small made data set: every process real, every step through the command people type."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_DEMO_S = 420


def recsae(home: Path, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Runs the `recsae` command as a user would; COLUMNS keeps table cells on one line."""
    environment = {**os.environ, "COLUMNS": "220", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "recsae.cli", "--home", str(home), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment, check=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace all tests of this module share."""
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def demo_output(home: Path) -> str:
    """Output of one whole demo; the run itself is the first test."""
    done = recsae(home, "demo", "--data", "planted", "--ci", timeout_s=_DEMO_S)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_demo_shows_every_part_of_the_main_job(demo_output: str) -> None:
    for part in ("1 · Quality", "2 · The ten best concepts", "3 · Which concepts fire", "4 · More"):
        assert part in demo_output
    assert "Unexplained share" in demo_output
    assert "Receipt: p-" in demo_output


def test_deleting_the_policy_restores_the_list_bit_for_bit(demo_output: str) -> None:
    assert "equal the original list bit for bit" in demo_output


def test_demo_leaves_nothing_running(home: Path, demo_output: str) -> None:
    assert not (home / "running.json").exists()
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(home) not in "\n".join(line for line in listing.splitlines() if "pytest" not in line)


def test_the_platform_comes_back_with_what_it_had(home: Path, demo_output: str) -> None:
    """`up` after the demo: the promoted dictionary and the audit trail are still there, and commands answer."""
    started = recsae(home, "up", "--detach", timeout_s=150.0)
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        status = json.loads(recsae(home, "status", "--json").stdout)
        assert {entry["state"] for entry in status.values()} == {"serving"}
        concepts = json.loads(recsae(home, "concepts", "list", "--json").stdout)["concepts"]
        assert concepts
        shown = json.loads(recsae(home, "concepts", "show", concepts[0]["id"], "--json").stdout)
        assert shown["detail"]["concept"]["label"] == concepts[0]["label"]
        actions = [event["action"] for event in json.loads(recsae(home, "steer", "audit", "--json").stdout)["events"]]
        assert {"policy.create", "policy.delete"} <= set(actions)
        runs = json.loads(recsae(home, "runs", "--json").stdout)["runs"]
        assert runs[0]["state"] == "RUN_STATE_SUCCEEDED"
        preview = recsae(home, "preview", "--item", _first_item(home), "--op", f"{concepts[0]['id']}:add=1", "--json")
        assert len(json.loads(preview.stdout)["before"]) == 10
        refused = recsae(home, "concepts", "show", "c-00000000")
        assert refused.returncode == 1
        assert "c-00000000" in refused.stderr
    finally:
        stopped = recsae(home, "down", timeout_s=90.0)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr


def _first_item(home: Path) -> str:
    items = json.loads((home / "datasets" / "planted" / "items.json").read_text())
    return str(items["ids"][0])
