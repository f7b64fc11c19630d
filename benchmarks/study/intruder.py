"""The intruder test of the study's dictionary, on verification users.

Not here: trials and judges (`recsae.concepts.intruder`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.study.material import Material
from recsae.concepts.inputs import read_part
from recsae.concepts.intruder_scores import intruder_scores
from recsae.concepts.records import is_verified
from recsae.concepts.splits import UserPart


def intruder_study(material: Material) -> dict[str, Any]:
    """Share of intruders found, over the whole dictionary and verified concepts, by both judges, with the control."""
    dictionary = material.dictionary
    part = read_part(material.inputs, UserPart.VERIFICATION)
    lag = np.array([int(concept.scores.get("typical_lag", 0)) for concept in dictionary.concepts], np.int64)
    found = intruder_scores(material.inputs, part, dictionary.arrays.p95, lag, dictionary.concepts)
    return found.summary(np.array([is_verified(concept) for concept in dictionary.concepts]))
