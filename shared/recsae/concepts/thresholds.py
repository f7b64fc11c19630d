"""What a label must reach to be verified (docs/method.md, section 5), and in words what it misses.

Pure numbers, so that whoever shows a verdict can say why without computing anything. Not here: scores and verdicts
(`scoring`, `verification`).
"""

from __future__ import annotations

from dataclasses import dataclass

from recsae.concepts.records import ConceptRecord

MIN_CASES = 100
# Named scores of a record (`ConceptRecord.scores`) that a verdict looks at too.
JUDGED_BY = frozenset({"negatives", "hard_negatives", "balanced_precision_low", "swap_balanced_f1"})
LOWER_BOUND, LEAST_F1, LEAST_HARD_F1 = 0.7, 0.8, 0.7


@dataclass(frozen=True)
class Standing:
    """A label's scores on verification users, those a verdict looks at.

    `precision_low`, `recall_low`: lower 95 % bounds, balanced; `balanced_f1`, `matched_f1`, `hard_f1`: against random,
    matched and hard negatives; `swapped_f1`: 95th percentile of labels of other concepts.
    """

    positives: int
    negatives: int
    hard_negatives: int
    precision_low: float
    recall_low: float
    balanced_f1: float
    matched_f1: float
    hard_f1: float
    swapped_f1: float

    @classmethod
    def of(cls, concept: ConceptRecord) -> Standing | None:
        """That of a record; None where it was not scored."""
        scores = concept.scores
        if not set(scores) >= JUDGED_BY:
            return None
        return cls(
            positives=concept.positives,
            negatives=int(scores["negatives"]),
            hard_negatives=int(scores["hard_negatives"]),
            precision_low=scores["balanced_precision_low"],
            recall_low=concept.recall.low,
            balanced_f1=concept.balanced_f1.value,
            matched_f1=concept.matched_f1.value,
            hard_f1=concept.hard_f1.value,
            swapped_f1=scores["swap_balanced_f1"],
        )

    def misses(self) -> list[str]:
        """What keeps the label from being verified, in words; empty for one that passes."""
        few = [
            f"only {count} {what}, a verdict takes {MIN_CASES}"
            for count, what in (
                (self.positives, "cases of it on unseen users"),
                (self.negatives, "cases without it on unseen users"),
                (self.hard_negatives, "hard negatives (a near neighbour fires, this one does not)"),
            )
            if count < MIN_CASES
        ]
        low = [
            f"{what} {value:.2f}, at least {least:g} is asked for"
            for what, value, least in (
                ("lower bound of balanced precision", self.precision_low, LOWER_BOUND),
                ("lower bound of recall", self.recall_low, LOWER_BOUND),
                ("balanced F1", self.balanced_f1, LEAST_F1),
                ("F1 against matched negatives", self.matched_f1, LEAST_F1),
                ("F1 against hard negatives", self.hard_f1, LEAST_HARD_F1),
            )
            if value < least
        ]
        if min(self.positives, self.negatives) < MIN_CASES:
            return few
        swapped = self.balanced_f1 <= self.swapped_f1
        other = f"labels of other concepts reach a balanced F1 of {self.swapped_f1:.2f}"
        return [*few, *low, *([other] if swapped else [])]
