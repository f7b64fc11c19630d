"""The gates a candidate must pass to be promoted by its own run. People may promote past them, with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """A score must be at least `least` (or at most `most`).

    `of_rankings`: asked where rankings can be measured (True), where they cannot (False), or always (None).
    """

    score: str
    words: str
    least: float | None = None
    most: float | None = None
    of_rankings: bool | None = None


# Loose on purpose: they stop a broken SAE (wrong data, diverged training, all dead), not a mediocre one.
GATES = (
    Gate("sae.fvu", "fraction of variance unexplained on held-out users", most=0.5),
    # Its interval spans several points on small data, so only what lies wholly below is stopped.
    Gate(
        "rank.ndcg@10_kept_high",
        "upper end of the interval of NDCG@10 kept with reconstructed activations",
        least=0.9,
        of_rankings=True,
    ),
    # Where nothing ranks from the hook, reconstruction stands in, also of the rows that serving computes.
    Gate(
        "sae.fvu_last",
        "fraction of variance unexplained on held-out users' newest rows",
        most=0.5,
        of_rankings=False,
    ),
    Gate("sae.dead", "share of latents dead over users and items", most=0.5),
)


def failed_gates(scores: Mapping[str, float], *, ranked: bool = True) -> list[str]:
    """A sentence per gate that does not pass; a score that was not computed does not pass.

    `ranked` False: rankings cannot be measured on this hook, and other gates take their place.
    """
    gates = (gate for gate in GATES if gate.of_rankings in (None, ranked))
    return [sentence for gate in gates if (sentence := _judge(gate, scores.get(gate.score)))]


def _judge(gate: Gate, value: float | None) -> str:
    if value is None:
        return f"{gate.words} ({gate.score}) was not computed"
    if gate.least is not None and not value >= gate.least:
        return f"{gate.words} is {value:.3f}, under {gate.least:g}"
    if gate.most is not None and not value <= gate.most:
        return f"{gate.words} is {value:.3f}, over {gate.most:g}"
    return ""
