"""People's words lie over a dictionary that is reported or exported, unless they are in doubt."""

from __future__ import annotations

import numpy as np

from recsae.cli.dictionaries import with_edits
from recsae.concepts.dictionary import ConceptArrays, Dictionary
from recsae.concepts.records import ConceptRecord, LabelSource
from recsae.v1 import interpreter_pb2


def test_labels_and_notes_of_people_are_laid_over_those_of_the_rules() -> None:
    concepts = tuple(ConceptRecord(f"c-{latent}", latent, label=f"Rule {latent}") for latent in range(4))
    ones = np.ones(4, np.float32)
    dictionary = Dictionary("d" * 16, "a" * 16, "b" * 16, concepts, ConceptArrays(ones, ones, ones, ones, ones), {})
    edits = [
        interpreter_pb2.LabelEdit(concept_id="c-0", label="Night terrors", note="seen in March"),
        interpreter_pb2.LabelEdit(concept_id="c-1", note="watch this"),
        interpreter_pb2.LabelEdit(concept_id="c-2", label="Old", doubt="drifted"),
        interpreter_pb2.LabelEdit(concept_id="c-gone", label="Gone"),
    ]
    shown = with_edits(dictionary, edits).concepts
    named = (shown[0].label, shown[0].machine_label, shown[0].note, shown[0].label_source)
    assert named == ("Night terrors", "Rule 0", "seen in March", LabelSource.HUMAN)
    assert (shown[1].label, shown[1].note, shown[1].label_source) == ("Rule 1", "watch this", LabelSource.RULES)
    assert shown[2:] == concepts[2:]
