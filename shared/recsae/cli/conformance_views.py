"""Outcomes of the conformance kit for people and for scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from recsae.cli.output import console
from recsae.conformance.outcomes import Outcome, Verdict

_MARKS = {
    Verdict.PASSED: Text("✓", "green"),
    Verdict.DOUBTFUL: Text("?", "bold yellow"),
    Verdict.FAILED: Text("✗", "bold red"),
    Verdict.SKIPPED: Text("–", "dim"),
}
_ABOUT = {
    "serving": "the process",
    "model": "GetModel",
    "pages": "items and users page by page",
    "activations": "ExportActivations and Embed",
    "positions": "every position of a history",
    "subjects": "user ids, attributes, candidates",
    "items": "ExportItems",
    "ranking": "Rank",
    "recommending": "Recommend",
    "steering": "Steer",
    "refusals": "what must be refused",
}
_NAME_WIDTH = 17
# Indent, mark and the gaps between columns.
_AROUND = 6


@dataclass(frozen=True)
class Tally:
    """How many checks ended how."""

    passed: int
    doubtful: int
    failed: int
    skipped: int

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Self:
        """Counts them."""
        counts = Counter(outcome.verdict for outcome in outcomes)
        return cls(*(counts[verdict] for verdict in Verdict))

    def fails(self, strict: bool) -> bool:
        """Whether the service does not keep the contract; under `strict` doubts count, too."""
        return bool(self.failed or (strict and self.doubtful))

    def __str__(self) -> str:
        """E.g. "41 passed, 1 doubtful, 0 failed, 3 skipped"."""
        doubtful = f"{self.doubtful} doubtful, " if self.doubtful else ""
        return f"{self.passed} passed, {doubtful}{self.failed} failed, {self.skipped} skipped"


def group_table(outcomes: Sequence[Outcome]) -> RenderableType:
    """A heading and a line per check; what failed or is doubtful says why beneath."""
    group = outcomes[0].check.group
    lines = Table.grid(padding=(0, 1))
    lines.add_column(width=1)
    lines.add_column(min_width=_NAME_WIDTH, no_wrap=True)
    lines.add_column(overflow="fold")
    for outcome in outcomes:
        lines.add_row(_MARKS[outcome.verdict], outcome.check.name.partition(".")[2], _what(outcome))
    heading = Text.assemble(("\n" + group, "bold"), (f" · {_ABOUT.get(group, '')}", "dim"))
    return Group(heading, Padding(lines, (0, 0, 0, 2)))


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Name, contract and verdict, and what else there is to say."""
    said = {name: getattr(outcome, name) for name in ("note", "asked", "came", "remedy")}
    return {
        "check": outcome.check.name,
        "contract": outcome.check.contract,
        "verdict": str(outcome.verdict),
        **{name: text for name, text in said.items() if text},
        "seconds": round(outcome.seconds, 4),
    }


def _what(outcome: Outcome) -> RenderableType:
    if outcome.came:
        why = Table.grid(padding=(0, 1))
        why.add_column(style="dim", no_wrap=True)
        why.add_column(overflow="fold")
        for label, said in (("asked", outcome.asked), ("came", outcome.came), ("do", outcome.remedy)):
            why.add_row(label, Text(said))
        return Group(Text(outcome.check.contract, "yellow" if outcome.verdict == Verdict.DOUBTFUL else "red"), why)
    if outcome.verdict == Verdict.SKIPPED:
        return Text(outcome.note, "dim", no_wrap=True, overflow="ellipsis")
    text = Text(outcome.check.contract, no_wrap=True, overflow="ellipsis")
    fits = len(text) + len(outcome.note) + 3 <= console.width - _NAME_WIDTH - _AROUND
    return text.append(f" · {outcome.note}", "dim") if outcome.note and fits else text
