"""What a language model made of a concept, beside how well its description predicts strengths."""

from __future__ import annotations

from recsae.concepts.records import LlmRecord
from recsae.concepts.report.markup import Markup, tag
from recsae.concepts.report.wording import block, interval, score


def language_model(record: LlmRecord | None) -> Markup | None:
    """Label, description and scores of a language model; None when none was asked or it had none."""
    if record is None or not (record.label or record.description):
        return None
    scores = [
        f"{name} {interval(one)}"
        for name, one in (
            ("correlation with true strength", record.correlation),
            ("precision", record.precision),
            ("recall", record.recall),
            ("F1", record.f1),
        )
        if interval(one)
    ]
    if record.recsae_10_case is not None:
        swapped = (
            f" (words of another concept: {score(record.swapped_10_case)})"
            if record.swapped_10_case is not None
            else ""
        )
        scores.append(f"RecSAE's confidence on ten cases {score(record.recsae_10_case)}{swapped}")
    judged = f"{record.cases:,} cases it had not seen: {', '.join(scores)}." if scores else None
    return block(
        "In the words of a language model",
        tag("p", tag("strong", record.label)) if record.label else None,
        tag("p", record.description) if record.description else None,
        tag("p", judged, class_="beside") if judged else None,
        note=f"{record.model}, prompts {record.prompts}" if record.prompts else record.model,
    )
