"""How what a language model said of a concept looks in a terminal."""

from __future__ import annotations

from rich.text import Text

from recsae.v1 import interpreter_pb2


def llm_lines(detail: interpreter_pb2.ConceptDetail) -> list[Text]:
    """What a language model says, and how far its words predict the strengths; nothing when none was asked."""
    if not detail.HasField("llm"):
        return []
    said = detail.llm
    if said.failure:
        return [Text(f"Language model {said.model}: {said.failure}", "yellow")]
    lines = [
        Text.assemble(("Language model: ", "bold"), (said.label, "cyan"), f"  ({said.model})\n  {said.description}")
    ]
    if not said.cases:
        why = "no rating could be read" if said.unrated else "too few cases, or the budget ended"
        return [*lines, Text(f"  not verified: {why}", "dim")]
    r, f1 = said.correlation, said.f1
    scores = (
        f"  {said.cases} histories rated: r {r.value:.2f} ({r.low:.2f} to {r.high:.2f}), "
        f"F1 {f1.value:.2f} ({f1.low:.2f} to {f1.high:.2f}; always yes: .67)"
    )
    if said.HasField("recsae_10_case"):
        scores += f"; RecSAE's 10 cases {said.recsae_10_case:.1f}"
        scores += f", with another's words {said.swapped_10_case:.1f}" if said.HasField("swapped_10_case") else ""
    return [*lines, Text(scores)]
