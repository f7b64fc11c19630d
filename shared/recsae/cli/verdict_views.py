"""How the verdict on a label looks in a terminal: its scores, and what keeps it from being verified."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from recsae.cli.output import table
from recsae.concepts.thresholds import JUDGED_BY, Standing
from recsae.v1 import interpreter_pb2


def scores(detail: interpreter_pb2.ConceptDetail) -> RenderableType:
    """Scores on unseen users with their intervals, and the control."""
    rows = [
        (name, f"{value.value:.2f}", f"{value.low:.2f} to {value.high:.2f}")
        for name, value in (
            ("precision", detail.precision),
            ("recall", detail.recall),
            ("F1, natural mix", detail.f1),
            ("F1, balanced", detail.balanced_f1),
            ("F1, matched negatives", detail.matched_f1),
            ("F1, hard negatives", detail.hard_f1),
        )
    ]
    rows.append(("F1 of swapped labels (control)", f"{detail.concept.control_confidence:.2f}", "95th percentile"))
    return table("Verification, unseen users", ["score", ">value", "95 % interval"], rows)


def misses(detail: interpreter_pb2.ConceptDetail) -> Text:
    """Why the label is not verified; nothing for one that is, or where scores are missing."""
    if detail.concept.status == interpreter_pb2.CONCEPT_STATUS_VERIFIED or not set(detail.scores) >= JUDGED_BY:
        return Text("", end="")
    standing = Standing(
        positives=detail.positives,
        negatives=int(detail.scores["negatives"]),
        hard_negatives=int(detail.scores["hard_negatives"]),
        precision_low=detail.scores["balanced_precision_low"],
        recall_low=detail.recall.low,
        balanced_f1=detail.balanced_f1.value,
        matched_f1=detail.matched_f1.value,
        hard_f1=detail.hard_f1.value,
        swapped_f1=detail.scores["swap_balanced_f1"],
    )
    why = standing.misses()
    return Text(f"Not verified: {'; '.join(why)}.", "yellow") if why else Text("", end="")
