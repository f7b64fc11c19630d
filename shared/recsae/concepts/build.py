"""Builds a dictionary: describe on construction users, then judge on verification users.

The pipeline runs the two stages as two tasks with a `Description` between them; this is the same in one call.
"""

from __future__ import annotations

from recsae.concepts.construction import describe
from recsae.concepts.described import RankedRows
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.inputs import DictionaryInputs, Progress
from recsae.concepts.judgement import verify

# Describing takes about three quarters of the time, most of it embedding histories with items left out.
_DESCRIBING_SHARE = 0.75


def build_dictionary(
    inputs: DictionaryInputs,
    progress: Progress = lambda _message, _share: None,
    ranked: RankedRows | None = None,
) -> Dictionary:
    """A dictionary of all latents; `progress` is called with what is being done and the share done, 0 to 1."""
    description = describe(inputs, lambda message, share: progress(message, share * _DESCRIBING_SHARE))
    return verify(
        inputs,
        description,
        lambda message, share: progress(message, _DESCRIBING_SHARE + share * (1 - _DESCRIBING_SHARE)),
        ranked,
    )
