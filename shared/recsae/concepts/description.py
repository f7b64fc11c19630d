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

from recsae.concepts.described import Descriptions
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.features import Strata
from recsae.concepts.linear_facets import LinearFacets
from recsae.concepts.records import RuleRecord, rule_as_json, rule_from_json
from recsae.errors import CorruptArtifactError, FailedPreconditionError
from recsae.store.files import write_atomic, write_json_atomic

_RULES = "rules.json"
_RULE_KINDS = ("facet_rules", "item_sets", "popularity_rules", "permuted_rules")
_ARRAYS = "describing.safetensors"


@dataclass(frozen=True)
class Description:
    """`draft` is a dictionary whose records hold everything but verification scores.

    Per latent: `facet_rules`, `item_sets` and `popularity_rules` (the best rule about popularity alone, a control);
    `prefers_set` bool [w], which of the first two to show when neither is verified; `neighbours` int32 [w, 5] nearest
    latents by firing; `correlations` float32 [w, 5]; `probe_counts` int64 [w] firings outside verification; `effect`
    float32 [w] mean absolute score change per unit. `strata` are the cells negatives are matched in. For described
    NDCG: `permuted_rules`, the facet rules given to the wrong latents; `linear`, the map from facets to activations
    without an SAE; `bits`, the length of the facet rules.
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
    permuted_rules: tuple[RuleRecord, ...]
    linear: LinearFacets
    bits: float

    def told(self, shows_set: NDArray[np.bool_]) -> Descriptions:
        """What described NDCG tests; `shows_set` [w] says which latents are labelled by their item set."""
        arrays = self.draft.arrays
        return Descriptions(
            rules=self.facet_rules,
            permuted=self.permuted_rules,
            sets=self.item_sets,
            shows_set=shows_set,
            silent=arrays.density * arrays.mean / arrays.p95,
            p95=arrays.p95,
            linear=self.linear,
            bits=self.bits,
        )

    def save(self, folder: Path) -> None:
        """Writes the draft's files, `rules.json` and `describing.safetensors` into `folder`."""
        self.draft.save(folder)
        rules = {
            "facet_rules": self.facet_rules,
            "item_sets": self.item_sets,
            "popularity_rules": self.popularity_rules,
            "permuted_rules": self.permuted_rules,
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
            "linear_columns": self.linear.columns,
            "linear_weights": self.linear.weights,
            "linear_offset": self.linear.offset,
            "bits": np.array([self.bits]),
        }
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_atomic(folder / _ARRAYS, safetensors.numpy.save(contiguous))

    @classmethod
    def load(cls, folder: Path) -> Description:
        """Reads what `save` wrote; CorruptArtifactError when its files are not of one width.

        FailedPreconditionError for what a release before left, which knew less of a latent.
        """
        draft = Dictionary.load(folder, "")
        stored = json.loads((folder / _RULES).read_bytes())
        arrays = safetensors.numpy.load_file(folder / _ARRAYS)
        if missing := sorted({*_RULE_KINDS} - {*stored} | {"linear_columns", "bits"} - {*arrays}):
            raise FailedPreconditionError(
                f"an earlier release described these latents, without {', '.join(missing)}; start a new run"
            )
        rules = {name: _rules(stored[name]) for name in _RULE_KINDS}
        strata = Strata(arrays.pop("popularity_edges"), arrays.pop("length_edges"))
        linear = LinearFacets(*(arrays.pop(f"linear_{name}") for name in ("columns", "weights", "offset")))
        bits = float(arrays.pop("bits")[0])
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
            permuted_rules=rules["permuted_rules"],
            linear=linear,
            bits=bits,
        )


def _rules(stored: Sequence[dict[str, Any]]) -> tuple[RuleRecord, ...]:
    return tuple(rule_from_json(rule) for rule in stored)
