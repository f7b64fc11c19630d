"""Where a concept of a dictionary comes from, as plain values (docs/method.md, section 8).

Not here: how latents are matched (`recsae.sae.matching`) and how ids are given (`identity`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """What became of a concept at the refresh that made this dictionary.

    `status` is a `recsae.sae.matching.LatentStatus`; `from_ids` the concepts of the dictionary before that it carries
    on (several when merged). `kept` says whether the old predicate, unchanged, verifies on the new activations (None =
    the old one was not verified, so there is nothing to keep).
    """

    status: str
    from_ids: tuple[str, ...] = ()
    cosine: float = 0.0
    correlation: float = 0.0
    kept: bool | None = None
