"""The demo's path on a small made data set: every process real, every step through the command people type."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

Recsae = Callable[..., subprocess.CompletedProcess[str]]


def test_demo_shows_every_part_of_the_main_job(demo_output: str) -> None:
    for part in ("1 · Quality", "2 · The ten best concepts", "3 · Which concepts fire", "4 · More"):
        assert part in demo_output
    assert "Unexplained share" in demo_output
    assert "Receipt: p-" in demo_output


def test_deleting_the_policy_restores_the_list_bit_for_bit(demo_output: str) -> None:
    assert "equal the original list bit for bit" in demo_output


def test_demo_leaves_nothing_running(left_behind: list[str]) -> None:
    assert left_behind == []


@pytest.mark.usefixtures("platform")
class TestPlatformAfterTheDemo:
    """`recsae up` on the demo's workspace: what was acknowledged is still there, and commands answer."""

    def test_everything_serves(self, recsae: Recsae) -> None:
        status = json.loads(recsae("status", "--json").stdout)
        assert {entry["state"] for entry in status.values()} == {"serving"}

    def test_the_promoted_dictionary_is_served(self, recsae: Recsae) -> None:
        concepts = json.loads(recsae("concepts", "list", "--json").stdout)["concepts"]
        shown = json.loads(recsae("concepts", "show", concepts[0]["id"], "--json").stdout)
        assert shown["detail"]["concept"]["label"] == concepts[0]["label"]
        assert shown["detail"]["evidence"]

    def test_what_turning_a_concept_does_was_measured_and_bounds_policies(self, recsae: Recsae) -> None:
        concept = json.loads(recsae("concepts", "list", "--json").stdout)["concepts"][0]["id"]
        detail = json.loads(recsae("concepts", "show", concept, "--json").stdout)["detail"]
        assert detail["causal"]["panel_users"] > 0
        assert {one["operation"] for one in detail["safe_ranges"]} == {"add", "ablate", "scale", "set", "cap"}
        asked = ("steer", "create", "Too much", "--op", f"{concept}:add=9", "--reason", "test", "--lasts", "1h")
        refused = recsae(*asked)
        assert refused.returncode == 1
        assert f"{concept}:add=9" in refused.stderr
        assert "safe range" in refused.stderr or "no safe dose" in refused.stderr
        made = json.loads(recsae(*asked, "--allow-outside-safe-range", "--json").stdout)["policy"]
        assert f"{concept}:add=9" in made["outside_safe_range"]
        assert recsae("steer", "delete", made["id"]).returncode == 0

    def test_the_audit_trail_survived(self, recsae: Recsae) -> None:
        actions = [event["action"] for event in json.loads(recsae("steer", "audit", "--json").stdout)["events"]]
        assert {"policy.create", "policy.delete"} <= set(actions)

    def test_the_run_is_on_record(self, recsae: Recsae) -> None:
        runs = json.loads(recsae("runs", "--json").stdout)["runs"]
        demo = runs[-1]  # the oldest: other tests start runs of their own
        assert demo["state"] == "RUN_STATE_SUCCEEDED"
        assert demo["scores"]

    def test_preview_changes_the_list_and_nothing_else(self, recsae: Recsae) -> None:
        concept = json.loads(recsae("concepts", "list", "--json").stdout)["concepts"][0]["id"]
        arguments = ("preview", "u1", "--op", f"{concept}:add=2", "--json")
        first, second = (json.loads(recsae(*arguments).stdout) for _ in range(2))
        assert first == second
        assert [item["item"]["item_id"] for item in first["after"]] != [item["item_id"] for item in first["before"]]

    def test_an_unknown_concept_is_named_in_one_sentence(self, recsae: Recsae) -> None:
        refused = recsae("concepts", "show", "c-00000000")
        assert refused.returncode == 1
        assert "c-00000000" in refused.stderr
        assert "Traceback" not in refused.stderr
