"""What construction users taught about every latent, before verification: the artifact between the two stages.

Not here: how it is found (`construction`) and judged (`judgement`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from recsae.concepts.dictionary import Dictionary
from recsae.concepts.features import Strata
from recsae.concepts.records import RuleRecord, rule_as_json, rule_from_json
from recsae.errors import CorruptArtifactError
from recsae.store.files import write_atomic, write_json_atomic

_RULES = "rules.json"
_ARRAYS = "describing.safetensors"


@dataclass(frozen=True)
class Description:
    """`draft` is a dictionary whose records hold everything but verification scores.

    Per latent: `facet_rules`, `item_sets` and `popularity_rules` (the best rule about popularity alone, a control);
    `prefers_set` bool [w], which of the first two to show when neither is verified; `neighbours` int32 [w, 5] nearest
    latents by firing; `correlations` float32 [w, 5]; `probe_counts` int64 [w] firings outside verification; `effect`
    float32 [w] mean absolute score change per unit. `strata` are the cells negatives are matched in.
    """

    draft: Dictionary
    facet_rules: tuple[RuleRecord, ...]
    item_sets: tuple[RuleRecord, ...]
    popularity_rules: tuple[RuleRecord, ...]
    prefers_set: NDArray[np.bool_]
    neighbours: NDArray[np.int32]
    correlations: NDArray[np.float32]
    probe_counts: NDArray[np.int64]
    effect: NDArray[np.float32]
    strata: Strata

    def save(self, folder: Path) -> None:
        """Writes the draft's files, `rules.json` and `describing.safetensors` into `folder`."""
        self.draft.save(folder)
        rules = {
            "facet_rules": self.facet_rules,
            "item_sets": self.item_sets,
            "popularity_rules": self.popularity_rules,
        }
        write_json_atomic(
            folder / _RULES, {name: [rule_as_json(rule) for rule in each] for name, each in rules.items()}
        )
        arrays: dict[str, NDArray[Any]] = {
            "prefers_set": self.prefers_set,
            "neighbours": self.neighbours,
            "correlations": self.correlations,
            "probe_counts": self.probe_counts,
            "effect": self.effect,
            "popularity_edges": self.strata.popularity_edges,
            "length_edges": self.strata.length_edges,
        }
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_atomic(folder / _ARRAYS, safetensors.numpy.save(contiguous))

    @classmethod
    def load(cls, folder: Path) -> Description:
        """Reads what `save` wrote; CorruptArtifactError when its files are not of one width."""
        draft = Dictionary.load(folder, "")
        stored = json.loads((folder / _RULES).read_bytes())
        rules = {name: _rules(stored[name]) for name in ("facet_rules", "item_sets", "popularity_rules")}
        arrays = safetensors.numpy.load_file(folder / _ARRAYS)
        strata = Strata(arrays.pop("popularity_edges"), arrays.pop("length_edges"))
        sizes = {name: len(each) for name, each in (rules | arrays).items()}
        if set(sizes.values()) != {draft.width}:
            raise CorruptArtifactError(f"a description of {draft.width} latents holds {sizes}; describe again")
        return cls(
            draft=draft,
            facet_rules=rules["facet_rules"],
            item_sets=rules["item_sets"],
            popularity_rules=rules["popularity_rules"],
            prefers_set=arrays["prefers_set"],
            neighbours=arrays["neighbours"],
            correlations=arrays["correlations"],
            probe_counts=arrays["probe_counts"],
            effect=arrays["effect"],
            strata=strata,
        )


def _rules(stored: Sequence[dict[str, Any]]) -> tuple[RuleRecord, ...]:
    return tuple(rule_from_json(rule) for rule in stored)
