"""Keeping processes running: order of starting, restarts and their limit, and stopping at any moment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsae.cli.keeper import Keeper
from recsae.cli.processes import ProcessSpec
from recsae.cli.supervisor import Ports, ServingOptions, Supervisor
from recsae.cli.workspace import Workspace
from recsae.errors import UnavailableError

_WAITS = "import time; time.sleep(60)"
_WAITS_FOR_A_FILE = """
import pathlib, sys, time
while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.005)
"""


def spec(name: str, code: str = _WAITS, *arguments: str, ready: bool = True) -> ProcessSpec:
    command = [sys.executable, "-c", code, *arguments]
    return ProcessSpec(name, command, ready=None if ready else lambda pid: False)


class Story:
    """What a keeper announced."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def __call__(self, name: str, state: str) -> None:
        self.told.append((name, state))

    def of(self, state: str) -> list[str]:
        return [name for name, told in self.told if told == state]


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    made = Keeper(tmp_path)
    yield made
    made.stop(lambda name, state: None)


def test_stages_start_in_order_and_stop_in_reverse(keeper: Keeper) -> None:
    story = Story()
    keeper.start([[spec("a"), spec("b")], [spec("c")]], story)
    keeper.stop(story)
    assert story.told == [
        ("a", "starting"), ("b", "starting"), ("a", "ready"), ("b", "ready"), ("c", "starting"), ("c", "ready"),
        ("c", "stopping"), ("a", "stopping"), ("b", "stopping"),
    ]  # fmt: skip


def test_a_child_that_ends_is_started_again(keeper: Keeper, tmp_path: Path) -> None:
    go, been = tmp_path / "go", tmp_path / "been"
    ends_once = (
        f"{_WAITS_FOR_A_FILE}\nbeen = pathlib.Path({str(been)!r})\nif been.exists(): time.sleep(60)\nbeen.touch()"
    )
    story = Story()

    def tell(name: str, state: str) -> None:
        story(name, state)
        if state == "restarting":
            keeper.request_stop()

    keeper.start([[spec("steady"), spec("brief", ends_once, str(go))]], story)
    go.touch()
    keeper.watch(tell)
    assert story.of("restarting") == ["brief"]
    keeper.stop(story)
    assert story.of("stopping") == ["steady", "brief"]


def test_six_ends_within_a_minute_are_an_error_with_the_last_lines(keeper: Keeper, tmp_path: Path) -> None:
    story, go = Story(), tmp_path / "go"
    keeper.start([[spec("doomed", f"{_WAITS_FOR_A_FILE}\nsys.exit('the disk is full')", str(go))]], story)
    go.touch()
    with pytest.raises(UnavailableError, match=r"(?s)doomed ended 6 times.*exit code 1.*the disk is full"):
        keeper.watch(story)
    assert story.of("restarting") == ["doomed"] * 5


def test_a_death_while_another_starts_is_named_at_once(keeper: Keeper) -> None:
    dies = "import sys; print('address already in use'); sys.exit(7)"
    story = Story()
    with pytest.raises(UnavailableError, match=r"(?s)dies ended with exit code 7.*address already in use"):
        keeper.start([[spec("slow", ready=False), spec("dies", dies)], [spec("never")]], story)
    assert story.of("starting") == ["slow", "dies"]


def test_a_stop_while_starting_is_obeyed(keeper: Keeper) -> None:
    story = Story()
    keeper.request_stop()
    with pytest.raises(KeyboardInterrupt):
        keeper.start([[spec("slow", ready=False)], [spec("never")]], story)
    keeper.stop(story)
    assert story.told == [("slow", "starting"), ("slow", "stopping")]


def test_a_signal_outside_starting_and_watching_interrupts(tmp_path: Path) -> None:
    supervisor = Supervisor(Workspace(tmp_path), Ports(), ServingOptions())
    with pytest.raises(KeyboardInterrupt):
        supervisor.request_stop()
