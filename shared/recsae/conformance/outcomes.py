"""What a check is and what can come of it: passed, doubtful, failed or skipped, each with what a reader needs.

Not here: what is checked (`checks`) and how a service is asked (`asking`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recsae.conformance.probe import Probe


class Verdict(StrEnum):
    """How a check ended. Doubtful = the contract allows it or is silent, and it is probably not meant."""

    PASSED = "passed"
    DOUBTFUL = "doubtful"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """One thing the contract says, and the function that finds out whether a service does it.

    `run` returns a note for people ("" = none), or raises `BrokenError`, `DoubtfulError` or `NotApplicableError`. It
    is only run when every check in `needs` passed or was doubtful: one fault then fails one line, not all that build
    on it.
    """

    name: str
    contract: str
    run: Callable[[Probe], str]
    needs: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The part of the name before its point."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Outcome:
    """What came of one check. `asked`, `came` and `remedy` are set when it failed or is doubtful."""

    check: Check
    verdict: Verdict
    note: str = ""
    asked: str = ""
    came: str = ""
    remedy: str = ""
    seconds: float = 0.0


class BrokenError(Exception):
    """The service breaks the contract: what was asked, what came back, and what to do."""

    verdict = Verdict.FAILED

    def __init__(self, asked: str, came: str, remedy: str) -> None:
        """Three sentences or parts of one."""
        super().__init__(f"{asked}: {came}; {remedy}")
        self.asked, self.came, self.remedy = asked, came, remedy


class DoubtfulError(BrokenError):
    """Not against the contract, yet probably not meant."""

    verdict = Verdict.DOUBTFUL


class NotApplicableError(Exception):
    """The check has nothing to look at: the model or the service does not have what it is about."""
