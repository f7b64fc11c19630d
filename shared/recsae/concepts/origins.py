"""Where the concepts of a dictionary come from and what became of those before, as plain values with their JSON form.

docs/method.md, section 8. A concept stands *without doubt* when it was found again and nothing speaks against its
being the same; everything that people attach to an id (policies, words of their own) holds only as far back as that.
Not here: how latents are matched (`recsae.sae.matching`), how ids are given (`identity`), what is kept (`keeping`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter

# Statuses of `recsae.sae.matching.LatentStatus`, which serving cannot import.
STABLE, DRIFTED, SPLIT, MERGED, NEW, LOST, SILENT = (
    "stable", "drifted", "split", "merged", "new", "lost", "silent",
)  # fmt: skip
# Dictionaries before this one that are remembered by name; what was made for an older one is looked at again.
MOST_ANCESTORS = 50


@dataclass(frozen=True)
class Origin:
    """What became of a concept at the refresh that made this dictionary.

    `status` is a `recsae.sae.matching.LatentStatus`; `from_ids` the concepts of the dictionary before that it carries
    on (several when merged); `cosine` and `correlation` are those with its partner there. `kept` says whether the old
    predicate, unchanged, verifies on the new activations (None = the old one was not verified, so there is nothing to
    keep); `too_few_cases` that it does not because a class of cases is too small there to judge it. `unbroken` counts
    the dictionaries before this one, newest first, in which its id meant the same.
    """

    status: str
    from_ids: tuple[str, ...] = ()
    cosine: float = 0.0
    correlation: float = 0.0
    kept: bool | None = None
    too_few_cases: bool = False
    unbroken: int = 0

    @property
    def doubt(self) -> str:
        """Why it may not be what its id meant in the dictionary before, in words; "" when nothing says so."""
        if self.status == DRIFTED:
            return f"drifted (decoder cosine {self.cosine:.2f}, firing correlation {self.correlation:.2f})"
        if self.status == SILENT:
            return f"fires too rarely to be compared (decoder cosine {self.cosine:.2f})"
        if self.status != STABLE:
            return f"is {self.status}"
        if self.kept is not False:
            return ""
        few = "has too few cases left to verify its old rule on"
        return few if self.too_few_cases else "no longer passes verification with its old rule"


@dataclass(frozen=True)
class Fate:
    """What became of a live concept of the dictionary before.

    `status`: stable, drifted, split, merged, lost, or silent (too rare to be compared). `to_ids`: what carries it on
    now, empty when lost; its own id where that was kept. `mass` is its share of activation on the probe rows, of the
    old dictionary. `verified`: it was; `kept`: found again and its old rule, unchanged, verifies on the new
    activations (None = it was not verified before); `too_few_cases`: it was found, but not judged for want of cases.
    """

    id: str
    label: str
    status: str
    to_ids: tuple[str, ...] = ()
    cosine: float = 0.0
    correlation: float = 0.0
    mass: float = 0.0
    verified: bool = False
    kept: bool | None = None
    too_few_cases: bool = False

    @property
    def words(self) -> str:
        """What happened, for people: "split into c-1, c-2"."""
        successors = ", ".join(self.to_ids)
        if self.status == SPLIT:
            return f"split into {successors}"
        if self.status == MERGED:
            return f"merged into {successors}"
        if self.to_ids:
            return self.status
        return "too rare to be found again" if self.status == SILENT else "lost"


@dataclass(frozen=True)
class Lineage:
    """What became of the dictionary that was in production when this one was made.

    `ancestors` are versions of dictionaries, the one before first; `sae_version` and `model_version` are of that one.
    `probe_rows` is on how many rows firings were compared; `explained` the share of variance the rotation between two
    base models explains, None within one; `by_chance` the share of latents matched in an unrelated dictionary.
    """

    ancestors: tuple[str, ...]
    sae_version: str
    model_version: str
    probe_rows: int
    explained: float | None
    by_chance: float
    fates: tuple[Fate, ...]

    @cached_property
    def _by_id(self) -> dict[str, Fate]:
        return {fate.id: fate for fate in self.fates}

    def fate(self, concept_id: str) -> Fate | None:
        """What became of a concept of the dictionary before; None when that had none of this id."""
        return self._by_id.get(concept_id)

    def summary(self) -> dict[str, Any]:
        """Counts and shares of activation per status, over all live concepts of before and over the verified ones."""
        verified = [fate for fate in self.fates if fate.verified]
        kept = [fate for fate in verified if fate.kept]
        judged = [fate for fate in verified if not fate.too_few_cases]
        return {
            "live": _by_status(self.fates),
            "verified": _by_status(verified),
            "kept": len(kept),
            "kept_share": len(kept) / len(verified) if verified else None,
            "kept_share_of_mass": _share(kept, verified),
            "judged": len(judged),
            "kept_share_of_judged": len(kept) / len(judged) if judged else None,
            "false_match_rate": self.by_chance,
            "alignment_explained": self.explained,
            "probe_rows": self.probe_rows,
        }

    def as_json(self) -> str:
        """With the summary beside it, for readers; it is computed again when read."""
        return json.dumps({**asdict(self), "summary": self.summary()}, sort_keys=True, allow_nan=False)


def lineage_from_json(text: str | bytes) -> Lineage:
    """The lineage `as_json` was made from."""
    stored: dict[str, Any] = json.loads(text)
    stored.pop("summary", None)
    return _LINEAGES.validate_python(stored)


def doubt_since(made_for: str, version: str, lineage: Lineage | None, origin: Origin | None) -> str:
    """Why a concept of dictionary `version` may not be what its id meant in dictionary `made_for`; "" when it is.

    Nobody wrote down what they were made for before there were lineages: `made_for` "" stands for the oldest dictionary
    that this one goes back to.
    """
    ancestors = lineage.ancestors if lineage else ()
    made_for = made_for or (ancestors[-1] if ancestors else version)
    if made_for == version:
        return ""
    if made_for not in ancestors or origin is None:
        return f"was named for dictionary {made_for}, which is not one this one goes back to"
    if ancestors.index(made_for) < origin.unbroken:
        return ""
    return origin.doubt or f"came into doubt since dictionary {made_for}"


def _by_status(fates: Sequence[Fate]) -> Mapping[str, Mapping[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for status in (STABLE, DRIFTED, SPLIT, MERGED, LOST, SILENT):
        mine = [fate for fate in fates if fate.status == status]
        found[status] = {"count": len(mine), "share_of_mass": _share(mine, fates) or 0.0}
    return found


def _share(some: Sequence[Fate], of: Sequence[Fate]) -> float | None:
    total = sum(fate.mass for fate in of)
    return sum(fate.mass for fate in some) / total if total > 0 else None


_LINEAGES = TypeAdapter(Lineage)
