"""`recsae conformance` as people and scripts use it: lines, JSON, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
from tests.integration.conformance.broken_models import VersionOfWords
from tests.integration.conformance.broken_ranking import ExclusionsIgnored
from tests.integration.conformance.small_exporter import SmallExporter, serving
from tests.integration.conformance.small_interpreter import SmallInterpreter

from recsae.cli import app as cli
from recsae.cli.output import console
from recsae.conformance.suite import all_checks


class Ended(NamedTuple):
    """Exit code and standard output."""

    code: int
    out: str


Command = Callable[..., Ended]


@pytest.fixture
def conformance(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command through its entry point, on a terminal of 80 columns."""
    monkeypatch.setattr(console, "width", 80)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["recsae", "conformance", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return Ended(end.value.code if isinstance(end.value.code, int) else 0, capsys.readouterr().out)

    return run


def test_a_service_that_keeps_the_contract_gets_a_line_per_check_and_exit_code_0(conformance: Command) -> None:
    with serving(SmallExporter().add_to) as address, serving(SmallInterpreter().add_to) as interpreter:
        code, out = conformance(address, "--steer", interpreter, "--strict")
    assert code == 0
    lines = [line for line in out.splitlines() if line.startswith(("  ✓", "  –"))]
    assert len(lines) == len(all_checks())
    assert max(map(len, out.splitlines())) <= 80
    assert " 0 failed, " in out.splitlines()[-1]


def test_a_fault_is_shown_with_what_was_asked_what_came_and_what_to_do(conformance: Command) -> None:
    with serving(ExclusionsIgnored().add_to) as address:
        code, out = conformance(address)
    assert code == 1
    (place,) = [place for place, line in enumerate(out.splitlines()) if line.startswith("  ✗")]
    shown = out.splitlines()[place : place + 6]
    assert "exclusions" in shown[0]
    words = [word for line in shown for word in line.split()[:1]]
    assert [word for word in words if word in ("asked", "came", "do")] == ["asked", "came", "do"]
    assert " 1 failed, " in out.splitlines()[-1]


def test_doubts_fail_under_strict_alone(conformance: Command) -> None:
    with serving(VersionOfWords().add_to) as address:
        assert conformance(address).code == 0
        assert conformance(address, "--strict").code == 1


def test_json_is_all_there_is_and_names_every_check(conformance: Command) -> None:
    with serving(ExclusionsIgnored().add_to) as address:
        code, out = conformance(address, "--json")
    report = json.loads(out)
    assert code == 1
    assert [one["check"] for one in report["checks"]] == [check.name for check in all_checks()]
    (bad,) = [one for one in report["checks"] if one["verdict"] == "failed"]
    assert bad["check"] == "ranking.exclusions"
    assert {"contract", "asked", "came", "remedy"} <= bad.keys()
    assert report["failed"] == 1


def test_an_address_nobody_listens_on_says_so(conformance: Command) -> None:
    code, out = conformance("127.0.0.1:1", "--timeout", "1")
    assert code == 1
    assert "UNAVAILABLE" in out
