"""Which measures of a hook's effect on rankings can be taken, and in words why the others cannot.

`Rank` goes on from a model's first hook alone, so other hooks are read-only; some recommenders export activations and
rank nothing. What cannot be measured is said, never guessed, and stops no run.
"""

from __future__ import annotations

from dataclasses import dataclass

from recsae.pipeline.advance import manifest_name, read_facts
from recsae.pipeline.sources import INTEREST, PAIR, SourceModel
from recsae.pipeline.steps import StepContext

_EVALUATED = "evaluate"


@dataclass(frozen=True)
class Rankability:
    """`not_ranked`: why rankings from this hook are not measured, "" where they are.

    `passthrough`: tensors the head reads besides the activation.
    """

    not_ranked: str = ""
    passthrough: tuple[str, ...] = ()


def read_only(model: SourceModel) -> str:
    """Why nothing goes on from this hook, "" where it does."""
    return "" if model.steerable else f"hook {model.hook!r} of {model.served_as} is read-only"


def rankability(context: StepContext, model: SourceModel) -> Rankability:
    """What the evaluate stage found out of the run's recommender; before it, what the model says of itself."""
    facts = {}
    if context.workspace.exists(manifest_name(_EVALUATED, "all")):
        facts = read_facts(context.workspace, _EVALUATED)
    found = Rankability(facts.get("not_ranked", ""), tuple(facts.get("passthrough", ())))
    return Rankability(read_only(model), found.passthrough) if read_only(model) else found


def can_difference(context: StepContext, model: SourceModel) -> bool:
    """True when outputs come from lists with a concept added, minus without.

    Not where the head is a dot product, whose vectors tell more, not of pairs, where it would move every item of a
    subject alike, and not where the head reads tensors of the trunk that only go with the activations they came with.
    """
    found = rankability(context, model)
    return not (model.dot_product or model.rows == PAIR or found.not_ranked or found.passthrough)


def why_no_effects(model: SourceModel) -> str:
    """Why the effects of concepts are not measured on a panel, for a model without item vectors."""
    if reason := read_only(model):
        return reason
    if model.rows == PAIR:
        return "a row is a pair of a subject and an item, and a panel has no rows of other items"
    if model.rows == INTEREST:
        return f"{model.interests} interests make one list, which is no dot product"
    return "the head is no dot product"
