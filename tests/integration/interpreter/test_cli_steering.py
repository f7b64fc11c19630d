"""`recsae steer` against a real interpreter: what people write, what they see, and what scripts get."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from recsae.cli import app as cli
from recsae.cli.output import console, errors

Start = Callable[..., Any]


class Outcome(NamedTuple):
    """Exit code, standard output and standard error."""

    code: int
    out: str
    err: str


class Recsae:
    """The command through its entry point, at one interpreter."""

    def __init__(self, run: Callable[..., Outcome]) -> None:
        self._run = run

    def __call__(self, *arguments: str) -> str:
        """What a command that works prints."""
        done = self._run(*arguments)
        assert done.code == 0, done.err
        return done.out

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    def refused(self, *arguments: str) -> str:
        done = self._run(*arguments)
        assert (done.code, done.out) == (1, "")
        return done.err

    def create(self, name: str, *more: str) -> str:
        options = ("--op", "c-0-3:add=1", "--model", "tiny", "--reason", "because")
        return str(self.json("create", name, *options, *more)["policy"]["id"])


@pytest.fixture
def recsae(
    start_interpreter: Start,
    promote: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Recsae:
    """`recsae steer` at an interpreter with triple 0 promoted."""
    promote(0)
    port = start_interpreter().server.port
    for one in (console, errors):
        monkeypatch.setattr(one, "width", 220)
    at = ("--home", str(tmp_path), "--interpreter", f"127.0.0.1:{port}", "--recommender", "127.0.0.1:1")

    def run(*arguments: str) -> Outcome:
        # Streams of their own: the interpreter in this process logs to standard output.
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(console, "_file", out)
        monkeypatch.setattr(errors, "_file", err)
        monkeypatch.setattr(sys, "argv", ["recsae", *at, "steer", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        code = end.value.code
        return Outcome(code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())

    return Recsae(run)


def test_a_policy_is_written_shown_changed_and_undone_in_the_words_people_use(recsae: Recsae) -> None:
    scope = ("--segment", "country=DK and not age<18", "--rollout", "20", "--user", "u-1", "--user", "u-2")
    policy_id = recsae.create("More horror", *scope, "--state", "draft", "--start", "2h", "--lasts", "3d")
    shown = recsae("show", policy_id)
    for words in (
        "draft",
        "c-0-3:add=1",
        "users u-1, u-2; where country=DK and not age<18; 20 % of those",
        "anonymous",
    ):
        assert words in shown
    made = recsae.json("show", policy_id)
    recsae("edit", policy_id, "--op", "c-0-3:add=0.5", "--priority", "7", "--reason", "less")
    edited = recsae.json("show", policy_id)
    same = ("name", "scope", "window", "salt", "state")
    assert [edited[name] for name in same] == [made[name] for name in same]
    assert (edited["revision"], edited["priority"], edited["operations"][0]["value"]) == ("2", 7, 0.5)
    recsae("edit", policy_id, "--everyone", "--rollout", "100", "--start", "2020-01-01", "--reason", "all")
    assert "everyone" in recsae("show", policy_id)
    assert "is live at revision 4" in recsae("live", policy_id, "--revision", "3", "--reason", "go")
    assert "is at revision 4, the change was made from 3" in recsae.refused("pause", policy_id, "--revision", "3")
    assert "is paused (lunch) at revision 5" in recsae("pause", policy_id, "--reason", "lunch")
    assert f"{policy_id} is paused: lunch" in recsae("list")
    recsae("shadow", policy_id, "--reason", "look first")
    revisions = recsae("revisions", policy_id)
    for words in ("draft", "live", "paused", "shadow"):
        assert words in revisions
    recsae("revert", policy_id, "--to", "1")
    back = recsae.json("show", policy_id)
    assert [back[name] for name in same] == [made[name] for name in same]
    assert "out of force" in recsae("delete", policy_id)
    assert policy_id not in recsae("list")
    assert policy_id in recsae("list", "--ended")


def test_a_kill_switch_stands_above_every_list_until_it_is_off(recsae: Recsae) -> None:
    policy_id = recsae.create("More horror")
    assert "switched off" not in recsae("list")
    recsae("kill", "--model", "tiny", "--reason", "lists look wrong")
    recsae("kill", "--reason", "everything")
    for command in (("list",), ("show", policy_id)):
        shown = recsae(*command)
        assert "Steering of tiny is switched off" in shown
        assert "Steering of every model is switched off" in shown
        assert "by anonymous: lists look wrong" in shown
    assert "Steering is switched off: nothing below takes effect" in recsae("why", "42")
    assert "Steering of every model is still switched off" in recsae("unkill", "--model", "tiny", "--reason", "ok")
    recsae("unkill", "--reason", "ok")
    assert "switched off" not in recsae("list")
    switches = recsae.json("switches")["kill_switches"]
    assert [(one["model"], one["on"]) for one in switches] == [("", False), ("tiny", False)]
    assert "no model 'tuy' to switch off" in recsae.refused("kill", "--model", "tuy", "--reason", "typo")


def test_why_names_what_wins_and_why_the_others_do_not(recsae: Recsae) -> None:
    first = recsae.create("First", "--priority", "5", "--segment", "premium=true")
    second = recsae.create("Second")
    third = recsae.create("Third", "--segment", "country in (DK,SE)", "--op", "c-0-5:add=1")
    fourth = recsae.create("Fourth", "--state", "draft")
    said = recsae.json("why", "42", "--attribute", "premium=true", "--attribute", "country=DE")["verdicts"]
    outcomes = {one["ref"]["policy_id"]: one["outcome"].removeprefix("POLICY_OUTCOME_") for one in said}
    assert outcomes == {first: "APPLIES", second: "OVERRULED", third: "NOT_IN_SCOPE", fourth: "NOT_IN_FORCE"}
    shown = recsae("why", "42", "--attribute", "country=SE")
    for words in ("partly applies", "premium is not known of this request", "it is draft", "Concept 3 of 0"):
        assert words in shown
    assert "overruled" not in shown
    assert recsae.json("why", "42", "--at", "30d")["verdicts"] == []


def test_what_is_written_wrong_is_refused_with_the_form(recsae: Recsae) -> None:
    for options, words in (
        (("--segment", "country=DK and"), "cannot be read at character 15: expected an attribute"),
        (("--segment", ""), "cannot be read at character 1: expected an attribute"),
        (("--start", "soon"), "'soon' is no time; write e.g. 2h (from now), 2026-12-01"),
        (("--lasts", "3d", "--until", "2030-01-01"), "both say when it ends"),
        (("--until", "2020-01-01"), "end, 2020-01-01 00:00 UTC, has passed already"),
        (("--state", "paused"), "cannot begin as 'paused'; give --state draft, shadow or live"),
    ):
        asked = ("create", "Wrong", "--op", "c-0-3:add=1", "--model", "tiny", "--reason", "because", *options)
        assert words in recsae.refused(*asked)


def test_where_the_platform_runs_elsewhere_the_only_model_need_not_be_named(recsae: Recsae) -> None:
    made = recsae.json("create", "Elsewhere", "--op", "c-0-3:add=1", "--reason", "because")["policy"]
    assert made["model"] == "tiny"


def test_a_segment_that_is_blank_never_stands_for_everyone(recsae: Recsae) -> None:
    policy_id = recsae.create("Danes", "--segment", "country=DK")
    for command in (("edit", policy_id), ("edit", policy_id, "--everyone")):
        recsae.refused(*command, "--segment", "", "--reason", "a variable that was not set")
    assert "where country=DK" in recsae("show", policy_id)


def test_the_audit_trail_and_lists_keep_what_is_to_be_copied_in_one_piece_at_100_columns(
    recsae: Recsae, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "width", 100)
    policy_id = recsae.create("Later", "--start", "2h")
    recsae("pause", policy_id, "--reason", "a reason of several words that is longer than its column is wide")
    trail = [line.split() for line in recsae("audit").splitlines() if policy_id in line.split()]
    assert [line[3] for line in trail] == ["policy.state", "policy.create"]
    assert "from 20" in recsae("list"), "one that is not in force yet says from when"
    assert "No event of p-nobody" in recsae("audit", "p-nobody")


def test_what_is_not_known_to_be_safe_is_said_once(recsae: Recsae) -> None:
    policy_id = recsae.create("Shadow", "--state", "shadow")
    edits = [("edit", policy_id, "--op", "c-0-3:add=9", "--reason", "x") for _ in range(2)]
    for shown in (*(recsae(*edit) for edit in edits), recsae("revert", policy_id)):
        assert shown.lower().count("not known to be safe") == 1
